package kafka

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/producer"
	"tidemark/topology"
)

// Config says how to reach a cluster. Nothing else is read: no global, no environment.
type Config struct {
	Brokers  []string // host:port of any of them; the others are found
	ClientID string   // seen in the brokers' logs and quotas; empty is "tidemark"
	TLS      TLSConfig
	SASL     SASLConfig
}

// How long a client waits and tries again. A leader killed without warning is replaced after the session timeout the brokers
// keep among themselves (9 s) plus the election: 12 s seen, 32 s when a majority was away and came back.
const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 30 * time.Second
	retries        = 30 // from 250 ms doubling to 2 s: 56 s together
)

// validate refuses what could only fail later and less clearly.
func (c Config) validate() error {
	if len(c.Brokers) == 0 || slices.Contains(c.Brokers, "") {
		return errors.New("no broker address given: set --brokers to host:port, several separated by commas")
	}
	if err := c.TLS.validate(); err != nil {
		return err
	}
	return c.SASL.validate()
}

func (c Config) clientID() string {
	if c.ClientID == "" {
		return "tidemark"
	}
	return c.ClientID
}

// Sarama returns a configuration that loses nothing: goka's builders change what they are given, so each caller gets its own.
func (c Config) Sarama() (*sarama.Config, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := sarama.NewConfig()
	s.ClientID = c.clientID()
	s.ChannelBufferSize = 128 // records of each partition that is read, however large they are
	s.Net.DialTimeout = dialTimeout
	s.Net.MaxOpenRequests = 1 // with more, a retried batch may land behind a later one
	// A hung broker is left after this long. A join that waits longer for a slow member fails and is made again, which costs
	// less than a fetch that waits as long as the longest join may.
	s.Net.ReadTimeout = requestTimeout
	s.Net.WriteTimeout = requestTimeout

	// sarama fails a batch at once, whatever Producer.Retry says, when the look-up of its leader fails.
	s.Metadata.Retry.Max = retries
	s.Metadata.Retry.BackoffFunc = backoff

	saramaProducer(s)
	committed.ReaderSettings(s, topology.MaxMessageBytes)

	if err := c.TLS.sarama(s); err != nil {
		return nil, err
	}
	c.SASL.sarama(s)
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("kafka client settings: %w", err)
	}
	return s, nil
}

// saramaReader returns the configuration for who only reads, and is built anew when that fails: sarama's look-ups of
// metadata, which are deaf to the end of a context, then give up within a second, where a producer must outlast an election.
func (c Config) saramaReader() (*sarama.Config, error) {
	s, err := c.Sarama()
	if err != nil {
		return nil, err
	}
	s.Metadata.Retry.Max = 3
	s.Metadata.Retry.BackoffFunc = func(int, int) time.Duration { return 250 * time.Millisecond }
	return s, nil
}

func saramaProducer(s *sarama.Config) {
	s.Producer.RequiredAcks = sarama.WaitForAll
	s.Producer.Idempotent = true
	s.Producer.MaxMessageBytes = topology.MaxMessageBytes
	s.Producer.Retry.Max = retries
	s.Producer.Retry.BackoffFunc = backoff
	s.Producer.Return.Successes = true
	s.Producer.Return.Errors = true
	// No compression: a consumer in another language needs a library for every codec but gzip, and gzip costs more than it saves.
	s.Producer.Compression = sarama.CompressionNone
}

// backoff is the wait before one of sarama's retries.
func backoff(attempt, _ int) time.Duration {
	return min(250*time.Millisecond<<min(max(attempt-1, 0), 8), 2*time.Second)
}

// Franz returns the options that reach the cluster: addresses, client id, TLS, SASL. Callers add what they do with it.
func (c Config) Franz() ([]kgo.Opt, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID(c.clientID()), kgo.DialTimeout(dialTimeout),
		// A connection that ends before its first answer may mean wrong TLS or a wrong login, and kgo would give up at once. It
		// may as well be the one of three brokers that is down behind a load balancer, so the others are asked. Who asked with
		// wrong settings hears of it when the request's time is over.
		kgo.AlwaysRetryEOF(),
		// Who only reads would go on reading from a leader that was replaced, too.
		kgo.MetadataMinAge(250 * time.Millisecond), kgo.MetadataMaxAge(producer.MetadataMaxAge),
	}
	if c.TLS.Enabled {
		config, err := c.TLS.client()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(config))
	}
	if c.SASL.Mechanism != "" {
		opts = append(opts, kgo.SASL(c.SASL.franz()))
	}
	return opts, nil
}

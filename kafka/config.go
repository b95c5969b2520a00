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

// Config says how to connect to a cluster. No globals or environment variables are read.
type Config struct {
	Brokers  []string // host:port of some of them; the others are discovered
	ClientID string   // in the brokers' logs and quotas; empty: "tidemark"
	TLS      TLSConfig
	SASL     SASLConfig
}

// Timeouts and retries of a client. A leader that is killed is replaced after the brokers' session timeout (9 s) plus
// the election: 12 s were measured, and 32 s when a majority was down and came back.
const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 30 * time.Second
	retries        = 30 // from 250 ms to 2 s: some 55 s together
)

// validate refuses settings that would fail later with a less clear error.
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

// Sarama returns a configuration that neither loses nor reorders records. goka's builders change it, so each caller
// gets its own.
func (c Config) Sarama() (*sarama.Config, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := sarama.NewConfig()
	s.ClientID = c.clientID()
	s.ChannelBufferSize = 128 // records per consumed partition, whatever their size
	s.Net.DialTimeout = dialTimeout
	s.Net.MaxOpenRequests = 1 // with more, a retried batch may be written after a later one
	// A connection to a hung broker is closed after this time. A join that waits longer for a slow member fails and is
	// retried; that is better than fetches that wait as long as the longest join.
	s.Net.ReadTimeout = requestTimeout
	s.Net.WriteTimeout = requestTimeout

	// When the look-up of a leader fails, sarama fails the batch at once, whatever Producer.Retry is.
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

// saramaReader returns the configuration of consumers, which are restarted when they fail. Their metadata look-ups,
// which do not end with a context, give up within a second. A producer's must outlast an election.
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
	// Consumers in other languages need a library for every compression but gzip, and gzip costs more than it saves.
	s.Producer.Compression = sarama.CompressionNone
}

// backoff is the pause before one of sarama's retries.
var backoff = sarama.NewExponentialBackoff(250*time.Millisecond, 2*time.Second)

// Franz returns the options to connect: addresses, client id, TLS, SASL. Callers add their own.
func (c Config) Franz() ([]kgo.Opt, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...), kgo.ClientID(c.clientID()), kgo.DialTimeout(dialTimeout),
		// A connection that is closed before its first answer may mean wrong TLS settings or a wrong login, and kgo
		// would give up at once. It may as well be the one of three brokers that is down behind a load balancer, so the
		// others are tried. With wrong settings the error comes when the request times out.
		kgo.AlwaysRetryEOF(),
		// For consumers too: they would go on reading from a deposed leader.
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

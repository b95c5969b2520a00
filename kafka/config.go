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

const (
	dialTimeout    = 5 * time.Second
	requestTimeout = 30 * time.Second
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

// Sarama returns a configuration for consumers that skips nothing; records are produced by franz-go. goka's builders
// change the configuration, so each caller gets its own.
func (c Config) Sarama() (*sarama.Config, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	s := sarama.NewConfig()
	s.ClientID = c.clientID()
	s.ChannelBufferSize = 128 // records per consumed partition, whatever their size
	s.Net.DialTimeout = dialTimeout
	s.Net.MaxOpenRequests = 1 // per connection; what all measurements were made with
	// A connection to a hung broker is closed after this time. A join that waits longer for a slow member fails and is
	// retried; that is better than fetches that wait as long as the longest join.
	s.Net.ReadTimeout = requestTimeout
	s.Net.WriteTimeout = requestTimeout

	// Only consumers use sarama, and they are restarted when they fail. Metadata look-ups, which do not end with a
	// context, give up within a second.
	s.Metadata.Retry.Max = 3
	s.Metadata.Retry.BackoffFunc = func(int, int) time.Duration { return 250 * time.Millisecond }
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
		// For consumers too: they would go on reading from a stale leader.
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

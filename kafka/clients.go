package kafka

import (
	"errors"
	"fmt"
	"strings"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/producer"
	"tidemark/topology"
)

// Cluster returns the connection settings for the packages below this one.
func (c Config) Cluster() committed.Cluster {
	return committed.Cluster{
		Brokers: c.Brokers, Sarama: c.Sarama, Franz: c.Franz,
		Explain: func(topic string, err error) error {
			switch {
			case errors.Is(err, kerr.UnknownTopicOrPartition):
				return missing(topic)
			case errors.Is(err, kerr.TopicAuthorizationFailed):
				return deniedRead(topic)
			case errors.Is(err, sarama.ErrOffsetOutOfRange):
				return fmt.Errorf("%w; `tidemark doctor` says which", err)
			}
			return fmt.Errorf("%w, at %s", err, strings.Join(c.Brokers, ","))
		},
	}
}

// NewProducer returns a producer for callers that set the partition of each record: acknowledged by all in-sync
// replicas, idempotent, in order per partition.
func NewProducer(c Config, more ...kgo.Opt) (*kgo.Client, error) {
	options, err := c.Franz()
	if err != nil {
		return nil, err
	}
	options = append(options, producer.Options(topology.MaxMessageBytes)...)
	options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	client, err := kgo.NewClient(append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("start producer: %w", err)
	}
	return client, nil
}

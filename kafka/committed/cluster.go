package committed

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Cluster says how the package's clients connect to Kafka. Each call of a function returns a new value, because
// goka's builders change the one that they are given.
type Cluster struct {
	Brokers []string // host:port of any of them
	// Sarama returns settings with ReaderSettings among them.
	Sarama func() (*sarama.Config, error)
	// Franz returns the options to connect: addresses, TLS, SASL.
	Franz func() ([]kgo.Opt, error)
	// Explain returns the error of a request about a topic with what it means to the operator, and how to fix it. It
	// may be nil.
	Explain func(topic string, err error) error
}

// Explained returns the error of a request about a topic, with what Explain adds to it.
func (c Cluster) Explained(topic string, err error) error {
	if err == nil || c.Explain == nil {
		return err
	}
	return c.Explain(topic, err)
}

// A TopicID identifies a topic for as long as it exists: a topic that is deleted and created again has another one.
type TopicID struct{ Cluster, Topic string }

// String returns "cluster id/topic id".
func (id TopicID) String() string { return id.Cluster + "/" + id.Topic }

// TopicID looks up the id of a topic, for up to 6 s.
func (c Cluster) TopicID(ctx context.Context, topic string) (TopicID, error) {
	options, err := c.Franz()
	if err != nil {
		return TopicID{}, err
	}
	client, err := kgo.NewClient(append(options, kgo.RetryTimeout(6*time.Second))...)
	if err != nil {
		return TopicID{}, err
	}
	defer client.Close()
	ids, err := TopicIDs(ctx, client, func(_ string, err error) error {
		return c.Explained(topic, fmt.Errorf("look up topics: %w", err))
	}, topic)
	return ids[topic], err
}

// TopicIDs looks up the ids of topics. An error is passed through explain, with the topic that it is about; with an
// empty name when the whole request failed.
func TopicIDs(
	ctx context.Context, client *kgo.Client, explain func(topic string, err error) error, topics ...string,
) (map[string]TopicID, error) {
	request := kmsg.NewPtrMetadataRequest() // kadm would answer from a cache, or give up sooner
	request.AllowAutoTopicCreation = false
	request.Topics = []kmsg.MetadataRequestTopic{} // none, not nil: nil asks for all topics
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		request.Topics = append(request.Topics, t)
	}
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return nil, explain("", err)
	}
	ids := map[string]TopicID{}
	for _, t := range response.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case t.Topic == nil:
		case t.TopicID != [16]byte{} && response.ClusterID != nil: // an error then says that a partition has no leader
			ids[*t.Topic] = TopicID{Cluster: *response.ClusterID, Topic: kadm.TopicID(t.TopicID).String()}
		case err != nil:
			return nil, explain(*t.Topic, fmt.Errorf("topic %s: %w", *t.Topic, err))
		}
	}
	for _, name := range topics {
		if _, found := ids[name]; !found {
			return nil, fmt.Errorf("topic %s has no id: Kafka 2.8 or newer is needed", name)
		}
	}
	return ids, nil
}

// At connects to brokers without TLS and SASL.
func At(brokers ...string) Cluster {
	return Cluster{
		Brokers: brokers,
		Sarama: func() (*sarama.Config, error) {
			s := sarama.NewConfig()
			ReaderSettings(s, maxPartitionBytes)
			return s, nil
		},
		Franz: func() ([]kgo.Opt, error) { return []kgo.Opt{kgo.SeedBrokers(brokers...)}, nil },
	}
}

// ReaderSettings sets what a consumer needs to skip nothing and to read committed records only. A record has at most
// maxBytes.
func ReaderSettings(s *sarama.Config, maxBytes int32) {
	s.Version = sarama.V2_8_0_0               // the least for RequireStable and leader epochs
	s.Metadata.AllowAutoTopicCreation = false // a typo must not become a topic of one partition
	// A stale leader that the other brokers cannot reach goes on answering fetches with no new records; only fresh
	// metadata makes the consumer leave it. Metadata is refreshed every second, because three of four times sarama asks
	// the first broker that it connected to, which may be the stale one; and only for the topics that are read,
	// because that of a large cluster has megabytes.
	s.Metadata.RefreshFrequency = time.Second
	s.Metadata.Full = false
	s.Consumer.Return.Errors = true
	s.Consumer.Offsets.Initial = sarama.OffsetOldest // OffsetNewest would skip records from before the first commit
	s.Consumer.Offsets.AutoCommit.Enable = true
	s.Consumer.Offsets.AutoCommit.Interval = 250 * time.Millisecond // at_least of an event without a row waits for it
	s.Consumer.Offsets.Retry.Max = 10
	// With it a group also waits for open transactions that commit its offsets before it fetches them.
	s.Consumer.IsolationLevel = sarama.ReadCommitted
	// Per partition. A larger record is sent when its partition is the first in an answer, whose order changes. A
	// record that is not processed yet keeps its whole answer in memory: with 4 MiB a busy processor took 762 MB, with
	// 1 MiB 476 MB at the same speed.
	s.Consumer.Fetch.Default = min(1<<20, maxBytes)
	s.Consumer.Fetch.MaxBytes = 8 * maxBytes
	s.Consumer.Retry.Backoff = 500 * time.Millisecond
	// After this time sarama drops a partition whose channel is full from the fetch, and subscribes again. Callbacks
	// may wait for acks.
	s.Consumer.MaxProcessingTime = time.Second
	s.Consumer.Group.ResetInvalidOffsets = false // an offset out of range may mean lost records: the operator decides
	s.Consumer.Group.Session.Timeout = 10 * time.Second
	s.Consumer.Group.Heartbeat.Interval = 3 * time.Second
	// A member that leaves waits up to 60 s for acknowledgements; the group must wait longer before it reassigns its
	// partitions.
	s.Consumer.Group.Rebalance.Timeout = 90 * time.Second
}

package committed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TopicManager looks topics up, for goka's processors and views. It creates none: topics are made beforehand, so that two
// processes starting together do not race.
//
// goka recovers a table up to the end that its topic manager tells, and waits until it has read the record before it. This one
// tells the end of what can be read. A processor has to wait until no transaction is undecided below the table's end as it is:
// goka asks after the group's offsets were fetched, and the marker that makes offsets visible may be written before the marker
// that makes the rows visible which belong to them (KAFKA-10167). A row that is not waited for would be folded into once more.
// A view waits for nobody: what is undecided comes when it is decided.
func TopicManager(c Cluster, waits bool) goka.TopicManagerBuilder {
	return func(brokers []string) (goka.TopicManager, error) {
		config, err := c.Sarama()
		if err != nil {
			return nil, err
		}
		options, err := c.Franz()
		if err != nil {
			return nil, err
		}
		client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(250*time.Millisecond))...)
		if err != nil {
			return nil, err
		}
		inner, err := goka.NewTopicManager(brokers, config, goka.NewTopicManagerConfig())
		if err != nil {
			client.Close()
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		return &topicManager{TopicManager: inner, client: client, cluster: c, waits: waits, ctx: ctx, cancel: cancel}, nil
	}
}

type topicManager struct {
	goka.TopicManager
	client  *kgo.Client
	cluster Cluster
	waits   bool
	ctx     context.Context // ends with Close: goka's interface passes none
	cancel  context.CancelFunc
	once    sync.Once
}

// patience is how long a table's undecided transactions are waited for. A broker aborts those of an instance that died within
// their timeout, 15 s in package epochs, and the 10 s of its look-out for them.
const patience = time.Minute

// GetOffset returns the newest offset as TopicManager says, and others as they are.
func (m *topicManager) GetOffset(topic string, partition int32, at int64) (int64, error) {
	if at != sarama.OffsetNewest {
		return m.TopicManager.GetOffset(topic, partition, at)
	}
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	end, err := m.end(ctx, topic, partition)
	if err != nil {
		return 0, err
	}
	for {
		last, err := Ends(ctx, m.client, topic, map[int32]int64{partition: end})
		if err != nil {
			return 0, fmt.Errorf("find the end of %s/%d: %w", topic, partition, err)
		}
		if end, found := last[partition]; found {
			return end, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("a transaction on %s/%d is still undecided, or its leader does not answer: %w", topic, partition, ctx.Err())
		}
	}
}

// end returns where the partition ends, with what is undecided if that is waited for.
func (m *topicManager) end(ctx context.Context, topic string, partition int32) (int64, error) {
	list := kadm.NewClient(m.client).ListCommittedOffsets
	if m.waits {
		list = kadm.NewClient(m.client).ListEndOffsets
	}
	listed, err := list(ctx, topic)
	end, found := listed.Lookup(topic, partition)
	switch {
	case found: // an error about other partitions does not matter
		err = end.Err
	case err == nil:
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return 0, m.cluster.Explained(topic, fmt.Errorf("look up the end of %s/%d: %w", topic, partition, err))
	}
	return end.Offset, nil
}

func (m *topicManager) Close() error {
	m.once.Do(func() { m.cancel(); m.client.Close() })
	return m.TopicManager.Close()
}

// Consumer reads tables, for goka's processors and views.
func Consumer(c Cluster) goka.SaramaConsumerBuilder {
	return func(brokers []string, clientID string) (sarama.Consumer, error) {
		config, err := c.Sarama()
		if err != nil {
			return nil, err
		}
		config.ClientID = clientID
		return sarama.NewConsumer(brokers, config)
	}
}

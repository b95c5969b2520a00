package committed

import (
	"cmp"
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

// A Floor tells where a partition of a table ends at least, by what its reader knows from elsewhere.
type MinEnd func(ctx context.Context, table string, partition int32) (int64, error)

// Anywhere is the Floor of who knows nothing.
func NoMinEnd(context.Context, string, int32) (int64, error) { return 0, nil }

// TopicManager looks topics up, for goka's processors and views. It creates none: topics are made beforehand, so that two
// processes starting together do not race.
//
// goka recovers a table up to the end that its topic manager tells, and waits until it has read the record before it. This one
// tells the end of what can be read. A processor has to wait until no transaction is undecided below the table's end as it is:
// goka asks after the group's offsets were fetched, and the marker that makes offsets visible may be written before the marker
// that makes the rows visible which belong to them (KAFKA-10167). A row that is not waited for would be folded into once more.
//
// An end below floor is not taken for one: a leader that was cut off from the others tells what it knew. A view passes nil and
// waits for nobody: what is undecided, or not told yet, comes later.
func TopicManager(c Cluster, floor MinEnd) goka.TopicManagerBuilder {
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
		config.Metadata.Full, config.Metadata.RefreshFrequency = true, 0 // goka looks for connections at once, and asks anew each time
		inner, err := goka.NewTopicManager(brokers, config, goka.NewTopicManagerConfig())
		if err != nil {
			client.Close()
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		return &topicManager{TopicManager: inner, client: client, cluster: c, minEnd: floor, ctx: ctx, cancel: cancel}, nil
	}
}

type topicManager struct {
	goka.TopicManager
	client  *kgo.Client
	cluster Cluster
	minEnd  MinEnd          // nil: nothing is waited for
	ctx     context.Context // ends with Close: goka's interface passes none
	cancel  context.CancelFunc
	once    sync.Once
}

// patience is how long a table's undecided transactions are waited for, and its true end. A broker aborts those of an instance
// that died within their timeout, 15 s in package epochs, and the 10 s of its look-out for them.
const endTimeout = time.Minute

// GetOffset returns the newest offset as TopicManager says, and others as they are.
func (m *topicManager) GetOffset(topic string, partition int32, at int64) (int64, error) {
	if at != sarama.OffsetNewest {
		return m.TopicManager.GetOffset(topic, partition, at)
	}
	ctx, cancel := context.WithTimeout(m.ctx, endTimeout)
	defer cancel()
	end, err := m.waitForMinEnd(ctx, topic, partition)
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

// risen returns where the partition ends, once that is not below the floor.
func (m *topicManager) waitForMinEnd(ctx context.Context, topic string, partition int32) (end int64, err error) {
	var floor int64
	if m.minEnd != nil {
		if floor, err = m.minEnd(ctx, topic, partition); err != nil {
			return 0, err
		}
	}
	for {
		if end, err = m.listEnd(ctx, topic, partition); err != nil || end >= floor {
			return end, err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("%s/%d ends at offset %d, and the group has committed what is in its rows up to %d: its leader is cut off from the other brokers, or the table has lost its end: %w",
				topic, partition, end, floor, ctx.Err())
		}
	}
}

// end returns where the partition ends, with what is undecided if that is waited for.
func (m *topicManager) listEnd(ctx context.Context, topic string, partition int32) (int64, error) {
	list := kadm.NewClient(m.client).ListCommittedOffsets
	if m.minEnd != nil {
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
		config.ClientID = cmp.Or(clientID, config.ClientID)
		return sarama.NewConsumer(brokers, config)
	}
}

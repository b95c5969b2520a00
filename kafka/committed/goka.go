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

// A MinEnd returns a lower bound of the end of a table's partition, which the reader knows from elsewhere.
type MinEnd func(ctx context.Context, table string, partition int32) (int64, error)

// NoMinEnd is the MinEnd of a reader that knows no bound.
func NoMinEnd(context.Context, string, int32) (int64, error) { return 0, nil }

// TopicManager looks up topics for goka's processors and views. It creates none: they are created beforehand, so that
// two processes that start together do not race.
//
// goka recovers a table up to the end that its topic manager returns, and waits until it has read the record before
// that end. This topic manager returns the end that a read_committed consumer reaches: see Ends. For a processor it
// waits until no transaction is open below the log's end. goka asks after the group's offsets were fetched, and the
// marker that makes the offsets visible may be written before the marker that makes their rows visible (KAFKA-10167).
// Without those rows the events after them would be applied to older rows.
//
// Ends below minEnd are rejected as stale: they come from a stale leader. A view passes nil and waits for nothing: it
// reads what becomes visible later.
func TopicManager(c Cluster, minEnd MinEnd) goka.TopicManagerBuilder {
	return func(brokers []string) (goka.TopicManager, error) {
		config, err := c.Sarama()
		if err != nil {
			return nil, err
		}
		options, err := c.Franz()
		if err != nil {
			return nil, err
		}
		client, err := kgo.NewClient(
			append(options, kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(250*time.Millisecond))...)
		if err != nil {
			return nil, err
		}
		// goka expects connections at once, and asks the broker each time.
		config.Metadata.Full, config.Metadata.RefreshFrequency = true, 0
		inner, err := goka.NewTopicManager(brokers, config, goka.NewTopicManagerConfig())
		if err != nil {
			client.Close()
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		return &topicManager{
			TopicManager: inner, client: client, cluster: c, minEnd: minEnd, ctx: ctx,
			cancel: cancel,
		}, nil
	}
}

type topicManager struct {
	goka.TopicManager
	client  *kgo.Client
	cluster Cluster
	minEnd  MinEnd          // nil: a view, which waits for nothing
	ctx     context.Context // ends with Close: goka's interface passes none
	cancel  context.CancelFunc
	once    sync.Once
}

// endTimeout is how long to wait for open transactions of a table, and for an end that is not stale. A broker aborts
// the transaction of an instance that died after its timeout, 15 s in package epochs, plus the 10 s between two checks.
const endTimeout = time.Minute

// GetOffset returns the end of a partition as TopicManager describes it, and for other times the offset that goka would
// get.
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
			return 0, fmt.Errorf("a transaction on %s/%d is still open, or its leader does not answer: %w", topic,
				partition, ctx.Err())
		}
	}
}

// waitForMinEnd returns the end of the partition, once it is not below minEnd.
func (m *topicManager) waitForMinEnd(ctx context.Context, topic string, partition int32) (end int64, err error) {
	var least int64
	if m.minEnd != nil {
		if least, err = m.minEnd(ctx, topic, partition); err != nil {
			return 0, err
		}
	}
	for {
		if end, err = m.listEnd(ctx, topic, partition); err != nil || end >= least {
			return end, err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf(
				"%s/%d ends at offset %d, but by the group's commits its changelog reaches offset %d: "+
					"its leader is cut off from the other brokers, or the table has lost its end: %w",
				topic, partition, end, least, ctx.Err())
		}
	}
}

// listEnd returns the log end offset of the partition for a processor, and its last stable offset for a view.
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

// Consumer builds the consumers with which goka's processors and views read tables.
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

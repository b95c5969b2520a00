package views

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/codecs"
	"tidemark/kafka"
	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
	"tidemark/topology"
)

// runViews reads the partitions that are held until one of the views ends, a restart is requested or ctx ends. It
// returns nil only once ctx has ended.
//
// Each partition has a goka view of its own. One view of all partitions would have to be replaced whenever another
// instance takes over some of them, and it reads nothing of a partition that is recovered until all are.
func (t *table) runViews(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	if err := t.open(ctx, conf, streams); err != nil {
		return err
	}
	clients, err := t.connect(conf)
	if err != nil {
		return err
	}
	defer clients.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go t.supervise(ctx, cancel, clients)
	go t.logProgress(ctx)
	t.setReason(nil)
	return t.followHolding(ctx, conf, clients)
}

// A runningView is the goka view of one partition.
type runningView struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// followHolding runs a view of each partition that is held.
func (t *table) followHolding(ctx context.Context, conf kafka.Config, clients *clients) error {
	views := map[int32]*runningView{}
	drop := time.NewTicker(dropEvery)
	defer drop.Stop()
	t.dropIdle()
	failed := make(chan error, t.topic.Partitions) // each run of followHolding ends with the first
	defer func() {
		for _, v := range views {
			v.cancel()
		}
		clients.close()
		for _, v := range views {
			<-v.done
		}
	}()
	for {
		held, changed := t.held.wait()
		for partition, v := range views {
			if !slices.Contains(held, partition) {
				v.cancel()
			}
		}
		for partition, v := range views {
			if !slices.Contains(held, partition) {
				<-v.done
				t.giveUp(partition)
				delete(views, partition)
			}
		}
		for _, partition := range held {
			if views[partition] != nil {
				continue
			}
			running, cancel := context.WithCancel(ctx)
			view, err := t.newView(running, partition, conf, clients)
			if err != nil {
				cancel()
				return fmt.Errorf("build view: %w", err)
			}
			v := &runningView{cancel: cancel, done: make(chan struct{})}
			views[partition] = v
			go func() {
				defer close(v.done)
				defer cancel()
				err := view.Run(running)
				if running.Err() == nil {
					failed <- cmp.Or(err, errors.New("a view ended without an error"))
				}
			}()
		}
		select {
		case <-changed:
		case <-drop.C:
			t.dropIdle()
		case err := <-failed:
			return cmp.Or(context.Cause(ctx), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// dropEvery is how often the store drops partitions that were given up and did not come back in time.
const dropEvery = time.Hour

// dropIdle frees the space of partitions that are not held and whose rows cannot be used any more.
func (t *table) dropIdle() {
	for partition := range int32(t.topic.Partitions) {
		if t.held.holds(partition) {
			continue
		}
		if err := t.read(func(s *localstore.Store) error { return s.DropIdle(partition) }); err != nil {
			t.log.Warn("cannot drop a partition that is not held", "partition", partition, "error", err)
		}
	}
}

// newView returns a goka view of one partition. goka numbers the partitions of a view from 0, so it calls this one 0.
func (t *table) newView(ctx context.Context, partition int32, conf kafka.Config, clients *clients) (
	*goka.View, error,
) {
	var opened *partitionStorage
	return goka.NewView(conf.Brokers, goka.Table(t.topic.Name), codecs.Bytes{},
		goka.WithViewLogger(committed.GokaLog(t.log.With("partition", partition))),
		goka.WithViewClientID(conf.ClientID),
		goka.WithViewCallback(func(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
			return opened.apply(ctx.Offset(), key, value)
		}),
		goka.WithViewStorageBuilder(func(string, int32) (_ storage.Storage, err error) {
			opened, err = t.newStorage(ctx, partition)
			return opened, err
		}),
		goka.WithViewConsumerSaramaBuilder(func([]string, string) (sarama.Consumer, error) {
			return oneConsumer{clients.consumer, partition}, nil
		}),
		goka.WithViewTopicManagerBuilder(func([]string) (goka.TopicManager, error) {
			return oneManager{clients.manager, partition}, nil
		}),
		goka.WithViewAutoReconnect(),
		goka.WithViewBackoffBuilder(func() (goka.Backoff, error) {
			return goka.NewSimpleBackoff(200*time.Millisecond, 2*time.Second), nil
		}),
	)
}

// A oneConsumer reads one partition for a view that calls it 0. All views share its connections.
type oneConsumer struct {
	sarama.Consumer
	partition int32
}

func (c oneConsumer) ConsumePartition(topic string, _ int32, offset int64) (sarama.PartitionConsumer, error) {
	return c.Consumer.ConsumePartition(topic, c.partition, offset)
}

// Close does nothing: other views use the consumer.
func (oneConsumer) Close() error { return nil }

// A oneManager looks up one partition for a view that calls it 0.
type oneManager struct {
	goka.TopicManager
	partition int32
}

func (oneManager) Partitions(string) ([]int32, error) { return []int32{0}, nil }

func (m oneManager) GetOffset(topic string, _ int32, at int64) (int64, error) {
	return m.TopicManager.GetOffset(topic, m.partition, at)
}

// Close does nothing: other views use the manager.
func (oneManager) Close() error { return nil }

// supervise ends the views when a restart is requested. It closes their clients, or without a broker goka would stay in
// sarama's retries for a minute or two. A view only reads, so nothing is lost.
func (t *table) supervise(ctx context.Context, cancel context.CancelCauseFunc, clients *clients) {
	select { // a request from before these views is out of date
	case <-t.restart:
	default:
	}
	select {
	case reason := <-t.restart:
		cancel(errors.New("the views must be replaced: " + reason))
	case <-ctx.Done():
	}
	clients.close()
}

// openPartition opens the storage of a partition for goka, and records at which changelog offset reading resumes.
func (t *table) openPartition(partition int32) (opened *localstore.Partition, err error) {
	err = t.read(func(s *localstore.Store) (err error) {
		if opened, err = s.Partition(partition); err != nil {
			return err
		}
		before, _ := t.frontiers[partition].offsets()
		next := int64(0)
		if offset, ok, err := s.Offset(partition); err != nil {
			return err
		} else if ok {
			next = offset + 1
		}
		t.frontiers[partition].open(next)
		if next < before && next == 0 { // localstore wiped it, since it was idle for too long
			t.generation.Add(1)
		}
		return nil
	})
	return opened, err
}

// clients are the connections of the views of a table.
type clients struct {
	consumer sarama.Consumer
	manager  goka.TopicManager
	once     sync.Once
}

// connect opens the connections, and checks the number of partitions.
func (t *table) connect(conf kafka.Config) (*clients, error) {
	consumer, err := committed.Consumer(conf.Cluster())(conf.Brokers, conf.ClientID)
	if err != nil {
		return nil, fmt.Errorf("connect to read the table: %w", err)
	}
	manager, err := committed.TopicManager(conf.Cluster(), nil)(conf.Brokers)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect to look up the table: %w", err), consumer.Close())
	}
	c := &clients{consumer: consumer, manager: manager}
	found, err := manager.Partitions(t.topic.Name)
	if err == nil && len(found) != t.topic.Partitions {
		err = fmt.Errorf("topic %s has %d partitions, but %d were configured", t.topic.Name, len(found),
			t.topic.Partitions)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// close closes the connections. Views that still use them end with an error, which is expected.
func (c *clients) close() {
	c.once.Do(func() {
		_ = c.consumer.Close()
		_ = c.manager.Close()
	})
}

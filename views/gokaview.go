package views

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// runView runs one goka view until it ends. It returns nil only once ctx has ended.
func (t *table) runView(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	if err := t.open(ctx, conf, streams); err != nil {
		return err
	}
	var clients clients
	defer clients.close()
	view, err := goka.NewView(conf.Brokers, goka.Table(t.topic.Name), codecs.Bytes{},
		goka.WithViewLogger(committed.GokaLog(t.log)),
		goka.WithViewClientID(conf.ClientID),
		goka.WithViewHasher(kafka.FileHasher),
		goka.WithViewCallback(t.update),
		goka.WithViewStorageBuilder(t.openPartition),
		goka.WithViewConsumerSaramaBuilder(clients.consumers(conf)),
		goka.WithViewTopicManagerBuilder(clients.managers(conf)),
		goka.WithViewAutoReconnect(),
		goka.WithViewBackoffBuilder(func() (goka.Backoff, error) {
			return goka.NewSimpleBackoff(200*time.Millisecond, 2*time.Second), nil
		}),
	)
	if err != nil {
		return fmt.Errorf("build view: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go t.supervise(ctx, cancel, &clients)
	t.setReason(nil)
	if err := view.Run(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.New("the view ended without an error")
}

// supervise ends the view when a restart is requested. It closes the view's clients, or without a broker goka would
// stay in sarama's retries for a minute or two. A view only reads, so nothing is lost.
func (t *table) supervise(ctx context.Context, cancel context.CancelCauseFunc, clients *clients) {
	select { // a request from before this view is out of date
	case <-t.restart:
	default:
	}
	select {
	case reason := <-t.restart:
		cancel(errors.New("the view must be replaced: " + reason))
	case <-ctx.Done():
	}
	clients.close()
}

// openPartition opens the storage of a partition for goka, and records at which changelog offset reading resumes.
func (t *table) openPartition(topic string, partition int32) (storage.Storage, error) {
	if int(partition) >= t.topic.Partitions {
		return nil, fmt.Errorf("topic %s has a partition %d, but %d were configured",
			topic, partition, t.topic.Partitions)
	}
	var opened storage.Storage
	err := t.read(func(s *localstore.Store) (err error) {
		if opened, err = s.Builder()(topic, partition); err != nil {
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

// clients are the connections of one goka view, which does not close all of them itself.
type clients struct {
	mu     sync.Mutex
	opened []io.Closer
}

func (c *clients) add(client io.Closer, err error) {
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opened = append(c.opened, client)
}

func (c *clients) consumers(conf kafka.Config) goka.SaramaConsumerBuilder {
	return func(brokers []string, clientID string) (sarama.Consumer, error) {
		consumer, err := committed.Consumer(conf.Cluster())(brokers, clientID)
		c.add(consumer, err)
		return consumer, err
	}
}

func (c *clients) managers(conf kafka.Config) goka.TopicManagerBuilder {
	return func(brokers []string) (goka.TopicManager, error) {
		manager, err := committed.TopicManager(conf.Cluster(), nil)(brokers)
		c.add(manager, err)
		return manager, err
	}
}

// close closes all connections. goka may have closed some already, which is the only error that can occur here.
func (c *clients) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.opened {
		_ = client.Close()
	}
}

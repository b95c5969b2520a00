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

// attempt runs one goka view from its start to its end. It never returns nil while ctx lives.
func (t *table) attempt(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	if err := t.open(ctx, conf, streams); err != nil {
		return err
	}
	var clients clients
	defer clients.cut()
	view, err := goka.NewView(conf.Brokers, goka.Table(t.topic.Name), codecs.Bytes{},
		goka.WithViewLogger(committed.GokaLog(t.log)),
		goka.WithViewClientID(conf.ClientID),
		goka.WithViewHasher(kafka.FileHasher),
		goka.WithViewCallback(t.update),
		goka.WithViewStorageBuilder(t.storage),
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
	go t.attend(ctx, cancel, &clients)
	t.because(nil)
	if err := view.Run(ctx); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return errors.New("the view ended without an error")
}

// attend ends the view when it stalls, and helps it to an end: without a broker goka would sit in sarama's retries for a
// minute or two. Nothing is lost by cutting them, because a view only reads.
func (t *table) attend(ctx context.Context, cancel context.CancelCauseFunc, clients *clients) {
	select { // a reason from before this view began is not one any more
	case <-t.restart:
	default:
	}
	select {
	case reason := <-t.restart:
		cancel(errors.New("the view reads nothing any more: " + reason))
	case <-ctx.Done():
	}
	clients.cut()
}

// storage opens a partition for goka, and notes where its changelog is read on.
func (t *table) storage(topic string, partition int32) (storage.Storage, error) {
	if int(partition) >= t.topic.Partitions {
		return nil, fmt.Errorf("topic %s has a partition %d, but %d were configured", topic, partition, t.topic.Partitions)
	}
	var opened storage.Storage
	err := t.read(func(s *localstore.Store) (err error) {
		if opened, err = s.Builder()(topic, partition); err != nil {
			return err
		}
		was, _ := t.frontiers[partition].state()
		next := int64(0)
		if offset, ok, err := s.Offset(partition); err != nil {
			return err
		} else if ok {
			next = offset + 1
		}
		t.frontiers[partition].opened(next)
		if next < was && next == 0 { // wiped, since it slept for too long: no answers before it is complete again
			t.lives.Add(1)
		}
		return nil
	})
	return opened, err
}

// clients are the connections of one goka view, which does not close them itself.
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

// cut closes all connections; some may be closed already, by goka or by an earlier cut, which is all that can go wrong here.
func (c *clients) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, client := range c.opened {
		_ = client.Close()
	}
}

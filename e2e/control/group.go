package main

import (
	"context"
	"fmt"
	"sync"

	"tidemark/codecs"
	"tidemark/file"
	"tidemark/kafka"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// group builds the consumer group: it gives each record the key of its row, and commits only the contiguous finished prefix,
// unless leaving that out is the mistake.
func (f *files) group(conf kafka.Config) goka.ConsumerGroupBuilder {
	return func(brokers []string, name, clientID string) (sarama.ConsumerGroup, error) {
		conf.Brokers, conf.ClientID = brokers, clientID
		config, err := conf.Sarama()
		if err != nil {
			return nil, err
		}
		config.Consumer.Group.InstanceId = "control" // a restart takes its partitions back at once: less to wait for
		inner, err := sarama.NewConsumerGroup(brokers, name, config)
		if err != nil {
			return nil, fmt.Errorf("join group %s: %w", name, err)
		}
		return &group{ConsumerGroup: inner, stock: f.mistake.stock}, nil
	}
}

type group struct {
	sarama.ConsumerGroup
	stock bool
}

func (g *group) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	for ctx.Err() == nil {
		if err := g.ConsumerGroup.Consume(ctx, topics, &sessionHandler{ConsumerGroupHandler: handler, stock: g.stock}); err != nil {
			return err
		}
	}
	return nil
}

type sessionHandler struct {
	sarama.ConsumerGroupHandler
	stock   bool
	session *session
}

func (h *sessionHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.session = &session{ConsumerGroupSession: s, stock: h.stock, open: map[int32][]int64{}, finished: map[int32]map[int64]bool{}}
	return h.ConsumerGroupHandler.Setup(h.session)
}

func (h *sessionHandler) Cleanup(sarama.ConsumerGroupSession) error {
	return h.ConsumerGroupHandler.Cleanup(h.session)
}

func (h *sessionHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	rekeyed := &claim{ConsumerGroupClaim: c, messages: make(chan *sarama.ConsumerMessage, 128)}
	go func() {
		defer close(rekeyed.messages)
		for r := range c.Messages() {
			h.session.deliver(r.Partition, r.Offset)
			if e, err := codecs.ParseEvent(r.Value); err == nil {
				name := ""
				if file.Touches(e) {
					name = e.GetFileId()
				}
				r.Key = []byte(tidemarkv1.JoinKey(e.GetWorkspaceId(), name))
			}
			select {
			case rekeyed.messages <- r:
			case <-s.Context().Done():
				return
			}
		}
	}()
	return h.ConsumerGroupHandler.ConsumeClaim(h.session, rekeyed)
}

type claim struct {
	sarama.ConsumerGroupClaim
	messages chan *sarama.ConsumerMessage
}

func (c *claim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// A session forwards marks up to the first unfinished record of a partition; the events topic is the only input.
type session struct {
	sarama.ConsumerGroupSession
	stock bool

	mu       sync.Mutex
	open     map[int32][]int64 // delivered and not yet committed, oldest first
	finished map[int32]map[int64]bool
}

func (s *session) deliver(partition int32, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[partition] = append(s.open[partition], offset)
	if s.finished[partition] == nil {
		s.finished[partition] = map[int64]bool{}
	}
}

func (s *session) MarkOffset(topic string, partition int32, offset int64, metadata string) {
	if s.stock {
		s.ConsumerGroupSession.MarkOffset(topic, partition, offset, metadata)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	open, finished := s.open[partition], s.finished[partition]
	finished[offset-1] = true
	next := int64(-1)
	for len(open) > 0 && finished[open[0]] {
		delete(finished, open[0])
		next = open[0] + 1
		open = open[1:]
	}
	s.open[partition] = open
	if next >= 0 {
		s.ConsumerGroupSession.MarkOffset(topic, partition, next, metadata)
	}
}

func (s *session) MarkMessage(r *sarama.ConsumerMessage, metadata string) {
	s.MarkOffset(r.Topic, r.Partition, r.Offset+1, metadata)
}

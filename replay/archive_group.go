package replay

import (
	"context"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// An archived is a consumer group that delivers the archived records of each partition, with their offsets, before
// those of the topic that the archive does not have. So each event is delivered once, and a row has the position that
// the event had in the topic.
//
// An archived offset is not committed: it may be before the log start offset. A partition without a commit is read
// again from the beginning, and its rows know the events that they have.
type archived struct {
	sarama.ConsumerGroup
	archive *Archive
	spans   kafka.Spans // of the archive
	fail    func(error)
}

// archivedSpans returns what the archive has of the partitions of a topic. It refuses an archive whose offsets are not
// those of the topic, or that ends before the topic begins.
func archivedSpans(ctx context.Context, conf kafka.Config, a *Archive, topic kafka.Spans) (kafka.Spans, error) {
	id, err := kafka.TopicID(ctx, conf, a.Topic)
	if err != nil {
		return nil, err
	}
	if id != a.TopicID {
		return nil, fmt.Errorf("--archive: its topic %s has the id %s, and that of the brokers %s: "+
			"the topic was created again, or it is another cluster", a.Topic, a.TopicID, id)
	}
	spans := kafka.Spans{}
	for partition, live := range topic {
		begin, end, found, err := a.Span(ctx, partition)
		switch {
		case err != nil:
			return nil, err
		case !found:
		case end < live.From:
			return nil, fmt.Errorf("--archive: partition %d ends at offset %d, and %s begins at %d: "+
				"the events between have expired before they were archived", partition, end, a.Topic, live.From)
		default:
			spans[partition] = kafka.Span{From: begin, To: end}
		}
	}
	return spans, nil
}

// Consume runs a session.
func (g *archived) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	return g.ConsumerGroup.Consume(ctx, topics, &archivedHandler{ConsumerGroupHandler: handler, group: g})
}

type archivedHandler struct {
	sarama.ConsumerGroupHandler
	group   *archived
	session *archivedSession
}

// Setup replaces the session, whose marks of archived records must not be committed.
func (h *archivedHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.session = &archivedSession{ConsumerGroupSession: s, parts: map[int32]*archivedPart{}}
	for _, partition := range s.Claims()[h.group.archive.Topic] {
		if span, found := h.group.spans[partition]; found {
			h.session.parts[partition] = &archivedPart{span: span}
		}
	}
	return h.ConsumerGroupHandler.Setup(h.session)
}

func (h *archivedHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	part := h.session.parts[c.Partition()]
	if part == nil || c.Topic() != h.group.archive.Topic || c.InitialOffset() >= part.span.To {
		return h.ConsumerGroupHandler.ConsumeClaim(h.session, c) // the archived records are in the table
	}
	joined := &archivedClaim{
		ConsumerGroupClaim: c, begin: part.span.From, messages: make(chan *sarama.ConsumerMessage, 256),
	}
	go func() {
		defer close(joined.messages)
		deliver := func(m *sarama.ConsumerMessage) error {
			select {
			case joined.messages <- m:
				return nil
			case <-s.Context().Done():
				return s.Context().Err()
			}
		}
		last := part.span.From - 1
		err := h.group.archive.Read(s.Context(), c.Partition(), part.span.From, func(r *kgo.Record) error {
			last = r.Offset
			return deliver(message(r))
		})
		if s.Context().Err() != nil {
			return
		}
		if err != nil {
			h.group.fail(fmt.Errorf("--archive: %w", err))
			return
		}
		h.session.read(part, c.Topic(), c.Partition(), last)
		for m := range c.Messages() {
			if m.Offset >= part.span.To && deliver(m) != nil {
				return
			}
		}
	}()
	return h.ConsumerGroupHandler.ConsumeClaim(h.session, joined)
}

func message(r *kgo.Record) *sarama.ConsumerMessage {
	m := &sarama.ConsumerMessage{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value,
	}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, &sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
	}
	return m
}

// An archivedClaim is a claim that begins in the archive.
type archivedClaim struct {
	sarama.ConsumerGroupClaim
	begin    int64
	messages chan *sarama.ConsumerMessage
}

func (c *archivedClaim) InitialOffset() int64                     { return c.begin }
func (c *archivedClaim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// An archivedPart is the archived part of a partition, in one session.
type archivedPart struct {
	mu     sync.Mutex
	span   kafka.Span
	all    bool  // all archived records were delivered
	last   int64 // the last of them
	marked int64
}

// An archivedSession commits nothing of a partition until all of its archived records are marked.
type archivedSession struct {
	sarama.ConsumerGroupSession
	parts map[int32]*archivedPart // of the events topic
}

// MarkOffset is called with the offset after a finished record.
func (s *archivedSession) MarkOffset(topic string, partition int32, offset int64, metadata string) {
	if part := s.parts[partition]; part != nil {
		part.mu.Lock()
		defer part.mu.Unlock()
		part.marked = max(part.marked, offset)
		if offset < part.span.To {
			if !part.all || offset <= part.last {
				return
			}
			offset = part.span.To
		}
	}
	s.ConsumerGroupSession.MarkOffset(topic, partition, offset, metadata)
}

// read is called when the last archived record was delivered, which may be marked already.
func (s *archivedSession) read(part *archivedPart, topic string, partition int32, last int64) {
	part.mu.Lock()
	part.all, part.last = true, last
	marked := part.marked
	part.mu.Unlock()
	if marked > last || last < part.span.From {
		s.MarkOffset(topic, partition, max(marked, part.span.From), "")
	}
}

package replay

import (
	"context"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// An archiveGroup is a consumer group that delivers the archived records of each partition, with their offsets, before
// those of the topic that the archive does not have. So each event is delivered once, and a row has the position that
// the event had in the topic.
//
// An archived offset is not committed: it may be before the log start offset. A partition without a commit is read
// again from the beginning, and its rows know the events that they have.
type archiveGroup struct {
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
func (g *archiveGroup) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	return g.ConsumerGroup.Consume(ctx, topics, &archiveHandler{ConsumerGroupHandler: handler, group: g})
}

type archiveHandler struct {
	sarama.ConsumerGroupHandler
	group   *archiveGroup
	session *archiveSession
}

// Setup replaces the session, whose marks of archived records must not be committed.
func (h *archiveHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.session = &archiveSession{ConsumerGroupSession: s, spans: map[int32]*archiveSpan{}}
	for _, partition := range s.Claims()[h.group.archive.Topic] {
		if span, found := h.group.spans[partition]; found {
			h.session.spans[partition] = &archiveSpan{Span: span}
		}
	}
	return h.ConsumerGroupHandler.Setup(h.session)
}

func (h *archiveHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	span := h.session.spans[c.Partition()]
	if span == nil || c.Topic() != h.group.archive.Topic || c.InitialOffset() >= span.To {
		return h.ConsumerGroupHandler.ConsumeClaim(h.session, c) // the archived records are in the table
	}
	joined := &archiveClaim{
		ConsumerGroupClaim: c, begin: span.From, messages: make(chan *sarama.ConsumerMessage, 256),
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
		last := span.From - 1
		err := h.group.archive.Read(s.Context(), c.Partition(), span.From, func(r *kgo.Record) error {
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
		h.session.read(span, c.Topic(), c.Partition(), last)
		for m := range c.Messages() {
			if m.Offset >= span.To && deliver(m) != nil {
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

// An archiveClaim is a claim that begins in the archive.
type archiveClaim struct {
	sarama.ConsumerGroupClaim
	begin    int64
	messages chan *sarama.ConsumerMessage
}

func (c *archiveClaim) InitialOffset() int64                     { return c.begin }
func (c *archiveClaim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

// An archiveSpan is the archived part of a partition, in one session.
type archiveSpan struct {
	mu sync.Mutex
	kafka.Span
	all    bool  // all archived records were delivered
	last   int64 // the last of them
	marked int64
}

// An archiveSession commits nothing of a partition until all of its archived records are marked.
type archiveSession struct {
	sarama.ConsumerGroupSession
	spans map[int32]*archiveSpan // of the events topic
}

// MarkOffset is called with the offset after a finished record.
func (s *archiveSession) MarkOffset(topic string, partition int32, offset int64, metadata string) {
	if span := s.spans[partition]; span != nil {
		span.mu.Lock()
		defer span.mu.Unlock()
		span.marked = max(span.marked, offset)
		if offset < span.To {
			if !span.all || offset <= span.last {
				return
			}
			offset = span.To
		}
	}
	s.ConsumerGroupSession.MarkOffset(topic, partition, offset, metadata)
}

// read is called when the last archived record was delivered, which may be marked already.
func (s *archiveSession) read(span *archiveSpan, topic string, partition int32, last int64) {
	span.mu.Lock()
	span.all, span.last = true, last
	marked := span.marked
	span.mu.Unlock()
	if marked > last || last < span.From {
		s.MarkOffset(topic, partition, max(marked, span.From), "")
	}
}

package epochs

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Prepare decodes a record for its callback. It may replace the key, but not change the partition. It must not write
// into the bytes of the old key, which share memory with other records.
type Prepare func(record *sarama.ConsumerMessage) (message any)

// groupBuilder wraps the consumer group that goka uses:
//   - Only the contiguous finished prefix of each partition is committed. Marks of an ended session are ignored; with
//     ExactlyOnce all marks are, because transactions commit.
//   - Records are prepared before goka gets them.
//   - The group is joined again at once after a rebalance. goka would sleep for 5 s.
func (e *Epochs) groupBuilder(brokers []string, name, clientID string) (sarama.ConsumerGroup, error) {
	config, err := e.conf.Cluster.Sarama()
	if err != nil {
		return nil, err
	}
	config.ClientID = clientID
	config.ChannelBufferSize = saramaChannelSize
	config.Consumer.Group.InstanceId = e.conf.InstanceID
	config.Consumer.Offsets.AutoCommit.Enable = e.conf.Guarantee != ExactlyOnce // which commits in transactions
	inner, err := sarama.NewConsumerGroup(brokers, name, config)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", name, err)
	}
	if e.conf.Join != nil {
		inner = e.conf.Join(inner)
	}
	return &consumerGroup{ConsumerGroup: inner, epochs: e}, nil
}

type consumerGroup struct {
	sarama.ConsumerGroup
	epochs *Epochs
}

// Errors passes on the errors of the sessions. An offset out of range ends the processor: sarama would join again at
// once, forever, and no partition would be processed.
func (g *consumerGroup) Errors() <-chan error {
	passed := make(chan error, prefetchRecords)
	go func() {
		defer close(passed)
		for err := range g.ConsumerGroup.Errors() {
			if of, ok := errors.AsType[*sarama.ConsumerError](err); ok &&
				errors.Is(of.Err, sarama.ErrOffsetOutOfRange) {
				g.epochs.fail(g.epochs.outOfRange(of))
			}
			select {
			case passed <- err:
			default: // the channel is full
			}
		}
	}()
	return passed
}

// outOfRange returns the error with the committed offset, by which an operator finds out what is lost.
func (e *Epochs) outOfRange(of *sarama.ConsumerError) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	next := "the group has committed nothing"
	fetched, err := kadm.NewClient(e.client).FetchOffsetsForTopics(ctx, e.conf.Name, of.Topic)
	if o, found := fetched.Lookup(of.Topic, of.Partition); err == nil && found && o.Err == nil && o.At >= 0 {
		next = fmt.Sprintf("the group has committed offset %d", o.At)
	} else if err := errors.Join(err, o.Err); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		next = fmt.Sprintf("the committed offset is unknown: %v", err)
	}
	return e.conf.Cluster.Explained(of.Topic, fmt.Errorf("%s/%d: the next offset to read is not in the log (%s): "+
		"records were deleted before they were read, or the topic was created again, or the log has lost its end: %w",
		of.Topic, of.Partition, next, of.Err))
}

// Consume runs session after session until one fails or the context ends.
func (g *consumerGroup) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	session, stop := g.epochs.whilePublishing(ctx)
	defer stop()
	for session.Err() == nil {
		if err := g.ConsumerGroup.Consume(session, topics,
			&sessionHandler{inner: handler, epochs: g.epochs}); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return context.Cause(session)
	}
	return nil
}

// whilePublishing returns a context that ends with ctx, and with the first failure of a partition. goka does not notice
// all of these: rewritten rows, and transactions that contain only offsets, have no promise.
func (e *Epochs) whilePublishing(ctx context.Context) (context.Context, context.CancelFunc) {
	session, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-e.failed:
			e.mu.RLock()
			defer e.mu.RUnlock()
			cancel(e.err)
		case <-session.Done():
		}
	}()
	return session, func() { cancel(nil) }
}

// A sessionHandler wraps goka's handler for one session.
type sessionHandler struct {
	inner   sarama.ConsumerGroupHandler
	epochs  *Epochs
	session *session
}

// Setup calls Check first. Within one attempt the instance may be assigned partitions of another one, and where a topic
// was created again no committed offset shows it.
func (h *sessionHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.session = newSession(s, h.epochs)
	if check := h.epochs.conf.Check; check != nil {
		if err := check(s.Context()); err != nil {
			return err // the Group calls Check again and returns its error
		}
	}
	if ledger := h.epochs.txnProducer; ledger != nil {
		h.session.ignoreMarks = true
		ledger.session.Store(memberOf(s))
	}
	if err := h.inner.Setup(h.session); err != nil {
		return err
	}
	go h.session.skipMarkersUntilDone()
	return nil
}

// Cleanup lets goka finish what is in flight; its marks count until it returns. goka first waits for running callbacks,
// without a limit: one that waits for acknowledgements from a partition without a leader would keep this member from
// joining again.
func (h *sessionHandler) Cleanup(sarama.ConsumerGroupSession) error {
	defer h.session.ended.Store(true)
	overdue := time.AfterFunc(drainTimeout, func() {
		for _, p := range h.epochs.partitions() {
			p.failWaiting()
		}
	})
	defer overdue.Stop()
	if ledger := h.epochs.txnProducer; ledger != nil {
		defer ledger.session.Store(nil)
	}
	return h.inner.Cleanup(h.session)
}

func (h *sessionHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	of := partitionID{c.Topic(), c.Partition()}
	if p := h.epochs.partition(c.Partition()); p != nil && s.Context().Err() == nil {
		p.started.Do(func() { h.epochs.startPartition(p) })
		h.session.prefixes[of].start(c.InitialOffset(), func(next int64) { h.session.commitSkipped(p, of, next) })
	}
	queue := h.epochs.openPreparedQueue(of)
	ready := &preparedClaim{ConsumerGroupClaim: c, messages: make(chan *sarama.ConsumerMessage, prefetchRecords)}
	go func() {
		defer close(ready.messages)
		delivered := h.session.prefixes[of]
		for record := range c.Messages() {
			size, err := queue.reserve(s.Context(), len(record.Key)+len(record.Value))
			if err != nil {
				return
			}
			delivered.deliver(record.Offset)
			var message any
			if prepare := h.epochs.conf.Prepare; prepare != nil {
				message = prepare(record)
			}
			queue.put(record.Offset, size, message)
			select {
			case ready.messages <- record:
			case <-s.Context().Done():
				return
			}
		}
	}()
	return h.inner.ConsumeClaim(h.session, ready)
}

// A preparedClaim delivers records that are prepared.
type preparedClaim struct {
	sarama.ConsumerGroupClaim
	messages chan *sarama.ConsumerMessage
}

func (c *preparedClaim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

type partitionID struct {
	topic  string
	number int32
}

// A session passes the marks on to sarama that are safe to commit.
type session struct {
	sarama.ConsumerGroupSession
	epochs      *Epochs
	prefixes    map[partitionID]*prefix // fixed at Setup
	ignoreMarks bool                    // transactions commit, not marks
	ended       atomic.Bool
}

func newSession(inner sarama.ConsumerGroupSession, epochs *Epochs) *session {
	s := &session{ConsumerGroupSession: inner, epochs: epochs, prefixes: make(map[partitionID]*prefix)}
	for topic, numbers := range inner.Claims() {
		for _, number := range numbers {
			s.prefixes[partitionID{topic, number}] = &prefix{}
		}
	}
	return s
}

// MarkOffset is called by goka with the offset after a finished record. The metadata is replaced by a
// committed.ChangelogEnd.
func (s *session) MarkOffset(topic string, partition int32, offset int64, _ string) {
	p := s.prefixes[partitionID{topic, partition}]
	if p == nil || s.ended.Load() {
		return
	}
	if next, grew := p.finish(offset - 1); grew && !s.ignoreMarks {
		s.ConsumerGroupSession.MarkOffset(topic, partition, next, s.epochs.metadata(partition))
	}
}

// MarkMessage calls MarkOffset for a record.
func (s *session) MarkMessage(record *sarama.ConsumerMessage, metadata string) {
	s.MarkOffset(record.Topic, record.Partition, record.Offset+1, metadata)
}

var _ goka.ConsumerGroupBuilder = (*Epochs)(nil).groupBuilder

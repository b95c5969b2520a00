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

// Prepare readies a record for its callback. It may give it another key, not another partition. What is in the old one is not to be
// written to: it lies in one piece of memory with other records.
type Prepare func(record *sarama.ConsumerMessage) (message any)

// groupBuilder wraps the consumer group that goka uses:
//   - only the contiguous finished prefix of each partition is committed, and marks of an ended session are ignored; with
//     ExactlyOnce all marks are, because transactions commit;
//   - records are prepared before goka sees them;
//   - a rebalance is joined at once, where goka would sleep for 5 s.
func (e *Epochs) groupBuilder(brokers []string, name, clientID string) (sarama.ConsumerGroup, error) {
	config, err := e.conf.Cluster.Sarama()
	if err != nil {
		return nil, err
	}
	config.ClientID = clientID
	config.ChannelBufferSize = saramaChannelSize
	config.Consumer.Group.InstanceId = e.conf.InstanceID
	config.Consumer.Offsets.AutoCommit.Enable = e.conf.Guarantee != ExactlyOnce // which commits in its transactions
	inner, err := sarama.NewConsumerGroup(brokers, name, config)
	if err != nil {
		return nil, fmt.Errorf("join group %s: %w", name, err)
	}
	return &consumerGroup{ConsumerGroup: inner, epochs: e}, nil
}

type consumerGroup struct {
	sarama.ConsumerGroup
	epochs *Epochs
}

// Errors passes on what the sessions complain of. A partition whose committed offset is not in the log ends them for good: sarama
// would join again at once, for ever and for all partitions, and say so to nobody.
func (g *consumerGroup) Errors() <-chan error {
	passed := make(chan error, prefetchRecords)
	go func() {
		defer close(passed)
		for err := range g.ConsumerGroup.Errors() {
			if of, ok := errors.AsType[*sarama.ConsumerError](err); ok && errors.Is(of.Err, sarama.ErrOffsetOutOfRange) {
				g.epochs.fail(g.epochs.outOfRange(of))
			}
			select {
			case passed <- err:
			default: // nobody listens
			}
		}
	}()
	return passed
}

// outOfRange says what is out of range, with the commit, by which a person finds out what is lost.
func (e *Epochs) outOfRange(of *sarama.ConsumerError) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	next := "the group has committed nothing"
	fetched, err := kadm.NewClient(e.client).FetchOffsetsForTopics(ctx, e.conf.Name, of.Topic)
	if o, found := fetched.Lookup(of.Topic, of.Partition); err == nil && found && o.Err == nil && o.At >= 0 {
		next = fmt.Sprintf("the group has committed offset %d", o.At)
	} else if err := errors.Join(err, o.Err); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		next = fmt.Sprintf("what the group has committed cannot be told: %v", err)
	}
	return e.conf.Cluster.Explained(of.Topic, fmt.Errorf("%s/%d: what is to be read next is not in the log (%s): input was removed before it was read, or the log was made anew or lost its end: %w", of.Topic, of.Partition, next, of.Err))
}

// Consume runs session after session until one fails or the context ends.
func (g *consumerGroup) Consume(ctx context.Context, topics []string, handler sarama.ConsumerGroupHandler) error {
	session, stop := g.epochs.whilePublishing(ctx)
	defer stop()
	for session.Err() == nil {
		if err := g.ConsumerGroup.Consume(session, topics, &sessionHandler{inner: handler, epochs: g.epochs}); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return context.Cause(session)
	}
	return nil
}

// whilePublishing returns a context that ends with ctx, and when something cannot be published: rows that are written again, and
// transactions in which there are only offsets, have no promise that would tell goka.
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

// A sessionHandler stands between sarama and goka for one session.
type sessionHandler struct {
	inner   sarama.ConsumerGroupHandler
	epochs  *Epochs
	session *session
}

// Setup asks Check first: an instance that takes over another's partitions does so within one attempt, and where a topic made
// anew has no commits yet, no offset tells it so.
func (h *sessionHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.session = newSession(s, h.epochs)
	if check := h.epochs.conf.Check; check != nil {
		if err := check(s.Context()); err != nil {
			return err // the Group asks once more, and hears the same
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

// Cleanup lets goka finish what is in flight; its marks still count until it returns. goka waits for running callbacks first, and
// bounds that by nothing: one that waits for acknowledgements of a partition without a leader would keep this member from joining.
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
	in := h.epochs.openPreparedQueue(of)
	ready := &preparedClaim{ConsumerGroupClaim: c, messages: make(chan *sarama.ConsumerMessage, prefetchRecords)}
	go func() {
		defer close(ready.messages)
		delivered := h.session.prefixes[of]
		for record := range c.Messages() {
			size, err := in.reserve(s.Context(), len(record.Key)+len(record.Value))
			if err != nil {
				return
			}
			delivered.deliver(record.Offset)
			var message any
			if prepare := h.epochs.conf.Prepare; prepare != nil {
				message = prepare(record)
			}
			in.put(record.Offset, size, message)
			select {
			case ready.messages <- record:
			case <-s.Context().Done():
				return
			}
		}
	}()
	return h.inner.ConsumeClaim(h.session, ready)
}

// A preparedClaim delivers what was prepared.
type preparedClaim struct {
	sarama.ConsumerGroupClaim
	messages chan *sarama.ConsumerMessage
}

func (c *preparedClaim) Messages() <-chan *sarama.ConsumerMessage { return c.messages }

type partitionID struct {
	topic  string
	number int32
}

// A session forwards the marks that are safe to commit.
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

// MarkOffset is called by goka with the offset after a finished record. What it would say with it is replaced: see committed.Standing.
func (s *session) MarkOffset(topic string, partition int32, offset int64, _ string) {
	p := s.prefixes[partitionID{topic, partition}]
	if p == nil || s.ended.Load() {
		return
	}
	if next, grew := p.finish(offset - 1); grew && !s.ignoreMarks {
		s.ConsumerGroupSession.MarkOffset(topic, partition, next, s.epochs.metadata(partition))
	}
}

// MarkMessage is the same for a record.
func (s *session) MarkMessage(record *sarama.ConsumerMessage, metadata string) {
	s.MarkOffset(record.Topic, record.Partition, record.Offset+1, metadata)
}

var _ goka.ConsumerGroupBuilder = (*Epochs)(nil).groupBuilder

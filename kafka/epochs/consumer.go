package epochs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// groupBuilder wraps the consumer group that goka uses:
//   - goka's marks are ignored: see session.
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
// these, because it does not publish.
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
	h.session = &session{ConsumerGroupSession: s} // Cleanup is called also after an error
	if check := h.epochs.conf.Check; check != nil {
		if err := check(s.Context()); err != nil {
			return err // the Group calls Check again and returns its error
		}
	}
	h.epochs.setSession(h.session)
	if err := h.inner.Setup(h.session); err != nil {
		return err
	}
	go h.epochs.skipMarkersUntilDone(s)
	return nil
}

// setSession sets the session, or nil after its end, and drops the inputs of the one before.
func (e *Epochs) setSession(s *session) {
	e.mu.Lock()
	e.session, e.inputs = s, make(map[partitionID]*input)
	e.mu.Unlock()
	switch {
	case e.txnProducer == nil:
	case s == nil:
		e.txnProducer.session.Store(nil)
	default:
		e.txnProducer.session.Store(memberOf(s))
	}
}

// Cleanup lets goka close the partitions, which publishes what is in flight. goka first waits for running callbacks,
// without a limit: one that waits for acknowledgements from a partition without a leader would keep this member from
// joining again.
func (h *sessionHandler) Cleanup(sarama.ConsumerGroupSession) error {
	defer h.epochs.setSession(nil)
	overdue := time.AfterFunc(drainTimeout, func() {
		for _, p := range h.epochs.partitions() {
			p.failWaiting()
		}
	})
	defer overdue.Stop()
	return h.inner.Cleanup(h.session)
}

func (h *sessionHandler) ConsumeClaim(s sarama.ConsumerGroupSession, c sarama.ConsumerGroupClaim) error {
	if p := h.epochs.partition(c.Partition()); p != nil && s.Context().Err() == nil {
		p.started.Do(func() { h.epochs.startPartition(p) })
		p.noteInput(c.Topic(), c.InitialOffset())
	}
	input := h.epochs.openInput(partitionID{c.Topic(), c.Partition()}, c.InitialOffset())
	ready := &preparedClaim{ConsumerGroupClaim: c, messages: make(chan *sarama.ConsumerMessage, prefetchRecords)}
	go func() {
		defer close(ready.messages)
		for record := range c.Messages() {
			size, err := input.reserve(s.Context(), len(record.Key)+len(record.Value))
			if err != nil {
				return
			}
			var message any
			if prepare := h.epochs.conf.Prepare; prepare != nil {
				message = prepare(record)
			}
			input.put(record.Offset, size, message)
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

// A session hides goka's marks from sarama. goka marks a record when its callback has returned; a publisher commits
// once the record's effects are published. With ExactlyOnce that is in a transaction, not through sarama.
type session struct{ sarama.ConsumerGroupSession }

func (*session) MarkOffset(string, int32, int64, string)     {}
func (*session) MarkMessage(*sarama.ConsumerMessage, string) {}
func (s *session) commit(topic string, partition int32, next int64, metadata string) {
	s.ConsumerGroupSession.MarkOffset(topic, partition, next, metadata)
}

var _ goka.ConsumerGroupBuilder = (*Epochs)(nil).groupBuilder

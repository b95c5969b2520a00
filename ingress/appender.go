package ingress

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/codecs"
	"tidemark/kafka"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// rebuildAfter is the pause between two attempts to build the emitter.
const rebuildAfter = time.Second

// An emitterAppender appends through a goka Emitter, which it builds on first use, and again while that fails: a
// producer's builder may need a broker that cannot be reached yet.
type emitterAppender struct {
	topic string
	build func() (*goka.Emitter, error)

	emitter atomic.Pointer[goka.Emitter]

	mu      sync.Mutex // held while building, so that one attempt serves all callers
	failed  error      // of the last attempt
	retryAt time.Time
	closed  bool
}

func newEmitterAppender(brokers []string, topic string, producer goka.ProducerBuilder) *emitterAppender {
	return &emitterAppender{topic: topic, build: func() (*goka.Emitter, error) {
		return goka.NewEmitter(brokers, goka.Stream(topic), codecs.Bytes{},
			goka.WithEmitterHasher(kafka.WorkspaceHasher), goka.WithEmitterProducerBuilder(producer))
	}}
}

// Append starts a goroutine, because an Emit waits while the producer's queue is full. The caller bounds their number.
func (l *emitterAppender) Append(key string, value []byte, headers map[string][]byte,
	done func(*tidemarkv1.Position, error),
) {
	go func() {
		emitter, err := l.open()
		if err != nil {
			done(nil, err)
			return
		}
		promise, err := emitter.EmitWithHeaders(key, value, headers)
		if err != nil {
			done(nil, fmt.Errorf("emit to %s: %w", l.topic, err))
			return
		}
		promise.ThenWithMessage(func(message *sarama.ProducerMessage, err error) {
			switch {
			case err != nil:
				done(nil, fmt.Errorf("append to %s: %w", l.topic, err))
			case message == nil:
				done(nil, fmt.Errorf("append to %s: acknowledged without a position", l.topic))
			default:
				done(&tidemarkv1.Position{Partition: message.Partition, Offset: message.Offset}, nil)
			}
		})
	}()
}

func (l *emitterAppender) open() (*goka.Emitter, error) {
	if emitter := l.emitter.Load(); emitter != nil {
		return emitter, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if emitter := l.emitter.Load(); emitter != nil {
		return emitter, nil
	}
	if l.closed {
		return nil, errClosed
	}
	if now := time.Now(); now.Before(l.retryAt) {
		return nil, l.failed
	}
	emitter, err := l.build()
	if err != nil {
		l.failed, l.retryAt = fmt.Errorf("open the producer of %s: %w", l.topic, err), time.Now().Add(rebuildAfter)
		return nil, l.failed
	}
	l.emitter.Store(emitter)
	return emitter, nil
}

// Close finishes the emitter, which waits until its records are acknowledged or failed.
func (l *emitterAppender) Close(ctx context.Context) error {
	finished := make(chan error, 1)
	go func() {
		l.mu.Lock()
		first := !l.closed
		l.closed = true
		l.mu.Unlock()
		if emitter := l.emitter.Load(); emitter != nil && first {
			finished <- emitter.Finish()
			return
		}
		finished <- nil
	}()
	select {
	case err := <-finished:
		if err != nil {
			return fmt.Errorf("finish the producer of %s: %w", l.topic, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("finish the producer of %s: %w", l.topic, ctx.Err())
	}
}

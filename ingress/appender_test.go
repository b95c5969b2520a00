package ingress

import (
	"context"
	"errors"
	"hash"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A fakeProducer is a goka.Producer whose acknowledgements the test sends.
type fakeProducer struct {
	block chan struct{} // when set, an emit waits for it, as with a full queue

	mu      sync.Mutex
	sent    []*sarama.ProducerMessage
	pending []goka.PromiseFinisher
	closed  bool
}

func (p *fakeProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p *fakeProducer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	if p.block != nil {
		<-p.block
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	promise, finish := goka.NewPromiseWithFinisher()
	p.sent = append(p.sent,
		&sarama.ProducerMessage{
			Topic: topic, Key: sarama.StringEncoder(key), Value: sarama.ByteEncoder(value),
			Headers: headers.ToSarama(),
		})
	p.pending = append(p.pending, finish)
	return promise
}

func (p *fakeProducer) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}

// settle acknowledges, or fails, all that is pending.
func (p *fakeProducer) settle(m *sarama.ProducerMessage, err error) {
	p.mu.Lock()
	pending := p.pending
	p.pending = nil
	p.mu.Unlock()
	for _, finish := range pending {
		finish(m, err)
	}
}

func (p *fakeProducer) builder(failures ...error) goka.ProducerBuilder {
	return func([]string, string, func() hash.Hash32) (goka.Producer, error) {
		if len(failures) > 0 {
			err := failures[0]
			failures = failures[1:]
			return nil, err
		}
		return p, nil
	}
}

type outcome struct {
	at  *tidemarkv1.Position
	err error
}

func appendOne(l *emitterAppender) chan outcome {
	done := make(chan outcome, 2)
	l.Append("123", []byte("value"), map[string][]byte{"ce_id": []byte("1")},
		func(at *tidemarkv1.Position, err error) { done <- outcome{at, err} })
	return done
}

func TestEmitterLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		l := newEmitterAppender(nil, "fastio-events", p.builder())
		for _, test := range []struct {
			message *sarama.ProducerMessage
			err     error
			want    string // the position, or part of the error
		}{
			{&sarama.ProducerMessage{Partition: 7, Offset: 1234}, nil, "7:1234"},
			{&sarama.ProducerMessage{Partition: 0, Offset: 0}, nil, "0:0"},
			{nil, errors.New("not enough replicas"), "append to fastio-events: not enough replicas"},
			{nil, nil, "acknowledged without a position"},
		} {
			done := appendOne(l)
			synctest.Wait()
			p.settle(test.message, test.err)
			got := <-done
			if got.err == nil && got.at.Text() != test.want ||
				got.err != nil && !strings.Contains(got.err.Error(), test.want) {
				t.Errorf("got %v, %v, want %s", got.at, got.err, test.want)
			}
			if (got.at == nil) == (got.err == nil) {
				t.Errorf("both or neither of %v and %v", got.at, got.err)
			}
			synctest.Wait()
			if len(done) != 0 {
				t.Error("done was called twice")
			}
		}
		m := p.sent[0]
		if m.Topic != "fastio-events" || m.Key != sarama.StringEncoder("123") || len(m.Headers) != 1 ||
			string(m.Headers[0].Value) != "1" {
			t.Errorf("sent %+v", m)
		}
		if err := l.Close(t.Context()); err != nil || !p.closed {
			t.Errorf("closed %v: %v", p.closed, err)
		}
		if got := <-appendOne(l); !errors.Is(got.err, goka.ErrEmitterAlreadyClosed) {
			t.Errorf("after Close: %v", got.err)
		}
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

// A producer whose queue is full blocks its Emit; the sender is still answered in time, and the event stays in flight.
func TestFullProducer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{block: make(chan struct{})}
		s := newOnProducer(t, p.builder(), nil)
		start := time.Now()
		refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "no_ack", "")
		if took := time.Since(start); took != MaxAckTimeout {
			t.Errorf("answered after %v", took)
		}
		if count, _ := s.inFlight.usage(); count != 1 {
			t.Errorf("%d in flight", count)
		}
		close(p.block)
		synctest.Wait()
		p.settle(&sarama.ProducerMessage{}, nil)
		if err := s.Close(t.Context()); err != nil || !p.closed {
			t.Errorf("closed %v: %v", p.closed, err)
		}
	})
}

// A broker that is away at start: New does not mind, readiness says why, requests get 503, and all mends itself.
func TestBrokerAwayAtStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &fakeProducer{}
		away := errors.New("no broker at 127.0.0.1:1")
		s := newOnProducer(t, p.builder(away, away), nil)
		if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "fastio-events") ||
			!strings.Contains(err.Error(), away.Error()) {
			t.Errorf("readiness says %v", err)
		}
		refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "log_unavailable", "")
		time.Sleep(rebuildAfter)
		refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "log_unavailable", "")
		if len(p.sent) != 0 {
			t.Error("something was sent without a broker")
		}
		time.Sleep(checkEvery)
		if err := s.Ready(); err != nil && !strings.Contains(err.Error(), "last event failed") {
			t.Errorf("readiness says %v", err)
		}
		go func() { synctest.Wait(); p.settle(&sarama.ProducerMessage{Partition: 3, Offset: 9}, nil) }()
		took(t, serve(s, post(t, minimal)), "evt1", "3:9")
		if err := s.Ready(); err != nil {
			t.Errorf("readiness says %v", err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A server that never got its producer closes at once, and builds none afterwards.
func TestCloseUnbuilt(t *testing.T) {
	t.Parallel()
	p := &fakeProducer{}
	s := newOnProducer(t, p.builder(), nil)
	if err := s.Close(t.Context()); err != nil || p.closed {
		t.Errorf("closed %v: %v", p.closed, err)
	}
	refused(t, serve(s, post(t, minimal)), http.StatusServiceUnavailable, "draining", "")
	if err := s.Ready(); err == nil {
		t.Error("ready after Close")
	}
}

func newOnProducer(tb testing.TB, producer goka.ProducerBuilder, check func(context.Context) error) *Server {
	tb.Helper()
	if check == nil {
		check = func(context.Context) error { return nil }
	}
	s, err := New(Config{
		Secrets: secretsOf(tb, Scheme{}, anyKey), Topic: "fastio-events", Producer: producer, Check: check,
		Now: func() time.Time { return noon },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

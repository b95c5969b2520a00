package ingress

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batcher is a Producer that makes batches by the speed of the brokers: while records are in flight, further ones
// wait until all of those are acknowledged, but no longer than linger. A record that comes alone is sent at once, and
// the more records come, the more share a request. The linger of franz-go delays every record.
type batcher struct {
	Producer
	linger time.Duration
	timer  *time.Timer // sends what waits

	mu       sync.Mutex
	waiting  []held // in order
	inFlight int    // records that the Producer has
	sending  bool   // by one goroutine at a time, which keeps the order
	due      bool   // what waits has waited for linger
}

type held struct {
	record  *kgo.Record
	promise func(*kgo.Record, error)
}

func newBatcher(p Producer, linger time.Duration) *batcher {
	b := &batcher{Producer: p, linger: linger}
	b.timer = time.AfterFunc(linger, func() { b.send(true) })
	return b
}

// TryProduce ignores the context, with which a record could be taken back.
func (b *batcher) TryProduce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	b.mu.Lock()
	b.waiting = append(b.waiting, held{record, promise})
	if len(b.waiting) == 1 && b.inFlight > 0 {
		b.timer.Reset(b.linger)
	}
	b.mu.Unlock()
	b.send(false)
}

// send gives what waits to the Producer if nothing is in flight or it has waited long enough.
func (b *batcher) send(due bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = b.due || due
	if b.sending {
		return // that goroutine looks again
	}
	b.sending = true
	for len(b.waiting) > 0 && (b.inFlight == 0 || b.due) {
		batch := b.waiting
		b.waiting, b.due = make([]held, 0, len(batch)), false
		b.inFlight += len(batch)
		b.timer.Stop()
		b.mu.Unlock()
		for _, w := range batch {
			b.Producer.TryProduce(context.Background(), w.record, func(record *kgo.Record, err error) {
				b.finished()
				w.promise(record, err)
			})
		}
		b.mu.Lock()
	}
	b.sending, b.due = false, false
}

// finished counts a record that is acknowledged or failed.
func (b *batcher) finished() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if b.inFlight == 0 && len(b.waiting) > 0 {
		go b.send(false) // a promise must not produce: franz-go could wait for itself
	}
}

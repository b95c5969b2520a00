package ingress

import (
	"context"
	"runtime"
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
	sending  bool   // by one goroutine, which keeps the order
	due      bool   // what waits has waited for linger
}

type held struct {
	record  *kgo.Record
	promise func(*kgo.Record, error)
}

func newBatcher(p Producer, linger time.Duration) *batcher {
	b := &batcher{Producer: p, linger: linger}
	b.timer = time.AfterFunc(linger, b.lingered)
	return b
}

// TryProduce ignores the context, with which a record could be taken back.
func (b *batcher) TryProduce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, held{record, promise})
	if b.inFlight == 0 {
		b.start()
	} else if len(b.waiting) == 1 {
		b.timer.Reset(b.linger)
	}
}

// lingered sends what waits although other records are in flight.
func (b *batcher) lingered() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.due = len(b.waiting) > 0
	b.start()
}

// finished counts a record that is acknowledged or failed.
func (b *batcher) finished() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.inFlight--; b.inFlight == 0 {
		b.start()
	}
}

// start starts the goroutine that sends, if it does not run. The caller holds the lock.
func (b *batcher) start() {
	if len(b.waiting) > 0 && !b.sending {
		b.sending = true
		go b.send()
	}
}

// send gives what waits to the Producer while nothing is in flight, or when it has waited long enough.
func (b *batcher) send() {
	runtime.Gosched() // requests that are being handled come into the batch
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.waiting) > 0 && (b.inFlight == 0 || b.due) {
		batch := b.waiting
		b.waiting, b.due = make([]held, 0, len(batch)), false
		b.inFlight += len(batch)
		b.timer.Stop()
		b.mu.Unlock()
		for _, h := range batch {
			b.Producer.TryProduce(context.Background(), h.record, func(record *kgo.Record, err error) {
				b.finished()
				h.promise(record, err)
			})
		}
		b.mu.Lock()
	}
	b.sending, b.due = false, false
}

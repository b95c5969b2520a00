package ingress

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

var (
	errFull   = errors.New("too much is in flight")
	errClosed = errors.New("shutting down")
)

// A gate bounds what is in flight, by count and by bytes. What has entered stays in until it leaves, whether or not
// anyone still waits for it. An empty gate lets in one of any size, or it would be refused for ever.
type gate struct {
	maxCount int
	maxBytes int64

	mu     sync.Mutex
	count  int
	bytes  int64
	closed bool
	empty  chan struct{} // closed once closed and nothing is in flight
}

func newGate(maxCount int, maxBytes int64) *gate {
	return &gate{maxCount: maxCount, maxBytes: maxBytes, empty: make(chan struct{})}
}

func (g *gate) enter(size int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	if g.noRoom(size) {
		return errFull
	}
	g.count++
	g.bytes += int64(size)
	return nil
}

func (g *gate) leave(size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	g.bytes -= int64(size)
	if g.closed && g.count == 0 {
		close(g.empty)
	}
}

func (g *gate) inFlight() (count int, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count, g.bytes
}

// full says whether size bytes would not be let in now.
func (g *gate) full(size int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.noRoom(size)
}

// noRoom is full for who holds the lock.
func (g *gate) noRoom(size int) bool {
	return g.count > 0 && (g.count >= g.maxCount || g.bytes+int64(size) > g.maxBytes)
}

// drain lets nothing more in and waits until all has left, or ctx ends.
func (g *gate) drain(ctx context.Context) error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		if g.count == 0 {
			close(g.empty)
		}
	}
	g.mu.Unlock()
	select {
	case <-g.empty:
		return nil
	case <-ctx.Done():
		count, _ := g.inFlight()
		return fmt.Errorf("wait for %d events in flight: %w", count, ctx.Err())
	}
}

func (g *gate) draining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

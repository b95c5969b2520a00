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

// A semaphore bounds what is in flight by count and by bytes; golang.org/x/sync/semaphore has one weight only, and no
// drain. An empty one admits any size, since a size over the bound would otherwise never be admitted.
type semaphore struct {
	maxCount int
	maxBytes int64

	mu     sync.Mutex
	count  int
	bytes  int64
	closed bool
	empty  chan struct{} // closed once closed and nothing is in flight
}

func newSemaphore(maxCount int, maxBytes int64) *semaphore {
	return &semaphore{maxCount: maxCount, maxBytes: maxBytes, empty: make(chan struct{})}
}

func (s *semaphore) acquire(size int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if s.noRoom(size) {
		return errFull
	}
	s.count++
	s.bytes += int64(size)
	return nil
}

func (s *semaphore) release(size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
	s.bytes -= int64(size)
	if s.closed && s.count == 0 {
		close(s.empty)
	}
}

func (s *semaphore) usage() (count int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count, s.bytes
}

// full reports whether acquire would fail now.
func (s *semaphore) full(size int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.noRoom(size)
}

// noRoom is full; the caller holds the lock.
func (s *semaphore) noRoom(size int) bool {
	return s.count > 0 && (s.count >= s.maxCount || s.bytes+int64(size) > s.maxBytes)
}

// drain admits nothing more and waits until all is released, or ctx ends.
func (s *semaphore) drain(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		if s.count == 0 {
			close(s.empty)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
		count, _ := s.usage()
		return fmt.Errorf("wait for %d events in flight: %w", count, ctx.Err())
	}
}

func (s *semaphore) draining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

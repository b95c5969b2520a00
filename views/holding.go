package views

import (
	"context"
	"slices"
	"sync"
)

// A holding says which partitions this instance holds: it reads them, and answers requests about their workspaces.
// Without Config.Share an instance holds all.
type holding struct {
	running context.Context // ends when the server stops

	mu      sync.Mutex
	known   bool          // the first assignment has come
	terms   []*term       // by partition; nil: not held
	changed chan struct{} // closed and replaced at each change
}

// A term is the time from when a partition is assigned until it is given up, or the server stops.
type term struct {
	context.Context
	end context.CancelFunc
}

func newHolding(running context.Context, partitions int) *holding {
	return &holding{running: running, terms: make([]*term, partitions), changed: make(chan struct{})}
}

// holdAll returns a holding of all partitions, which does not change.
func holdAll(running context.Context, partitions int) *holding {
	h := newHolding(running, partitions)
	h.assign(func(int32) bool { return true })
	return h
}

// assign makes the instance hold the partitions for which held returns true, and no others. The term of one that it
// held before goes on.
func (h *holding) assign(held func(partition int32) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.terms {
		switch t := h.terms[i]; {
		case t == nil && held(int32(i)):
			ctx, end := context.WithCancel(h.running)
			h.terms[i] = &term{ctx, end}
		case t != nil && !held(int32(i)):
			t.end()
			h.terms[i] = nil
		}
	}
	h.known = true
	close(h.changed)
	h.changed = make(chan struct{})
}

// add makes the instance hold further partitions.
func (h *holding) add(partitions []int32) {
	before := h.partitions()
	h.assign(func(p int32) bool { return slices.Contains(before, p) || slices.Contains(partitions, p) })
}

// remove makes the instance give up partitions.
func (h *holding) remove(partitions []int32) {
	before := h.partitions()
	h.assign(func(p int32) bool { return slices.Contains(before, p) && !slices.Contains(partitions, p) })
}

// term returns the present term of a partition; nil if it is not held.
func (h *holding) term(partition int32) context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t := h.terms[partition]; t != nil {
		return t
	}
	return nil
}

func (h *holding) holds(partition int32) bool { return h.term(partition) != nil }

// partitions returns the partitions that are held, in order.
func (h *holding) partitions() []int32 {
	held, _ := h.wait()
	return held
}

// wait returns the partitions that are held, in order, and a channel that is closed when that changes.
func (h *holding) wait() (held []int32, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, t := range h.terms {
		if t != nil {
			held = append(held, int32(i))
		}
	}
	return held, h.changed
}

// assigned reports whether the first assignment has come.
func (h *holding) assigned() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known
}

package views

import "sync"

// appliedWindow is how far beyond nextEvent the offsets of applied events are remembered.
const appliedWindow = 4096

// maxCheckpoints bounds the pending checkpoints of a frontier; past it the newest is replaced, which only makes the
// steps coarser.
const maxCheckpoints = 64

// unknown is the offset of what is not known: before the first poll, or because a leader did not respond.
const unknown = -1

// A coverage tracks which events are in what is read to answer: the copy of a table, or the search index.
type coverage struct {
	name      string      // in metrics and messages
	frontiers []*frontier // by partition
}

func newCoverage(name string, partitions int) coverage {
	c := coverage{name: name}
	for range partitions {
		c.frontiers = append(c.frontiers, newFrontier())
	}
	return c
}

// A frontier tracks which events of one partition are in a table's copy: all before nextEvent.
//
// Two things advance it. Rows: an event whose offset a row records is in the copy, so a run of such offsets advances it
// at once. And checkpoints, for events without a row: what a group had committed when the changelog ended at some
// offset is in the copy as soon as the copy has read up to that offset.
type frontier struct {
	mu         sync.Mutex
	nextRecord int64 // changelog offset that the copy reads next; unknown while the store is closed
	nextEvent  int64 // exclusive bound of the events in the copy; unknown before the first checkpoint
	applied    [appliedWindow / 64]uint64
	pending    []checkpoint
	changed    chan struct{} // closed and removed when nextEvent changes; nil without a waiter
	read       chan struct{} // the same of nextRecord
}

// A checkpoint relates two offsets: a copy that has read the changelog up to end (exclusive) contains all events before
// nextEvent.
type checkpoint struct{ nextEvent, end int64 }

func newFrontier() *frontier { return &frontier{nextRecord: unknown, nextEvent: unknown} }

// apply records that the copy reads nextRecord next, and that the events at these offsets are in it.
func (f *frontier) apply(nextRecord int64, events []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setNextRecord(nextRecord)
	if f.nextEvent == unknown {
		f.advance()
		return
	}
	for _, o := range events {
		if o >= f.nextEvent && o < f.nextEvent+appliedWindow {
			f.applied[o%appliedWindow/64] |= 1 << (o % 64)
		}
	}
	next := f.nextEvent
	for f.isApplied(next) {
		f.clearApplied(next)
		next++
	}
	f.advanceTo(next)
	f.advance()
}

// add adds a checkpoint, and advances the frontier if the copy has read that far already.
func (f *frontier) add(c checkpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.nextEvent <= f.nextEvent {
		return
	}
	f.pending = addCheckpoint(f.pending, c)
	f.advance()
}

// addCheckpoint adds a checkpoint to pending ones, which are in ascending order of both offsets.
func addCheckpoint(pending []checkpoint, c checkpoint) []checkpoint {
	n := len(pending)
	for n > 0 && pending[n-1].nextEvent <= c.nextEvent && pending[n-1].end >= c.end {
		n-- // c covers more events, with less to read
	}
	pending = pending[:n]
	switch {
	case n > 0 && pending[n-1].nextEvent >= c.nextEvent: // a group's offsets were reset: the bound stays
	case n >= maxCheckpoints:
		pending[n-1] = c
	default:
		pending = append(pending, c)
	}
	return pending
}

// advance applies the checkpoints up to which the copy has read.
func (f *frontier) advance() {
	n := 0
	for n < len(f.pending) && f.pending[n].end <= f.nextRecord {
		f.advanceTo(f.pending[n].nextEvent)
		n++
	}
	f.pending = append(f.pending[:0], f.pending[n:]...)
}

func (f *frontier) advanceTo(nextEvent int64) {
	if nextEvent <= f.nextEvent {
		return
	}
	for o := max(f.nextEvent, nextEvent-appliedWindow); o < nextEvent; o++ {
		if o >= 0 {
			f.clearApplied(o)
		}
	}
	f.nextEvent = nextEvent
	for f.isApplied(f.nextEvent) {
		f.clearApplied(f.nextEvent)
		f.nextEvent++
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func (f *frontier) isApplied(o int64) bool { return f.applied[o%appliedWindow/64]&(1<<(o%64)) != 0 }
func (f *frontier) clearApplied(o int64)   { f.applied[o%appliedWindow/64] &^= 1 << (o % 64) }

// offsets returns the changelog offset that the copy reads next, and the exclusive bound of the events in it.
func (f *frontier) offsets() (nextRecord, nextEvent int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nextRecord, f.nextEvent
}

// wait returns a channel that is closed when nextEvent changes.
func (f *frontier) wait() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.changed
}

// waitRecord returns a channel that is closed when nextRecord changes.
func (f *frontier) waitRecord() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.read == nil {
		f.read = make(chan struct{})
	}
	return f.read
}

func (f *frontier) setNextRecord(offset int64) {
	f.nextRecord = offset
	if f.read != nil {
		close(f.read)
		f.read = nil
	}
}

// open sets the changelog offset at which reading resumes, once the store is open. A lower one than before means that
// the store was wiped.
func (f *frontier) open(nextRecord int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if nextRecord < f.nextRecord {
		f.clear()
	}
	f.setNextRecord(nextRecord)
	f.advance()
}

// reset forgets both offsets: the store is discarded.
func (f *frontier) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextRecord = unknown
	f.clear()
}

// resetEvents forgets the events: their topic was recreated.
func (f *frontier) resetEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clear()
}

func (f *frontier) clear() {
	f.nextEvent, f.pending, f.applied = unknown, nil, [appliedWindow / 64]uint64{}
}

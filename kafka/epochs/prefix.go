package epochs

import (
	"slices"
	"sync"
)

// A prefix follows one partition through one session: which records were delivered, and up to where all of them are
// finished. goka finishes records in any order, and sarama commits the largest mark; committing past a record that is still
// unacknowledged loses it when the process is killed.
//
// Offsets need not be dense: compaction and transaction markers leave gaps.
type prefix struct {
	mu        sync.Mutex
	delivered []delivery // ascending; the finished head is cut off
	next      int64      // what is delivered next is not before it; 0 or less: not known
	commit    func(next int64)
}

type delivery struct {
	offset   int64
	finished bool
}

// start says where the partition is read from, if that is known, and what commits an offset of it.
func (p *prefix) start(next int64, commit func(next int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.commit = next, commit
}

// deliver notes a record that is handed to goka. Offsets must rise.
func (p *prefix) deliver(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered = append(p.delivered, delivery{offset: offset})
	p.next = offset + 1
}

// finish notes that all effects of a record are in the log. It returns the offset to commit, the one after the newest record
// of the finished prefix, and whether the prefix grew.
func (p *prefix) finish(offset int64) (commit int64, grew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, found := slices.BinarySearchFunc(p.delivered, offset, func(d delivery, offset int64) int {
		return int(min(max(d.offset-offset, -1), 1))
	})
	if !found {
		return 0, false
	}
	p.delivered[i].finished = true
	n := 0
	for n < len(p.delivered) && p.delivered[n].finished {
		n++
	}
	if n == 0 {
		return 0, false
	}
	commit = p.delivered[n-1].offset + 1
	p.delivered = p.delivered[n:]
	return commit, true
}

// at returns what is read next, when all that was delivered is finished.
func (p *prefix) position() (next int64, finished bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.commit != nil && p.next > 0 && len(p.delivered) == 0
}

// rest moves on to an offset before which nothing more will be delivered, unless something was since at returned from.
func (p *prefix) skipTo(from, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != from || len(p.delivered) > 0 {
		return
	}
	p.next = to
	p.commit(to) // no record is delivered meanwhile: its commit would be the later one
}

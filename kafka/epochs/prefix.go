package epochs

import (
	"slices"
	"sync"
)

// A prefix tracks one partition during one session: which records were delivered to goka, and up to which offset all of
// them are finished. goka finishes records in any order, and sarama commits the largest mark. Committing past a record
// that is not acknowledged yet would lose it when the process is killed.
//
// Offsets need not be consecutive: compaction and transaction markers leave gaps.
type prefix struct {
	mu        sync.Mutex
	delivered []delivery // ascending; without the finished prefix
	next      int64      // the next record has this offset or a later one; 0 or less: not known
	commit    func(next int64)
}

type delivery struct {
	offset   int64
	finished bool
}

// start sets the first offset to read, if it is known, and the function that commits an offset.
func (p *prefix) start(next int64, commit func(next int64)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.commit = next, commit
}

// deliver notes a record that is given to goka. Offsets must ascend.
func (p *prefix) deliver(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delivered = append(p.delivered, delivery{offset: offset})
	p.next = offset + 1
}

// finish notes that all effects of a record are acknowledged. It returns the offset to commit, which is the one after
// the last record of the finished prefix, and whether the prefix grew.
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

// position returns the next offset to read, and whether all delivered records are finished.
func (p *prefix) position() (next int64, finished bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.commit != nil && p.next > 0 && len(p.delivered) == 0
}

// skipTo moves the position on and commits it: there are no records from the old to the new one. It does nothing when a
// record was delivered since position returned from.
func (p *prefix) skipTo(from, to int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.next != from || len(p.delivered) > 0 {
		return
	}
	p.next = to
	p.commit(to) // with p.mu locked: the commit of a record that is delivered now must come after this one
}

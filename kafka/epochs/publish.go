package epochs

import (
	"maps"
	"math"
	"sync"
	"time"

	"tidemark/kafka/localstore"
)

// run closes and publishes one epoch after the other until the partition is given up.
func (p *partitionEpochs) run() {
	defer close(p.done)
	for {
		select {
		case <-p.dirty:
		case <-p.stop:
			return
		}
		timer := time.NewTimer(p.conf.Interval)
		select {
		case <-timer.C:
		case <-p.failed:
			return
		}
		p.gate.Lock()
		e := p.swap()
		p.gate.Unlock()
		if e != nil {
			p.publish(e)
		}
	}
}

// swap opens the next epoch and returns the one that was open, nil when nothing is in it. The caller holds the gate.
func (p *partitionEpochs) swap() *epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open
	if e.empty() || p.transactions != nil && p.err != nil {
		return nil
	}
	p.open = newEpoch()
	e.closed = true
	if e.outputs == 0 {
		close(e.outputsAcked)
	}
	return e
}

// publish does in order what Epochs promises. On failure the epoch's promises are finished with the error.
func (p *partitionEpochs) publish(e *epoch) {
	begin := time.Now()
	err := p.wait(e.outputsAcked)
	if err == nil && len(e.rows) > 0 {
		var landed ackedRange
		if landed, err = p.sendRows(e); err == nil {
			p.raiseChangelogEnd(landed.last + 1)
			var offset int64
			if offset, err = p.nextStoreOffset(landed); err == nil {
				err = p.storeRows(e, offset)
			}
		}
	}
	if err != nil {
		p.fail(err)
	} else if len(e.rows) > 0 {
		p.conf.Metrics.published(len(e.rows), time.Since(begin))
	}
	for _, f := range e.promises {
		f(nil, err) // nil: goka must not write the offset a second time
	}
}

// wait returns when done is closed; with an error when the partition failed, before or after.
func (p *partitionEpochs) wait(done <-chan struct{}) error {
	select {
	case <-done:
	case <-p.failed:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// A landing is where an epoch's rows landed in the changelog.
type ackedRange struct {
	first, last int64
	records     int
}

// follows says that nothing else landed after the offset and in between.
func (l ackedRange) directlyAfter(offset int64) bool {
	return l.first == offset+1 && l.last-l.first+1 == int64(l.records)
}

// reached returns the offset up to which every record is on the disk once the rows that landed are. An owner that was paused
// and wakes may append behind records of its successor that it has never read: from then on the offset stays where it is,
// until the next recovery reads them.
func (p *partitionEpochs) nextStoreOffset(landed ackedRange) (int64, error) {
	offset, err := p.store.GetOffset(-1)
	if err != nil || !landed.directlyAfter(offset) {
		return offset, err
	}
	return landed.last, nil
}

// sendRows sends the epoch's table records, in the order of their keys, and returns where they were acknowledged.
func (p *partitionEpochs) sendRows(e *epoch) (ackedRange, error) {
	var (
		mu     sync.Mutex
		left   = len(e.rows)
		landed = ackedRange{first: math.MaxInt64, last: -1, records: len(e.rows)}
		done   = make(chan struct{})
	)
	for _, r := range e.tableRecords(p.conf.Table, p.store.Number(), p.owner) {
		p.send(r, func(offset int64, err error) {
			if err != nil {
				p.fail(err)
			}
			mu.Lock()
			defer mu.Unlock()
			landed.first, landed.last = min(landed.first, offset), max(landed.last, offset)
			if left--; left == 0 {
				close(done)
			}
		})
	}
	if err := p.wait(done); err != nil {
		return ackedRange{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	return landed, nil
}

// storeRows writes the acknowledged rows and their changelog offset to the disk, and drops them from the overlay unless a
// later epoch holds them.
func (p *partitionEpochs) storeRows(e *epoch, offset int64) error {
	p.mu.Lock()
	owing := len(p.pendingRewrites) > 0
	p.mu.Unlock()
	err := p.store.Update(offset, func(w *localstore.Writer) error {
		for key, r := range e.rows {
			if r.value == nil {
				w.Delete(localstore.Rows, []byte(key))
			} else {
				w.Set(localstore.Rows, []byte(key), r.value)
			}
			storeIndex(w, r.indexChanges)
			if owing {
				p.storePendingRewrite(w, key, false)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, r := range e.rows {
		p.bufferedBytes -= len(r.value)
		delete(p.pendingRewrites, key)
		switch newer := p.overlay[key]; {
		case newer == r:
			delete(p.overlay, key)
		case newer != nil && len(r.indexChanges) > 0:
			newer.indexChanges = maps.Clone(newer.indexChanges)
			maps.DeleteFunc(newer.indexChanges, func(entry string, there bool) bool {
				stored, found := r.indexChanges[entry]
				return found && stored == there
			})
		}
	}
	p.signal()
	return nil
}

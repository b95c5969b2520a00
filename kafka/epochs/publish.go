package epochs

import (
	"maps"
	"math"
	"sync"
	"time"

	"tidemark/kafka/localstore"
)

// run closes and publishes one epoch after the other until the partition is closed.
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

// swap closes the open epoch and opens the next one; it returns nil when the epoch is empty. The gate is locked.
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

// publish does the steps that Epochs describes, in their order. After a failure the epoch's promises get the error.
func (p *partitionEpochs) publish(e *epoch) {
	begin := time.Now()
	err := p.wait(e.outputsAcked)
	if err == nil && len(e.rows) > 0 {
		var acked ackedRange
		if acked, err = p.sendRows(e); err == nil {
			p.raiseChangelogEnd(acked.last + 1)
			var offset int64
			if offset, err = p.nextStoreOffset(acked); err == nil {
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
		f(nil, err) // with a nil message: goka must not write the changelog offset
	}
}

// wait returns when done is closed or the partition has failed.
func (p *partitionEpochs) wait(done <-chan struct{}) error {
	select {
	case <-done:
	case <-p.failed:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// An ackedRange is where in the changelog an epoch's rows were appended.
type ackedRange struct {
	first, last int64
	records     int
}

// directlyAfter reports whether no other record is between the offset and the rows, nor among them.
func (r ackedRange) directlyAfter(offset int64) bool {
	return r.first == offset+1 && r.last-r.first+1 == int64(r.records)
}

// nextStoreOffset returns the changelog offset up to which the disk has all records once it has the acknowledged rows.
// A zombie appends after records of its successor that it never read. From then on the offset does not advance, so that
// the next recovery reads them.
func (p *partitionEpochs) nextStoreOffset(acked ackedRange) (int64, error) {
	offset, err := p.store.GetOffset(-1)
	if err != nil || !acked.directlyAfter(offset) {
		return offset, err
	}
	return acked.last, nil
}

// sendRows sends the epoch's table records, in key order, and returns their offsets once they are acknowledged.
func (p *partitionEpochs) sendRows(e *epoch) (ackedRange, error) {
	var (
		mu    sync.Mutex
		left  = len(e.rows)
		acked = ackedRange{first: math.MaxInt64, last: -1, records: len(e.rows)}
		done  = make(chan struct{})
	)
	for _, r := range e.tableRecords(p.conf.Table, p.store.Number(), p.owner) {
		p.send(r, func(offset int64, err error) {
			if err != nil {
				p.fail(err)
			}
			mu.Lock()
			defer mu.Unlock()
			acked.first, acked.last = min(acked.first, offset), max(acked.last, offset)
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
	return acked, nil
}

// storeRows writes the acknowledged rows and their changelog offset to the disk, and removes them from the overlay
// unless the open epoch has newer ones.
func (p *partitionEpochs) storeRows(e *epoch, offset int64) error {
	p.mu.Lock()
	pending := len(p.pendingRewrites) > 0
	p.mu.Unlock()
	err := p.store.Update(offset, func(w *localstore.Writer) error {
		for key, r := range e.rows {
			if r.value == nil {
				w.Delete(localstore.Rows, []byte(key))
			} else {
				w.Set(localstore.Rows, []byte(key), r.value)
			}
			storeIndex(w, r.indexChanges)
			if pending {
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
			p.cache.put(key, r.value)
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

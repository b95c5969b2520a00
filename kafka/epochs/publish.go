package epochs

import (
	"maps"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// A pipeline publishes the epochs of one partition with AtLeastOnce, one after the other:
//
//	outputs acknowledged → rows sent, acknowledged → local store → commit
type pipeline struct {
	partition *partitionEpochs
	send      sender
	commit    func(topic string, next int64, metadata string)

	dirty    chan struct{} // the open epoch has something in it
	stopping sync.Once
	stop     chan struct{}
	done     chan struct{}
}

// startPipeline makes a pipeline the publisher of a partition. Outputs are sent at once.
func startPipeline(p *partitionEpochs, send sender, commit func(topic string, next int64, metadata string)) {
	l := &pipeline{
		partition: p, send: send, commit: commit,
		dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.publisher, p.send, p.maxOutputs = l, send, maxUnacked
	go l.run()
}

func (l *pipeline) wake() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// drain publishes what is left.
func (l *pipeline) drain() {
	l.stopping.Do(func() { close(l.stop) })
	<-l.done
}

// fail does nothing: a failure of one partition does not concern the others.
func (l *pipeline) fail(error) {}

// run closes and publishes one epoch after the other until the partition fails, or is drained.
func (l *pipeline) run() {
	defer close(l.done)
	for {
		select {
		case <-l.dirty:
			l.await(l.partition.conf.Interval)
		case <-l.stop:
			l.publishOpen()
			return
		case <-l.partition.failed:
			return
		}
		l.publishOpen()
	}
}

// await waits while the epoch is open, but not longer than until the partition is drained or fails.
func (l *pipeline) await(interval time.Duration) {
	timer := time.NewTimer(interval)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.stop:
	case <-l.partition.failed:
	}
}

func (l *pipeline) publishOpen() {
	l.partition.gate.Lock()
	e := l.partition.swap()
	l.partition.gate.Unlock()
	if e == nil {
		return
	}
	if err := l.publish(e); err != nil {
		l.partition.fail(err)
	}
}

// publish does the steps in their order.
func (l *pipeline) publish(e *epoch) error {
	p, begin := l.partition, time.Now()
	if err := p.wait(e.outputsAcked); err != nil {
		return err
	}
	if len(e.rows) > 0 {
		acked, err := l.sendRows(e)
		if err != nil {
			return err
		}
		p.raiseChangelogEnd(acked.last + 1)
		offset, err := p.nextStoreOffset(acked)
		if err != nil {
			return err
		}
		if err := p.storeRows(e, offset); err != nil {
			return err
		}
		p.conf.Metrics.published(len(e.rows), time.Since(begin))
	}
	for topic, next := range e.nextOffsets {
		l.commit(topic, next, p.metadata.Load().(string))
	}
	return nil
}

// wait returns when done is closed or the partition has failed.
func (p *partitionEpochs) wait(done <-chan struct{}) error {
	select {
	case <-done:
	case <-p.failed:
	}
	return p.failure()
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

// sendRows sends the epoch's table records, and returns their offsets once they are acknowledged.
func (l *pipeline) sendRows(e *epoch) (ackedRange, error) {
	var (
		p     = l.partition
		mu    sync.Mutex
		left  = len(e.rows)
		acked = ackedRange{first: math.MaxInt64, last: -1, records: len(e.rows)}
		done  = make(chan struct{})
	)
	rowAcked := func(r *kgo.Record, err error) {
		if err != nil {
			p.fail(err)
		} else {
			p.rowAcked(r)
		}
		mu.Lock()
		defer mu.Unlock()
		acked.first, acked.last = min(acked.first, r.Offset), max(acked.last, r.Offset)
		if left--; left == 0 {
			close(done)
		}
	}
	for _, r := range p.tableRecords(e) {
		l.send(r, rowAcked)
	}
	if err := p.wait(done); err != nil {
		return ackedRange{}, err
	}
	p.rowsSettled()
	mu.Lock()
	defer mu.Unlock()
	return acked, nil
}

// ownerHeader marks a null that a callback's delete wrote. A null without it deletes nothing: see hasOwnerHeader.
const ownerHeader = "epochs-owner"

// tableRecords returns the records of the epoch's rows, and notes that they are sent. Foreign records that were found
// since the epoch was closed are rewritten in a later one.
func (p *partitionEpochs) tableRecords(e *epoch) []*kgo.Record {
	batch := make([]kgo.Record, len(e.rows))
	records := make([]*kgo.Record, len(e.rows))
	p.mu.Lock()
	defer p.mu.Unlock()
	e.foreignFrom = min(e.foreignFrom, p.table.foreignFrom())
	for i, r := range e.rows {
		batch[i] = kgo.Record{Topic: p.conf.Table, Partition: p.store.Number(), Key: []byte(r.key), Value: r.value}
		if r.value == nil {
			batch[i].Headers = []kgo.RecordHeader{{Key: ownerHeader, Value: []byte{}}}
		}
		p.table.noteSent(batch[i].Key)
		records[i] = &batch[i]
	}
	return records
}

// rowAcked notes the changelog offset of a row, and returns where foreign records begin that were found by it; see
// ownLog.noteAcked.
func (p *partitionEpochs) rowAcked(r *kgo.Record) (foreignFrom int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.noteAcked(r.Key, r.Offset)
}

// rowsSettled notes that nothing will be appended to the changelog because of the rows that are acknowledged.
func (p *partitionEpochs) rowsSettled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.settle()
}

// storeRows writes the acknowledged rows and their changelog offset to the disk, and removes them from the overlay
// unless the open epoch has newer ones.
func (p *partitionEpochs) storeRows(e *epoch, offset int64) error {
	pendingChanged := p.takePendingChanged(e)
	err := p.store.Update(offset, func(w *localstore.Writer) error {
		for _, r := range e.rows {
			if r.value == nil {
				w.Delete(localstore.Rows, []byte(r.key))
			} else {
				w.Set(localstore.Rows, []byte(r.key), r.value)
			}
			storeIndex(w, r.indexChanges)
		}
		storePendingRewrites(w, pendingChanged)
		return nil
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range e.rows {
		p.bufferedBytes -= len(r.value)
		switch newer := p.overlay[r.key]; {
		case newer == r:
			delete(p.overlay, r.key)
			p.cache.put(r.key, r.value)
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

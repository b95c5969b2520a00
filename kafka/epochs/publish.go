package epochs

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// A pipeline publishes the epochs of one partition with AtLeastOnce, one after the other:
//
//	outputs sent, acknowledged → rows sent, acknowledged → local store → commit
type pipeline struct {
	partition *partitionEpochs
	pace      *pace
	send      sender
	commit    func(topic string, next int64, metadata string)

	dirty    chan struct{} // the open epoch has something in it
	stopping sync.Once
	stop     chan struct{}
	done     chan struct{}
}

// startPipeline makes a pipeline the publisher of a partition.
func startPipeline(p *partitionEpochs, backlog func() bool, send sender,
	commit func(topic string, next int64, metadata string),
) {
	l := &pipeline{
		partition: p, send: send, commit: commit,
		dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.pace = &pace{
		interval: p.conf.Interval, stop: l.stop, failed: p.failed,
		worthWaiting: func() bool { return backlog() && p.hasRoom() },
	}
	p.publisher, p.maxOutputs = l, maxUnacked
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
			l.pace.await()
		case <-l.stop:
			l.publishOpen()
			return
		case <-l.partition.failed:
			return
		}
		l.publishOpen()
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
	if err := l.deliver(e.outputs); err != nil {
		return err
	}
	p.outputsAcked(e)
	p.settled(&p.mirror)
	if len(e.rows) > 0 {
		records := p.tableRecords(e)
		if err := l.deliver(records); err != nil {
			return err
		}
		acked, _ := p.rowsAcked(records)
		p.settled(&p.table)
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

// deliver sends records, and returns when they are acknowledged, or one or the partition has failed.
func (l *pipeline) deliver(records []*kgo.Record) error {
	d := deliver(l.send, records)
	select {
	case <-d.done:
		return errors.Join(d.failure(), l.partition.failure())
	case <-l.partition.failed:
		return l.partition.failure()
	}
}

// A sender sends a record to the partition that is set in it, and calls acked once, with its offset set, from another
// goroutine.
type sender func(r *kgo.Record, acked func(r *kgo.Record, err error))

// A delivery is a number of records that are sent together.
type delivery struct {
	mu   sync.Mutex
	left int
	err  error         // the first
	done chan struct{} // closed when all are acknowledged, or one has failed
}

// deliver sends records in their order.
func deliver(send sender, batches ...[]*kgo.Record) *delivery {
	d := &delivery{done: make(chan struct{})}
	for _, records := range batches {
		d.left += len(records)
	}
	if d.left == 0 {
		close(d.done)
	}
	acked := d.acked
	for _, records := range batches {
		for _, r := range records {
			if d.failure() != nil { // the rest would only be repeated
				return d
			}
			send(r, acked)
		}
	}
	return d
}

func (d *delivery) acked(r *kgo.Record, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left--
	switch {
	case d.err != nil:
	case err != nil:
		d.err = fmt.Errorf("produce to %s: %w", r.Topic, err)
		close(d.done)
	case d.left == 0:
		close(d.done)
	}
}

// failure returns the first failure.
func (d *delivery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
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

// rowsAcked notes the changelog offsets of rows. It returns their range, and where foreign records begin that were
// found by them; see ownLog.noteAcked.
func (p *partitionEpochs) rowsAcked(records []*kgo.Record) (acked ackedRange, foreignFrom int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	acked, foreignFrom = ackedRange{math.MaxInt64, -1, len(records)}, math.MaxInt64
	for _, r := range records {
		foreignFrom = min(foreignFrom, p.table.noteAcked(r.Key, r.Offset))
		acked.first, acked.last = min(acked.first, r.Offset), max(acked.last, r.Offset)
	}
	return acked, foreignFrom
}

// settled notes that nothing will be appended to a log because of our records that are acknowledged.
func (p *partitionEpochs) settled(log *ownLog) {
	p.mu.Lock()
	defer p.mu.Unlock()
	log.settle()
}

// storeRows writes the acknowledged rows and their changelog offset to the disk. They are not buffered any more.
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
		if newer := p.rows.published(r); newer != nil && len(r.indexChanges) > 0 {
			newer.indexChanges = maps.Clone(newer.indexChanges)
			maps.DeleteFunc(newer.indexChanges, func(entry string, there bool) bool {
				stored, found := r.indexChanges[entry]
				return found && stored == there
			})
		}
	}
	p.publishingRows = nil
	p.signal()
	return nil
}

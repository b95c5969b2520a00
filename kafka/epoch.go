package kafka

import (
	"math"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// partitionEpochs are the epochs of one partition: one open, which callbacks fill, and at most one being published.
type partitionEpochs struct {
	conf  EpochConfig
	owner []byte
	shelf *shelf
	send  func(r *kgo.Record, done func(offset int64, err error))

	gate sync.Mutex // held by a running callback, and while the open epoch is swapped

	mu      sync.Mutex
	room    *sync.Cond // unacked or held went down, or failed
	waiting int        // callbacks waiting for room
	open    *epoch
	overlay map[string]*row // rows of the open and the publishing epoch: what the next callback must see
	unacked int             // outputs
	held    int             // bytes of rows, and of outputs that wait for their transaction
	err     error           // the first failure; nothing is published after it

	shared *transactions // publish the epochs of all partitions; nil: each partition publishes its own

	failed chan struct{} // closed with err
	dirty  chan struct{} // the open epoch has something in it
	stop   chan struct{}
	done   chan struct{}
}

// An epoch is what is published together.
type epoch struct {
	outputs   int             // sent and not acknowledged
	closed    bool            // no more outputs will come
	published chan struct{}   // closed when the epoch is closed and its outputs are acknowledged
	rows      map[string]*row // the newest per key
	finish    []goka.PromiseFinisher

	// Of epochs that are published in transactions:
	records []*kgo.Record    // outputs that are not sent yet
	next    map[string]int64 // by input topic, the offset after the newest record whose callback has returned
}

// empty says that nothing has happened in the epoch.
func (e *epoch) empty() bool {
	return e.outputs+len(e.records)+len(e.rows)+len(e.finish)+len(e.next) == 0
}

// A row is a held table record; a nil value deletes.
type row struct {
	epoch *epoch
	value []byte
}

func newEpoch() *epoch {
	return &epoch{published: make(chan struct{}), rows: make(map[string]*row), next: make(map[string]int64)}
}

func newPartitionEpochs(conf EpochConfig, owner []byte, shelf *shelf, send func(*kgo.Record, func(int64, error))) *partitionEpochs {
	p := &partitionEpochs{
		conf: conf, owner: owner, shelf: shelf, send: send,
		open: newEpoch(), overlay: make(map[string]*row),
		failed: make(chan struct{}), dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.room = sync.NewCond(&p.mu)
	return p
}

// enter waits for room and takes the gate. Waiting later, inside a callback, would keep the epoch from ever closing.
func (p *partitionEpochs) enter() error {
	p.mu.Lock()
	p.waiting++
	limit := maxUnacked
	if p.shared != nil {
		limit = maxUncommitted
	}
	for p.err == nil && (p.unacked >= limit || p.held >= maxHeld) {
		p.room.Wait()
	}
	p.waiting--
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	p.gate.Lock()
	return nil
}

// passed notes that the callback of an input record has returned: all its effects are in the open epoch.
func (p *partitionEpochs) passed(topic string, offset int64) {
	if p.shared == nil {
		return
	}
	p.mu.Lock()
	p.open.next[topic] = offset + 1
	p.mu.Unlock()
	p.wake()
}

// output sends a record at once. Its promise is finished with its acknowledgement; the epoch's rows wait for it. Where epochs
// are published in transactions it is held until that of its epoch.
func (p *partitionEpochs) output(r *kgo.Record, finish goka.PromiseFinisher) {
	p.mu.Lock()
	if err := p.err; err != nil {
		p.mu.Unlock()
		finish(nil, err)
		return
	}
	e := p.open
	p.unacked++
	if p.shared != nil {
		e.records = append(e.records, r)
		e.finish = append(e.finish, finish)
		p.held += len(r.Key) + len(r.Value)
		p.mu.Unlock()
		p.wake()
		return
	}
	e.outputs++
	p.mu.Unlock()
	p.wake()
	p.send(r, func(_ int64, err error) {
		if err != nil {
			p.fail(err)
		}
		p.mu.Lock()
		e.outputs--
		p.unacked--
		if e.outputs == 0 && e.closed {
			close(e.published)
		}
		p.signal()
		p.mu.Unlock()
		finish(nil, err)
	})
}

// set holds the newest value of a key for the open epoch; nil deletes it.
func (p *partitionEpochs) set(key string, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if before := p.open.rows[key]; before != nil {
		p.held -= len(before.value)
		p.conf.Metrics.coalesced()
	}
	r := &row{epoch: p.open, value: value}
	p.open.rows[key], p.overlay[key] = r, r
	p.held += len(value)
	return nil
}

// hold keeps the promise of a changelog record, whose value set was given, until the row is published.
func (p *partitionEpochs) hold(finish goka.PromiseFinisher) {
	p.mu.Lock()
	if err := p.err; err != nil {
		p.mu.Unlock()
		finish(nil, err)
		return
	}
	p.open.finish = append(p.open.finish, finish)
	p.mu.Unlock()
	p.wake()
}

// get returns a held row; found is false when the key must be looked up in the store.
func (p *partitionEpochs) get(key string) (value []byte, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.overlay[key]
	if r == nil {
		return nil, false
	}
	return r.value, true
}

func (p *partitionEpochs) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// signal lets waiting callbacks look again; p.mu is held.
func (p *partitionEpochs) signal() {
	if p.waiting > 0 {
		p.room.Broadcast()
	}
}

// fail rejects what is held: no row of it was sent, or none of it will be relied on.
func (p *partitionEpochs) fail(err error) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return
	}
	p.err = err
	close(p.failed)
	finish := p.open.finish
	p.open.finish = nil
	p.room.Broadcast()
	p.mu.Unlock()
	for _, f := range finish {
		f(nil, err)
	}
	if p.shared != nil {
		p.shared.fail(err) // what other partitions hold may belong together with what this one has lost
	}
}

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
	if e.empty() || p.shared != nil && p.err != nil {
		return nil
	}
	p.open = newEpoch()
	e.closed = true
	if e.outputs == 0 {
		close(e.published)
	}
	return e
}

// publish does in order what Epochs promises. On failure the epoch's promises are finished with the error.
func (p *partitionEpochs) publish(e *epoch) {
	begin := time.Now()
	err := p.wait(e.published)
	if err == nil && len(e.rows) > 0 {
		var landed span
		if landed, err = p.sendRows(e); err == nil {
			var offset int64
			if offset, err = p.reached(landed); err == nil {
				err = p.storeRows(e, offset)
			}
		}
	}
	if err != nil {
		p.fail(err)
	} else if len(e.rows) > 0 {
		p.conf.Metrics.published(len(e.rows), time.Since(begin))
	}
	for _, f := range e.finish {
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

// A span is where an epoch's rows landed in the changelog.
type span struct {
	first, last int64
	records     int
}

// follows says that nothing else landed after the offset and in between.
func (s span) follows(offset int64) bool {
	return s.first == offset+1 && s.last-s.first+1 == int64(s.records)
}

// reached returns the offset up to which every record is on the disk once the rows that landed are. An owner that was paused
// and wakes may append behind records of its successor that it has never read: from then on the offset stays where it is,
// until the next recovery reads them.
func (p *partitionEpochs) reached(landed span) (int64, error) {
	offset, err := p.shelf.GetOffset(-1)
	if err != nil || !landed.follows(offset) {
		return offset, err
	}
	return landed.last, nil
}

// sendRows sends the epoch's table records, in the order of their keys, and returns where they were acknowledged.
func (p *partitionEpochs) sendRows(e *epoch) (span, error) {
	var (
		mu     sync.Mutex
		left   = len(e.rows)
		landed = span{first: math.MaxInt64, last: -1, records: len(e.rows)}
		done   = make(chan struct{})
	)
	for _, r := range e.tableRecords(p.conf.Table, p.shelf.partition, p.owner) {
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
		return span{}, err
	}
	mu.Lock()
	defer mu.Unlock()
	return landed, nil
}

// storeRows writes the acknowledged rows and their changelog offset to the disk, and drops them from the overlay unless a
// later epoch holds them.
func (p *partitionEpochs) storeRows(e *epoch, offset int64) error {
	err := p.shelf.store.Update(p.shelf.partition, offset, func(w *Writer) error {
		for key, r := range e.rows {
			if r.value == nil {
				w.Delete(Rows, []byte(key))
			} else {
				w.Set(Rows, []byte(key), r.value)
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
		p.held -= len(r.value)
		if p.overlay[key] == r {
			delete(p.overlay, key)
		}
	}
	p.signal()
	return nil
}

// landed forgets the outputs of an epoch whose transaction is committed.
func (p *partitionEpochs) landed(e *epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacked -= len(e.records)
	for _, r := range e.records {
		p.held -= len(r.Key) + len(r.Value)
	}
	p.signal()
}

// close gives the partition up. goka calls it when all promises are finished, or when it will not wait for them any longer.
func (p *partitionEpochs) close() {
	if p.shared != nil {
		close(p.done) // it does not run
	}
	p.mu.Lock()
	pending := len(p.overlay) > 0 || p.unacked > 0
	p.mu.Unlock()
	if pending {
		p.fail(errClosed)
	}
	close(p.stop)
	<-p.done
}

package epochs

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
)

// partitionEpochs are the epochs of one partition: an open one, which callbacks fill, and at most one that is being
// published.
type partitionEpochs struct {
	conf  Config
	owner []byte
	store *localstore.Partition
	send  func(r *kgo.Record, done func(offset int64, err error))

	started    sync.Once    // startPartition, before the first record
	recovered  atomic.Bool  // the rows are those of the changelog's end
	readBackTo atomic.Int64 // the changelog is read back up to here, and stale records in it are rewritten
	rowFound   atomic.Bool  // by goka's last Get
	onFailure  func(error)  // called with the first failure, unless that is errClosed or errNotReturned

	gate           sync.Mutex // locked by a running callback, and while the open epoch is swapped
	rowSet         bool       // the callback has set its row; guarded by gate, like the next two
	removedEntries []string   // index entries that the next row does not have any more, and new ones: see Rows.Reindex
	addedEntries   []string

	mu              sync.Mutex
	room            *sync.Cond // signals that unacked or bufferedBytes went down, or err is set
	waiting         int        // callbacks waiting for room
	open            *epoch
	cache           rowCache        // rows that are published
	overlay         map[string]*row // rows of the open and the publishing epoch, which callbacks must see
	pendingRewrites map[string]bool // keys whose last changelog record is stale; also on the disk: see readback.go
	unacked         int             // outputs
	bufferedBytes   int             // bytes of rows, and of outputs
	mirror          mirrorState
	changelogEnd    committed.ChangelogEnd
	metadata        atomic.Value // string: the changelogEnd for the next commit
	err             error        // the first failure; nothing is published after it

	transactions *transactions // with ExactlyOnce; nil: the partition publishes its own epochs

	failed chan struct{} // closed with err
	dirty  chan struct{} // the open epoch has something in it
	stop   chan struct{}
	done   chan struct{}
}

// An epoch is what is published together.
type epoch struct {
	outputs      int             // sent and not acknowledged
	closed       bool            // swapped out: no more outputs are added
	outputsAcked chan struct{}   // closed when the epoch is closed and its outputs are acknowledged
	rows         map[string]*row // the newest per key
	promises     []goka.PromiseFinisher

	// With ExactlyOnce:
	records     []*kgo.Record    // outputs that are not sent yet
	nextOffsets map[string]int64 // by input topic, the offset after the newest record whose callback has returned
}

// empty reports whether the epoch has no effects.
func (e *epoch) empty() bool {
	return e.outputs+len(e.records)+len(e.rows)+len(e.promises)+len(e.nextOffsets) == 0
}

// A row is a buffered table record; a nil value deletes.
type row struct {
	epoch        *epoch
	value        []byte
	indexChanges map[string]bool // by index entry: whether the entry exists from this row on
}

func newEpoch() *epoch {
	return &epoch{outputsAcked: make(chan struct{}), rows: make(map[string]*row), nextOffsets: make(map[string]int64)}
}

func newPartitionEpochs(
	conf Config, owner []byte, store *localstore.Partition, send func(*kgo.Record, func(int64, error)),
) *partitionEpochs {
	p := &partitionEpochs{
		conf: conf, owner: owner, store: store, send: send, mirror: mirrorState{end: mirrorEnd{next: -1}},
		open: newEpoch(), overlay: make(map[string]*row), pendingRewrites: make(map[string]bool),
		onFailure: func(error) {}, failed: make(chan struct{}), dirty: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.room = sync.NewCond(&p.mu)
	p.metadata.Store("")
	return p
}

// enter waits for room and locks the gate. A wait inside the callback would keep the epoch from being closed.
func (p *partitionEpochs) enter() error {
	p.mu.Lock()
	p.waiting++
	limit := maxUnacked
	if p.transactions != nil {
		limit = maxUncommitted
	}
	for p.err == nil && (p.unacked >= limit || p.bufferedBytes >= maxBufferedBytes) {
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

// failWaiting fails the partition if a callback still waits for room.
func (p *partitionEpochs) failWaiting() {
	p.mu.Lock()
	waits := p.waiting > 0
	p.mu.Unlock()
	if waits {
		p.fail(errClosed)
	}
}

// callbackReturned notes that the callback of an input record has returned: all its effects are in the open epoch.
func (p *partitionEpochs) callbackReturned(topic string, offset int64) {
	if p.transactions == nil {
		return
	}
	p.mu.Lock()
	p.open.nextOffsets[topic] = offset + 1
	p.mu.Unlock()
	p.wake()
}

// output sends a record at once, and finishes its promise when it is acknowledged; the epoch's rows wait for that. With
// ExactlyOnce the record is buffered until the epoch's transaction.
func (p *partitionEpochs) output(r *kgo.Record, finish goka.PromiseFinisher) {
	p.mu.Lock()
	if err := p.err; err != nil {
		p.mu.Unlock()
		finish(nil, err)
		return
	}
	e, size := p.open, len(r.Key)+len(r.Value)
	p.unacked++
	p.bufferedBytes += size
	mirrored := p.isMirrorRecord(r)
	if mirrored {
		p.mirror.noteSent(r.Key)
	}
	if p.transactions != nil {
		e.records = append(e.records, r)
		e.promises = append(e.promises, finish)
		p.mu.Unlock()
		p.wake()
		return
	}
	e.outputs++
	p.mu.Unlock()
	p.wake()
	p.send(r, func(offset int64, err error) {
		if err != nil {
			p.fail(err)
		}
		p.mu.Lock()
		if mirrored && err == nil {
			p.mirror.noteAcked(r.Key, offset)
		}
		e.outputs--
		p.unacked--
		p.bufferedBytes -= size
		if e.outputs == 0 && e.closed {
			close(e.outputsAcked)
		}
		p.signal()
		p.mu.Unlock()
		finish(nil, err)
	})
}

// set buffers the newest value of a key in the open epoch; nil deletes it. The gate is locked.
func (p *partitionEpochs) set(key string, value []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	if before := p.open.rows[key]; before != nil {
		p.bufferedBytes -= len(before.value)
		p.conf.Metrics.coalesced()
	}
	r := &row{epoch: p.open, value: value}
	p.reindex(r, p.overlay[key])
	p.open.rows[key], p.overlay[key] = r, r
	p.bufferedBytes += len(value)
	return nil
}

// addTablePromise keeps the promise of a changelog record until its row, which was passed to set, is published.
func (p *partitionEpochs) addTablePromise(key string, finish goka.PromiseFinisher) {
	p.mu.Lock()
	err, given := p.err, p.open.rows[key] != nil
	if err == nil && !given {
		err = fmt.Errorf("PartitionOf returned partition %d for the row of %q, which was set in another one",
			p.store.Number(), key)
	}
	if err != nil {
		p.mu.Unlock()
		p.fail(err)
		finish(nil, err)
		return
	}
	p.open.promises = append(p.open.promises, finish)
	p.mu.Unlock()
	p.wake()
}

// bufferedRow returns a row of the open or the publishing epoch; found is false when the key must be looked up in the
// store.
func (p *partitionEpochs) bufferedRow(key string) (value []byte, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.overlay[key]; r != nil {
		return r.value, true
	}
	return p.cache.get(key)
}

// current returns the newest row of a key; nil when there is none.
func (p *partitionEpochs) current(key string) ([]byte, error) {
	if row, found := p.bufferedRow(key); found {
		return row, nil
	}
	row, err := p.store.Get(key)
	if err == nil && row != nil {
		p.mu.Lock()
		if p.overlay[key] == nil {
			p.cache.put(key, row)
		}
		p.mu.Unlock()
	}
	return row, err
}

func (p *partitionEpochs) wake() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// signal wakes callbacks that wait for room; p.mu is locked.
func (p *partitionEpochs) signal() {
	if p.waiting > 0 {
		p.room.Broadcast()
	}
}

// fail rejects the promises of the open epoch. After it nothing is published.
func (p *partitionEpochs) fail(err error) {
	p.mu.Lock()
	if p.err != nil {
		p.mu.Unlock()
		return
	}
	p.err = err
	close(p.failed)
	finish := p.open.promises
	p.open.promises = nil
	p.room.Broadcast()
	p.mu.Unlock()
	for _, f := range finish {
		f(nil, err)
	}
	if p.transactions != nil {
		p.transactions.fail(err) // effects of one callback may be in several partitions
	}
	if !errors.Is(err, errClosed) && !errors.Is(err, errNotReturned) { // goka knows of a callback that did not return
		p.onFailure(err)
	}
}

// failure returns the first failure; nil while the partition is published.
func (p *partitionEpochs) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// transactionCommitted drops the outputs of an epoch whose transaction is committed.
func (p *partitionEpochs) transactionCommitted(e *epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacked -= len(e.records)
	for _, r := range e.records {
		p.bufferedBytes -= len(r.Key) + len(r.Value)
		if p.isMirrorRecord(r) {
			p.mirror.end.transactionCommitted()
		}
	}
	p.signal()
}

// close ends the partition's epochs. goka calls it when all promises are finished, or when it stops waiting for them.
func (p *partitionEpochs) close() {
	if p.transactions != nil {
		close(p.done) // run was not started
	}
	p.mu.Lock()
	pending := len(p.overlay) > 0 || p.unacked > 0
	if !pending && p.err == nil {
		p.err = errClosed
	}
	p.mu.Unlock()
	if pending {
		p.fail(errClosed)
	}
	close(p.stop)
	<-p.done
}

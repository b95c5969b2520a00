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

// partitionEpochs are the epochs of one partition: one open, which callbacks fill, and at most one being published.
type partitionEpochs struct {
	conf  Config
	owner []byte
	store *localstore.Partition
	send  func(r *kgo.Record, done func(offset int64, err error))

	started    sync.Once    // before the first record
	recovered  atomic.Bool  // the table is
	readBackTo atomic.Int64 // the changelog is read back up to here, and answered
	rowFound   atomic.Bool  // by the last look-up of goka's
	onFailure  func(error)  // told the first failure, unless that is that the partition was given up

	gate           sync.Mutex // held by a running callback, and while the open epoch is swapped
	rowSet         bool       // the callback has set its row; guarded by gate, as is the next
	removedEntries []string   // entries that its row does not have any more, and that it has from now on: see Rows.Reindex
	addedEntries   []string

	mu              sync.Mutex
	room            *sync.Cond // unacked or held went down, or failed
	waiting         int        // callbacks waiting for room
	open            *epoch
	overlay         map[string]*row // rows of the open and the publishing epoch: what the next callback must see
	pendingRewrites map[string]bool // keys whose last record in the changelog is older than the row, or a foreign null; on the disk too, as owed
	unacked         int             // outputs
	bufferedBytes   int             // bytes of rows, and of outputs
	mirror          mirrorState
	changelogEnd    committed.ChangelogEnd
	metadata        atomic.Value // of a commit of now: the standing's, a string
	err             error        // the first failure; nothing is published after it

	transactions *transactions // publish the epochs of all partitions; nil: each partition publishes its own

	failed chan struct{} // closed with err
	dirty  chan struct{} // the open epoch has something in it
	stop   chan struct{}
	done   chan struct{}
}

// An epoch is what is published together.
type epoch struct {
	outputs      int             // sent and not acknowledged
	closed       bool            // no more outputs will come
	outputsAcked chan struct{}   // closed when the epoch is closed and its outputs are acknowledged
	rows         map[string]*row // the newest per key
	promises     []goka.PromiseFinisher

	// Of epochs that are published in transactions:
	records     []*kgo.Record    // outputs that are not sent yet
	nextOffsets map[string]int64 // by input topic, the offset after the newest record whose callback has returned
}

// empty says that nothing has happened in the epoch.
func (e *epoch) empty() bool {
	return e.outputs+len(e.records)+len(e.rows)+len(e.promises)+len(e.nextOffsets) == 0
}

// A row is a held table record; a nil value deletes.
type row struct {
	epoch        *epoch
	value        []byte
	indexChanges map[string]bool // of the index that change with it: whether they are there
}

func newEpoch() *epoch {
	return &epoch{outputsAcked: make(chan struct{}), rows: make(map[string]*row), nextOffsets: make(map[string]int64)}
}

func newPartitionEpochs(conf Config, owner []byte, shelf *localstore.Partition, send func(*kgo.Record, func(int64, error))) *partitionEpochs {
	p := &partitionEpochs{
		conf: conf, owner: owner, store: shelf, send: send, mirror: mirrorState{end: mirrorEnd{next: -1}},
		open: newEpoch(), overlay: make(map[string]*row), pendingRewrites: make(map[string]bool),
		onFailure: func(error) {}, failed: make(chan struct{}), dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	p.room = sync.NewCond(&p.mu)
	p.metadata.Store("")
	return p
}

// enter waits for room and takes the gate. Waiting later, inside a callback, would keep the epoch from ever closing.
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

// overdue gives the partition up if a callback still waits for room.
func (p *partitionEpochs) failWaiting() {
	p.mu.Lock()
	waits := p.waiting > 0
	p.mu.Unlock()
	if waits {
		p.fail(errClosed)
	}
}

// passed notes that the callback of an input record has returned: all its effects are in the open epoch.
func (p *partitionEpochs) callbackReturned(topic string, offset int64) {
	if p.transactions == nil {
		return
	}
	p.mu.Lock()
	p.open.nextOffsets[topic] = offset + 1
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

// set holds the newest value of a key for the open epoch; nil deletes it. The caller holds the gate.
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

// hold keeps the promise of a changelog record, whose value set was given, until the row is published.
func (p *partitionEpochs) addTablePromise(key string, finish goka.PromiseFinisher) {
	p.mu.Lock()
	err, given := p.err, p.open.rows[key] != nil
	if err == nil && !given {
		err = fmt.Errorf("PartitionOf says that the row of %q is of partition %d, and it is not", key, p.store.Number())
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

// get returns a held row; found is false when the key must be looked up in the store.
func (p *partitionEpochs) bufferedRow(key string) (value []byte, found bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.overlay[key]
	if r == nil {
		return nil, false
	}
	return r.value, true
}

// current returns the newest row of a key, nil when there is none.
func (p *partitionEpochs) current(key string) ([]byte, error) {
	if row, held := p.bufferedRow(key); held {
		return row, nil
	}
	return p.store.Get(key)
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
	finish := p.open.promises
	p.open.promises = nil
	p.room.Broadcast()
	p.mu.Unlock()
	for _, f := range finish {
		f(nil, err)
	}
	if p.transactions != nil {
		p.transactions.fail(err) // what other partitions hold may belong together with what this one has lost
	}
	if !errors.Is(err, errClosed) && !errors.Is(err, errNotReturned) { // of the latter goka knows
		p.onFailure(err)
	}
}

// failure returns why nothing of the partition is published any more.
func (p *partitionEpochs) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// landed forgets the outputs of an epoch whose transaction is committed.
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

// close gives the partition up. goka calls it when all promises are finished, or when it will not wait for them any longer.
func (p *partitionEpochs) close() {
	if p.transactions != nil {
		close(p.done) // it does not run
	}
	p.mu.Lock()
	pending := len(p.overlay) > 0 || p.unacked > 0
	if !pending && p.err == nil {
		p.err = errClosed // nothing is to be sent any more
	}
	p.mu.Unlock()
	if pending {
		p.fail(errClosed)
	}
	close(p.stop)
	<-p.done
}

package epochs

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
)

// partitionEpochs are the epochs of one partition: an open one, which callbacks fill, and at most one that is being
// published.
type partitionEpochs struct {
	conf      Config
	store     *localstore.Partition
	publisher publisher
	// maxOutputs is how many outputs may be buffered, or sent and not acknowledged, before the next callback waits.
	maxOutputs int

	started   sync.Once   // startPartition, before the first record
	recovered atomic.Bool // the rows are those of the changelog's end
	onFailure func(error) // called with the first failure, unless that is errClosed or errNotReturned

	gate           sync.Mutex // locked by a running callback, and while the open epoch is swapped
	removedEntries []string   // index entries that the next row does not have any more, and new ones: see Rows.Reindex
	addedEntries   []string   // these three are guarded by gate
	buffers        outputBuffers

	mu               sync.Mutex
	room             *sync.Cond // signals that unacked or bufferedBytes went down, or err is set
	waiting          int        // callbacks waiting for room
	open             *epoch
	rows             memoryRows
	publishingRows   []*row // of the epoch that is being published
	keys             *keyFilter
	pendingRewrites  map[string]bool // keys whose last changelog record is stale; also on the disk: see recovery.go
	pendingChanged   map[string]bool // changes of pendingRewrites that are not on the disk
	recoveredTo      int64           // offset of the last changelog record that was recovered
	progress         recoveryProgress
	recoveredRecords int // that are not on the disk yet
	unacked          int // outputs that are buffered, or sent and not acknowledged
	bufferedBytes    int // bytes of rows that are not stored, and of those outputs
	table, mirror    ownLog
	committedOffsets map[string]int64 // by input topic: see noteInput
	changelogEnd     committed.ChangelogEnd
	metadata         atomic.Value // string: the changelogEnd for the next commit
	err              error        // the first failure; nothing is published after it

	failed    chan struct{} // closed with err
	keysKnown chan struct{} // closed when keys are filled, or the partition has failed before
}

// A publisher publishes the epochs of one or all partitions.
type publisher interface {
	// wake tells that an open epoch has effects.
	wake()
	// drain publishes what is in the open epoch, and returns when that is done, or has failed. No callback of the
	// partition runs any more.
	drain()
	// fail is called with the first failure of a partition, after which its epochs are not published.
	fail(err error)
}

// An epoch is what is published together.
type epoch struct {
	outputs     []*kgo.Record
	buffers     []*[]byte        // of the outputs, once the epoch is closed
	rows        []*row           // the newest per key, in the order in which the keys were first set
	nextOffsets map[string]int64 // by input topic, the offset after the newest record whose callback has returned

	foreignFrom int64 // the foreign changelog records below it are rewritten, in this epoch or before
	recovery    bool  // it has rows that are published already: see recover
}

// empty reports whether the epoch has no effects.
func (e *epoch) empty() bool {
	return len(e.outputs)+len(e.rows)+len(e.nextOffsets) == 0
}

func newPartitionEpochs(conf Config, store *localstore.Partition) *partitionEpochs {
	p := &partitionEpochs{
		conf: conf, store: store, rows: memoryRows{byKey: map[string]*row{}}, pendingRewrites: make(map[string]bool),
		pendingChanged: make(map[string]bool), committedOffsets: make(map[string]int64),
		keys: newKeyFilter(), table: ownLog{next: -1}, mirror: ownLog{next: -1},
		onFailure: func(error) {}, failed: make(chan struct{}), keysKnown: make(chan struct{}),
	}
	p.open = newEpoch()
	p.room = sync.NewCond(&p.mu)
	p.metadata.Store("")
	return p
}

func newEpoch() *epoch { return &epoch{nextOffsets: make(map[string]int64, 1)} }

// enter waits for room and locks the gate. A wait inside the callback would keep the epoch from being closed.
func (p *partitionEpochs) enter() error {
	p.mu.Lock()
	p.waiting++
	for p.err == nil && (p.unacked >= p.maxOutputs || p.bufferedBytes >= maxBufferedBytes) {
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
	p.mu.Lock()
	p.open.nextOffsets[topic] = offset + 1
	p.mu.Unlock()
	p.publisher.wake()
}

// noteInput notes the committed offset of an input, if it is known. A transaction that has only rows adds it again,
// because a transaction without offsets is not fenced.
func (p *partitionEpochs) noteInput(topic string, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if offset >= 0 {
		p.committedOffsets[topic] = max(offset, p.committedOffsets[topic])
	}
}

// output adds an output to the open epoch. The gate is locked.
func (p *partitionEpochs) output(r *kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	p.open.outputs = append(p.open.outputs, r)
	p.unacked++
	p.bufferedBytes += len(r.Key) + len(r.Value)
	if p.isMirrorRecord(r) {
		p.mirror.noteSent(r.Key)
	}
}

// outputsAcked notes the offsets of an epoch's outputs. They come in the order in which the outputs were emitted. It
// drops the contents.
func (p *partitionEpochs) outputsAcked(e *epoch) {
	defer release(e.buffers)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unacked -= len(e.outputs)
	for _, r := range e.outputs {
		p.bufferedBytes -= len(r.Key) + len(r.Value)
		if p.isMirrorRecord(r) {
			p.mirror.noteAcked(r.Key, r.Offset)
		}
		r.Key, r.Value, r.Headers = nil, nil, nil // the record may stay in its slab
	}
	p.signal()
}

// hasRoom reports whether the open epoch has room for as much again as it has.
func (p *partitionEpochs) hasRoom() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open.outputs) < p.maxOutputs/2 && p.bufferedBytes < maxBufferedBytes/2
}

// set buffers the newest row of a key in the open epoch; nil deletes it. The message is what the row decodes to, or
// nil. The gate is locked.
func (p *partitionEpochs) set(key string, value []byte, message any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return p.err
	}
	r, had := p.rows.buffer(key, p.open)
	if !had {
		p.open.rows = append(p.open.rows, r)
		if r.value == nil { // a new row, or one that is not in memory
			p.keys.add([]byte(key))
		}
	} else {
		p.bufferedBytes -= len(r.value)
		if !p.open.recovery {
			p.conf.Metrics.coalesced()
		}
	}
	r.value, r.message = value, message
	p.reindex(r)
	p.bufferedBytes += len(value)
	return nil
}

// current returns the newest row of a key; its value is nil when there is none.
func (p *partitionEpochs) current(key string) (row, error) {
	p.mu.Lock()
	if r := p.rows.get(key); r != nil {
		defer p.mu.Unlock()
		return row{value: r.value, message: r.message}, nil
	}
	p.mu.Unlock()
	if p.keys.excludes(key) {
		return row{}, nil
	}
	value, err := p.store.Get(key)
	if err == nil && value != nil {
		p.mu.Lock()
		p.rows.cache(key, value)
		p.mu.Unlock()
	}
	return row{value: value}, err
}

// swap closes the open epoch and opens the next one; it returns nil when there is nothing to publish, or the partition
// has failed. The gate is locked.
func (p *partitionEpochs) swap() *epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open
	if e.empty() || e.recovery || p.err != nil {
		return nil
	}
	p.open, p.publishingRows = newEpoch(), e.rows
	e.foreignFrom, e.buffers = p.table.foreignFrom(), p.buffers.take()
	return e
}

// signal wakes callbacks that wait for room; p.mu is locked.
func (p *partitionEpochs) signal() {
	if p.waiting > 0 {
		p.room.Broadcast()
	}
}

// fail ends the partition's epochs. After it nothing is published.
func (p *partitionEpochs) fail(err error) {
	if !p.end(err) {
		return
	}
	p.publisher.fail(err)
	if !errors.Is(err, errClosed) && !errors.Is(err, errNotReturned) { // goka knows of a callback that did not return
		p.onFailure(err)
	}
}

// end sets the first failure, and reports whether this is it.
func (p *partitionEpochs) end(err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return false
	}
	p.err = err
	close(p.failed)
	p.room.Broadcast()
	return true
}

// close ends the epochs of a partition that is drained. It does not fail those of other partitions.
func (p *partitionEpochs) close() {
	p.end(errClosed)
	<-p.keysKnown // it reads the store
}

// fillKeys fills the key filter from the store.
func (p *partitionEpochs) fillKeys() {
	defer close(p.keysKnown)
	if err := p.keys.fill(p.store, p.failed); err != nil {
		p.fail(err)
	}
}

// failure returns the first failure; nil while the partition is published.
func (p *partitionEpochs) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

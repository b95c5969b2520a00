package epochs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Guarantee is what a processor promises about its effects.
type Guarantee string

const (
	// AtLeastOnce publishes in the order of Epochs. A crash may repeat outputs byte for byte, and readers drop the repeats by
	// what the outputs say about themselves; their effect is there once. It is the zero value, too.
	AtLeastOnce Guarantee = "at_least_once"
	// ExactlyOnce publishes in transactions: who reads committed records sees each output once, with the row that it belongs to
	// and never without it. It needs an InstanceID.
	ExactlyOnce Guarantee = "exactly_once"
)

// transactions publish the epochs of all partitions of one instance, each in one Kafka transaction:
//
//	outputs and rows → input offsets → commit → local store → promises
//
// Callbacks meanwhile fill the next epochs: what they emit is held until its transaction begins. All partitions' epochs are
// closed at one moment, with every callback outside, so the cut is consistent even where a callback wrote to another partition.
//
// The offsets are those of the callbacks that have returned, not goka's marks: goka may mark later, and sarama commits by itself.
// They carry the member's generation (KIP-447), so an owner whose partitions were given away cannot commit, and without
// the offsets nothing of its transaction becomes visible. The disk gets what is committed and nothing else: after a crash or
// an abort it is as it was, and goka reads the rest from the changelog.
//
// After the first failure nothing more is published: the attempt ends, and the next one fences this one's transaction.
type transactions struct {
	producer   txnProducer
	table      string
	owner      []byte
	interval   time.Duration
	partitions func() []*partitionEpochs
	metrics    *Metrics

	dirty  chan struct{} // shared with all partitions: some epoch has something in it
	stop   chan struct{}
	done   chan struct{}
	failed chan struct{} // closed with err

	round sync.Mutex // held while one transaction is gathered and published
	mu    sync.Mutex
	err   error
}

// A ledger is what transactions need of the cluster.
type txnProducer interface {
	// begin lets records be sent in a new transaction.
	begin() error
	// send produces to a partition and calls done from another goroutine, exactly once.
	send(r *kgo.Record, done func(offset int64, err error))
	// flush has what was sent go out, without waiting for more.
	flush(ctx context.Context)
	// add puts input offsets into the transaction.
	addOffsets(ctx context.Context, next map[partitionID]inputOffset) error
	// end commits or aborts the transaction.
	end(ctx context.Context, commit bool) error
	// commit commits input offsets whose records had no effect, without a transaction.
	commitOffsets(ctx context.Context, next map[partitionID]inputOffset) error
}

// A commit is the offset of the record that is to be read next, and what is said with it: see committed.Standing.
type inputOffset struct {
	offset   int64
	metadata string
}

// transactionTimeout is after which time a broker aborts the transaction of an instance that died. Until then readers of
// committed records do not get past what it had written. The instance itself, started again, does not wait for it.
const transactionTimeout = 15 * time.Second

// abortTimeout bounds the attempt to abort at once, for the readers' sake. What it leaves open the next attempt aborts.
const abortTimeout = 5 * time.Second

func newTransactions(l txnProducer, conf Config, owner []byte, partitions func() []*partitionEpochs) *transactions {
	return &transactions{
		producer: l, table: conf.Table, owner: owner, interval: conf.Interval, partitions: partitions, metrics: conf.Metrics,
		dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}), failed: make(chan struct{}),
	}
}

// run publishes until close. A record that comes after a pause is published at once; under load an interval passes from one
// transaction's begin to the next's.
func (t *transactions) run() {
	defer close(t.done)
	for {
		select {
		case <-t.dirty:
		case <-t.stop:
			return
		case <-t.failed:
			return
		}
		begin := time.Now()
		t.flush()
		select {
		case <-time.After(t.interval - time.Since(begin)):
		case <-t.stop:
			return
		}
	}
}

// close ends run. What is not published by then is not published.
func (t *transactions) close() {
	close(t.stop)
	<-t.done
}

// A closing is an epoch on its way into a transaction.
type closedEpoch struct {
	partition  *partitionEpochs
	epoch      *epoch
	lastRow    int64 // changelog offset of its newest row
	readBackTo int64 // up to here what others wrote into the changelog is answered, in this epoch or before
}

// flush publishes what callbacks have done so far, and returns when it is committed and on the disk, or has failed.
func (t *transactions) flush() {
	t.round.Lock()
	defer t.round.Unlock()
	batch := t.closeEpochs()
	if len(batch) == 0 {
		return
	}
	begin := time.Now()
	err := t.publish(batch)
	if err != nil {
		t.fail(err)
	}
	rows := 0
	for _, c := range batch {
		if err == nil {
			rows += len(c.epoch.rows)
			c.partition.transactionCommitted(c.epoch)
		}
		for _, finish := range c.epoch.promises {
			finish(nil, err) // nil: goka must not write the offset a second time
		}
	}
	if err == nil {
		t.metrics.published(rows, time.Since(begin))
	}
}

// gather closes every partition's epoch, with all callbacks outside, and leaves out those with nothing in them.
func (t *transactions) closeEpochs() []*closedEpoch {
	partitions := t.partitions()
	for _, p := range partitions {
		p.gate.Lock()
		defer p.gate.Unlock()
	}
	var batch []*closedEpoch
	for _, p := range partitions {
		if e := p.swap(); e != nil {
			batch = append(batch, &closedEpoch{partition: p, epoch: e, readBackTo: p.readBackTo.Load()})
		}
	}
	return batch
}

func (t *transactions) publish(batch []*closedEpoch) error {
	t.mu.Lock()
	err := t.err
	t.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*transactionTimeout) // a broker decides before that
	defer cancel()
	if !slices.ContainsFunc(batch, func(c *closedEpoch) bool { return len(c.epoch.records)+len(c.epoch.rows) > 0 }) {
		return t.producer.commitOffsets(ctx, inputOffsets(batch))
	}
	if err := t.producer.begin(); err != nil {
		return err
	}
	if err := t.write(ctx, batch); err != nil {
		aborting, cancel := context.WithTimeout(context.Background(), abortTimeout)
		defer cancel()
		return errors.Join(err, t.producer.end(aborting, false))
	}
	if err := t.producer.end(ctx, true); err != nil {
		return err
	}
	return t.store(batch)
}

// store writes the rows of a committed batch to the disk.
func (t *transactions) store(batch []*closedEpoch) error {
	fenced := len(inputOffsets(batch)) > 0
	for _, c := range batch {
		if len(c.epoch.rows) == 0 {
			continue
		}
		stored, err := c.partition.store.GetOffset(-1)
		if err != nil {
			return err
		}
		offset := stored
		if fenced { // without offsets nothing fences an owner that was paused: see reached
			// Not the last row's: another owner's record may lie before it that is not answered yet, and the next start has to meet it.
			offset = max(stored, min(c.lastRow, c.readBackTo-1))
		}
		if err := c.partition.storeRows(c.epoch, offset); err != nil {
			return err
		}
	}
	return nil
}

// write sends everything that belongs to the transaction, and adds the offsets when all of it is acknowledged.
func (t *transactions) write(ctx context.Context, batch []*closedEpoch) error {
	w := &pendingAcks{producer: t.producer, left: 1, done: make(chan struct{})}
	for _, c := range batch {
		for _, r := range c.epoch.records {
			w.send(r, func(offset int64) { c.partition.mirrorAcknowledged(r, offset) })
		}
		for _, r := range c.epoch.tableRecords(t.table, c.partition.store.Number(), t.owner) {
			w.send(r, func(offset int64) { c.lastRow = max(c.lastRow, offset) })
		}
	}
	go t.producer.flush(ctx)
	w.acknowledged(func(int64) {}, 0, nil) // the one that left began with
	select {
	case <-w.done:
	case <-ctx.Done():
		return fmt.Errorf("a transaction's records are not acknowledged: %w", ctx.Err())
	case <-t.failed:
	}
	w.mu.Lock()
	err := w.err
	w.mu.Unlock()
	if err != nil {
		return err
	}
	t.mu.Lock()
	err = t.err
	t.mu.Unlock()
	if err != nil {
		return err
	}
	for _, c := range batch {
		if len(c.epoch.rows) > 0 {
			c.partition.raiseChangelogEnd(c.lastRow + 1)
		}
	}
	if next := inputOffsets(batch); len(next) > 0 {
		return t.producer.addOffsets(ctx, next)
	}
	return nil
}

// commits are the input offsets of a batch, with how far the table reaches.
func inputOffsets(batch []*closedEpoch) map[partitionID]inputOffset {
	next := map[partitionID]inputOffset{}
	for _, c := range batch {
		for topic, offset := range c.epoch.nextOffsets {
			next[partitionID{topic, c.partition.store.Number()}] = inputOffset{offset, c.partition.metadata.Load().(string)}
		}
	}
	return next
}

// A writing waits for the acknowledgements of one transaction's records.
type pendingAcks struct {
	producer txnProducer
	mu       sync.Mutex
	left     int
	err      error // the first
	done     chan struct{}
}

// send sends a record, and calls landed with its offset, one record after the other.
func (w *pendingAcks) send(r *kgo.Record, landed func(offset int64)) {
	w.mu.Lock()
	w.left++
	w.mu.Unlock()
	w.producer.send(r, func(offset int64, err error) { w.acknowledged(landed, offset, err) })
}

func (w *pendingAcks) acknowledged(landed func(int64), offset int64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	if err == nil {
		landed(offset)
	}
	if w.left--; w.left == 0 {
		close(w.done)
	}
}

// fail rejects what every partition holds, and whatever comes.
func (t *transactions) fail(err error) {
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = err
	close(t.failed)
	t.mu.Unlock()
	for _, p := range t.partitions() {
		p.fail(err)
	}
}

// failure returns why nothing is published any more.
func (t *transactions) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// tableRecords are the epoch's rows, in the order of their keys.
func (e *epoch) tableRecords(table string, partition int32, owner []byte) []*kgo.Record {
	headers := []kgo.RecordHeader{{Key: ownerHeader, Value: owner}}
	records := make([]*kgo.Record, 0, len(e.rows))
	for _, key := range slices.Sorted(maps.Keys(e.rows)) {
		records = append(records, &kgo.Record{Topic: table, Partition: partition, Key: []byte(key), Value: e.rows[key].value, Headers: headers})
	}
	return records
}

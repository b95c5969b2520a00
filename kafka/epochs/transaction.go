package epochs

import (
	"cmp"
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
	// AtLeastOnce publishes in the order that Epochs describes. After a crash outputs may be repeated, byte for byte;
	// consumers drop the repeats by the identities in the outputs. It is the default.
	AtLeastOnce Guarantee = "at_least_once"
	// ExactlyOnce publishes in transactions: a read_committed consumer gets each output once, and never without its
	// row. It needs an InstanceID.
	ExactlyOnce Guarantee = "exactly_once"
)

// transactions publish the epochs of all partitions of one instance, each in one Kafka transaction:
//
//	outputs and rows → input offsets → commit → local store
//
// Callbacks meanwhile fill the next epochs: their outputs are buffered until the next transaction begins. All
// partitions' epochs are closed at one moment while no callback runs, so the effects of a callback in several
// partitions are in one transaction.
//
// The offsets are those of the callbacks that have returned, not goka's marks, which come later and which sarama would
// commit itself. They are added with the member's generation (KIP-447). So a former owner of a partition cannot add
// offsets, and its transaction is aborted. The disk gets committed rows only: a crash or an abort leaves it as it is,
// and goka recovers the rest from the changelog.
//
// After the first failure nothing more is published: the attempt ends, and the next one fences this one's transaction.
type transactions struct {
	producer   txnProducer
	pace       *pace
	partitions func() []*partitionEpochs
	metrics    *Metrics

	dirty  chan struct{} // shared with all partitions: some epoch has effects
	stop   chan struct{}
	done   chan struct{}
	failed chan struct{} // closed with err

	round sync.Mutex // locked while one transaction is collected and published
	mu    sync.Mutex
	err   error
}

// A txnProducer is a transactional producer, as transactions need it.
type txnProducer interface {
	// bind binds the following calls to the current session of the group, so that offsets of its partitions are not
	// committed in a later one.
	bind()
	// begin begins a transaction.
	begin() error
	// send is a sender.
	send(r *kgo.Record, acked func(r *kgo.Record, err error))
	// flush sends buffered records without waiting for the linger time.
	flush(ctx context.Context)
	// addOffsets adds input offsets to the transaction.
	addOffsets(ctx context.Context, next map[partitionID]inputOffset) error
	// end commits or aborts the transaction.
	end(ctx context.Context, commit bool) error
	// commitOffsets commits the offsets of records without effects, outside a transaction.
	commitOffsets(ctx context.Context, next map[partitionID]inputOffset) error
}

// An inputOffset is the next offset to read, and the metadata of its commit: see committed.ChangelogEnd.
type inputOffset struct {
	offset   int64
	metadata string
}

// transactionTimeout is the time after which a broker aborts the transaction of an instance that died. Until then
// read_committed consumers do not get past its records. A restart of the instance aborts it at once.
const transactionTimeout = 15 * time.Second

// abortTimeout limits an abort. If it fails, the next attempt aborts the transaction; consumers wait for that.
const abortTimeout = 5 * time.Second

func newTransactions(producer txnProducer, conf Config, partitions func() []*partitionEpochs,
	backlog func(partition int32) bool,
) *transactions {
	t := &transactions{
		producer: producer, partitions: partitions, metrics: conf.Metrics,
		dirty: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		failed: make(chan struct{}),
	}
	t.pace = &pace{interval: conf.Interval, stop: t.stop, failed: t.failed, worthWaiting: func() bool {
		all, waiting := partitions(), false
		for _, p := range all {
			waiting = waiting || backlog(p.store.Number())
		}
		return waiting && !slices.ContainsFunc(all, func(p *partitionEpochs) bool { return !p.hasRoom() })
	}}
	return t
}

// join makes the transactions the publisher of a partition.
func (t *transactions) join(p *partitionEpochs) {
	p.publisher, p.maxOutputs = t, maxUncommitted
}

func (t *transactions) wake() {
	select {
	case t.dirty <- struct{}{}:
	default:
	}
}

// drain publishes the effects of all callbacks so far, while the partition that is closed is still registered.
func (t *transactions) drain() { t.flush() }

// run publishes until close.
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
		t.pace.await()
		t.flush()
	}
}

// close ends run. Effects that are not published yet are dropped.
func (t *transactions) close() {
	close(t.stop)
	<-t.done
}

// A closedEpoch is the epoch of a partition in a transaction.
type closedEpoch struct {
	partition *partitionEpochs
	epoch     *epoch
	rows      []*kgo.Record // its table records
	lastRow   int64         // changelog offset of the newest
}

// acked notes the offsets of its records.
func (c *closedEpoch) acked() {
	c.partition.outputsAcked(c.epoch)
	if len(c.rows) > 0 {
		rows, foreignFrom := c.partition.rowsAcked(c.rows)
		c.lastRow, c.epoch.foreignFrom = rows.last, min(c.epoch.foreignFrom, foreignFrom)
	}
}

// flush publishes the effects of all callbacks so far, and returns when they are committed and on the disk, or it has
// failed.
func (t *transactions) flush() {
	t.round.Lock()
	defer t.round.Unlock()
	t.producer.bind()
	batch := t.closeEpochs()
	if len(batch) == 0 {
		return
	}
	begin := time.Now()
	if err := t.publish(batch); err != nil {
		t.fail(err)
		return
	}
	rows := 0
	for _, c := range batch {
		rows += len(c.epoch.rows)
		c.partition.transactionCommitted(c.epoch)
		for topic, next := range c.epoch.nextOffsets {
			c.partition.noteInput(topic, next)
		}
	}
	t.metrics.published(rows, time.Since(begin))
}

// transactionCommitted notes that the transaction of an epoch is committed.
func (p *partitionEpochs) transactionCommitted(e *epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.ContainsFunc(e.outputs, p.isMirrorRecord) {
		p.mirror.transactionCommitted()
	}
	if len(e.rows) > 0 {
		p.table.transactionCommitted()
	}
}

// closeEpochs closes the epochs of all partitions while no callback runs, and leaves out empty ones.
func (t *transactions) closeEpochs() []*closedEpoch {
	partitions := t.partitions()
	for _, p := range partitions {
		p.gate.Lock()
		defer p.gate.Unlock()
	}
	var batch []*closedEpoch
	for _, p := range partitions {
		if e := p.swap(); e != nil {
			batch = append(batch, &closedEpoch{partition: p, epoch: e})
		}
	}
	return batch
}

func (t *transactions) publish(batch []*closedEpoch) error {
	if err := t.failure(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*transactionTimeout) // a broker aborts it before that
	defer cancel()
	if !slices.ContainsFunc(batch, func(c *closedEpoch) bool { return len(c.epoch.outputs)+len(c.epoch.rows) > 0 }) {
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
		if fenced { // without offsets a zombie is not fenced: see nextStoreOffset
			// Not always that of the last row: a foreign record before it may not be handled yet, and the next start
			// must recover it.
			offset = max(stored, min(c.lastRow, c.epoch.foreignFrom-1))
		}
		if err := c.partition.storeRows(c.epoch, offset); err != nil {
			return err
		}
	}
	return nil
}

// write sends all records of the transaction, and adds the offsets when they are acknowledged.
func (t *transactions) write(ctx context.Context, batch []*closedEpoch) error {
	var records [][]*kgo.Record
	for _, c := range batch {
		c.rows = c.partition.tableRecords(c.epoch)
		records = append(records, c.epoch.outputs, c.rows)
	}
	sent := deliver(t.producer.send, records...)
	go t.producer.flush(ctx)
	select {
	case <-sent.done:
	case <-ctx.Done():
		return fmt.Errorf("a transaction's records are not acknowledged: %w", ctx.Err())
	case <-t.failed:
	}
	if err := cmp.Or(sent.failure(), t.failure()); err != nil {
		return err
	}
	for _, c := range batch {
		c.acked()
		if len(c.epoch.rows) > 0 {
			c.partition.raiseChangelogEnd(c.lastRow + 1)
		}
	}
	if next := inputOffsets(batch); len(next) > 0 {
		return t.producer.addOffsets(ctx, next)
	}
	return nil
}

// inputOffsets returns the offsets to commit with a batch.
func inputOffsets(batch []*closedEpoch) map[partitionID]inputOffset {
	next := map[partitionID]inputOffset{}
	for _, c := range batch {
		for topic, offset := range c.offsets() {
			next[partitionID{topic, c.partition.store.Number()}] = inputOffset{
				offset,
				c.partition.metadata.Load().(string),
			}
		}
	}
	return next
}

// offsets returns the offsets to commit with the epoch; if it has only rows, those that are committed: see noteInput.
func (c *closedEpoch) offsets() map[string]int64 {
	if len(c.epoch.nextOffsets) > 0 || len(c.epoch.rows) == 0 {
		return c.epoch.nextOffsets
	}
	c.partition.mu.Lock()
	defer c.partition.mu.Unlock()
	return maps.Clone(c.partition.committedOffsets)
}

// fail fails all partitions.
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

// failure returns the first failure.
func (t *transactions) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

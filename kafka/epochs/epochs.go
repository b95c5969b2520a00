package epochs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
	"tidemark/kafka/producer"
)

// Epochs give the effects of a goka processor exactly once, without changing goka.
//
// goka writes a row to the store, then to the changelog, and does not order a callback's outputs with either; a crash in
// between leaves a row whose outputs can neither be made again nor be skipped. Epochs publish in the other order:
//
//	outputs → table rows → local store → commit
//
// Outputs go out at once. Rows are held, the newest per key, until every output before them on that partition is
// acknowledged; then they are sent, and when they are acknowledged too they are written to the local store, with their
// changelog offset, in one batch; then goka's promises are finished, and its offsets are committed. So a row that is found
// after a crash proves that the outputs of all its events are in the log, and an event whose row is not found is folded
// again from the same row and gives the same bytes. Each partition has epochs of its own: a slow one holds up no other.
//
// A failed send rejects everything that is held; none of it was visible. The processor then ends, and whoever supervises it
// starts it again from the committed prefix.
//
// With ExactlyOnce the epochs of all partitions are published together, in transactions: see there.
type Epochs struct {
	conf           Config
	store          *localstore.Store     // of the group's table
	tableID        string                // id of the table's log: see committed.Standing
	client         *kgo.Client           // set by goka's start: see producerBuilder
	readback       *readback             // likewise
	detector       *foreignWriteDetector // likewise, unless there is nothing to look out for
	txnProducer    *kafkaTxnProducer     // likewise, as the next one only with ExactlyOnce
	transactions   *transactions
	owner          []byte
	callbacks      int // callbacks
	mu             sync.RWMutex
	byPartition    map[int32]*partitionEpochs
	preparedQueues map[partitionID]*preparedQueue

	closed    chan struct{} // by the producer's Close
	touchDone chan struct{} // closed when renew has ended
	failed    chan struct{} // closed with fault
	err       error         // the first of any partition; guarded by mu
}

// Limits of one partition. A consumer that tells repeats by their positions may rely on the first.
const (
	maxUnacked       = 1000    // outputs sent and not acknowledged
	maxBufferedBytes = 8 << 20 // bytes of rows not yet in the local store, and of outputs not acknowledged
	// maxUncommitted takes the place of the first where nothing is seen out of order, or twice.
	maxUncommitted = 4000
)

var (
	errNotReturned = errors.New("a callback did not return")
	errClosed      = errors.New("the partition was given up while this was in flight")
)

// newEpochs returns the epochs of one processor. They are good for one Run of it.
func newEpochs(conf Config, store *localstore.Store, tableLog string) *Epochs {
	return &Epochs{
		conf: conf, store: store, tableID: tableLog, owner: newOwner(),
		byPartition: make(map[int32]*partitionEpochs), preparedQueues: make(map[partitionID]*preparedQueue),
		closed: make(chan struct{}), touchDone: make(chan struct{}), failed: make(chan struct{}),
	}
}

// options are what the processor must be built with, after any other option.
func (e *Epochs) options() []goka.ProcessorOption {
	return []goka.ProcessorOption{
		goka.WithProducerBuilder(e.producerBuilder),
		goka.WithStorageBuilder(e.storageBuilder),
		goka.WithConsumerGroupBuilder(e.groupBuilder),
		goka.WithUpdateCallback(e.applyRecovered),
		goka.WithTopicManagerBuilder(committed.TopicManager(e.conf.Cluster, e.minEnd)),
	}
}

// Callback wraps the processor's callback, so that an epoch never closes in the middle of one. The message is what Prepare
// returned for the record, and without a Prepare what goka decoded.
func (e *Epochs) Callback(callback goka.ProcessCallback) goka.ProcessCallback {
	e.callbacks++
	return func(ctx goka.Context, message any) {
		prepared, found := e.takePrepared(ctx)
		if !found {
			e.reject(ctx, fmt.Errorf("%s/%d: no record was prepared for offset %d", ctx.Topic(), ctx.Partition(), ctx.Offset()))
			return
		}
		if e.conf.Prepare != nil {
			message = prepared
		}
		p := e.partition(ctx.Partition())
		if p == nil {
			e.reject(ctx, fmt.Errorf("partition %d: %w", ctx.Partition(), errClosed))
			return
		}
		if err := p.enter(); err != nil {
			e.reject(ctx, err)
			return
		}
		returned := false
		defer func() {
			if !returned { // what the callback did before it panicked is half of an effect
				p.fail(errNotReturned)
			}
			p.gate.Unlock()
		}()
		callback(&gatedContext{gokaContext: ctx, epochs: p}, message)
		returned = true
		if err := p.failure(); err != nil { // perhaps the callback's own, which it did not hear of
			e.reject(ctx, err)
			return
		}
		p.callbackReturned(string(ctx.Topic()), ctx.Offset())
	}
}

// refuse ends the processor without the record's callback. Nothing after it may be committed.
func (e *Epochs) reject(ctx goka.Context, err error) {
	if e.transactions != nil {
		e.transactions.fail(err)
	}
	ctx.DeferCommit()(err)
}

func (e *Epochs) partition(number int32) *partitionEpochs {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byPartition[number]
}

// producerBuilder is called by goka once per Run, before any partition is assigned.
func (e *Epochs) producerBuilder(brokers []string, clientID string, _ func() hash.Hash32) (goka.Producer, error) {
	open := e.conf.opener(kgo.SeedBrokers(brokers...), kgo.ClientID(clientID))
	if err := e.openProducer(open); err != nil {
		return nil, err
	}
	var err error
	if e.readback, err = startReadback(open, e.conf.Table, e.owner, e.conf.Log, e.partition); err != nil {
		e.client.Close()
		return nil, err
	}
	if e.conf.Mirror != nil {
		if e.detector, err = startForeignWriteDetector(e.conf, open, e.partitions); err != nil {
			e.readback.close()
			e.client.Close()
			return nil, err
		}
	}
	if e.transactions != nil {
		go e.transactions.run()
	}
	go e.touchPartitions()
	return &epochProducer{epochs: e}, nil
}

// openProducer opens the client that publishes, to partitions that are chosen here.
func (e *Epochs) openProducer(open opener) (err error) {
	safe := append(producer.Options(e.conf.MaxMessageBytes), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if e.conf.Guarantee != ExactlyOnce {
		e.client, err = open(append(safe, kgo.ProducerLinger(2*time.Millisecond))...)
		return err
	}
	if e.txnProducer, err = openTxnProducer(e.conf, open, safe...); err != nil {
		return err
	}
	e.client = e.txnProducer.client
	e.transactions = newTransactions(e.txnProducer, e.conf, e.owner, e.partitions)
	return nil
}

// partitions returns the epochs of all partitions, in their order.
func (e *Epochs) partitions() []*partitionEpochs {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]*partitionEpochs, 0, len(e.byPartition))
	for _, number := range slices.Sorted(maps.Keys(e.byPartition)) {
		all = append(all, e.byPartition[number])
	}
	return all
}

// storageBuilder is called by goka when a partition is assigned; the partition's epochs live as long as its storage.
func (e *Epochs) storageBuilder(topic string, partition int32) (storage.Storage, error) {
	if topic != e.conf.Table {
		return nil, fmt.Errorf("epochs keep the table %s, not %s: joins and lookups need a storage of their own", e.conf.Table, topic)
	}
	shelf, err := e.store.Partition(partition)
	if err != nil {
		return nil, err
	}
	p := newPartitionEpochs(e.conf, e.owner, shelf, e.send)
	p.onFailure, p.changelogEnd.Table = e.fail, e.tableID
	if err := p.loadPendingRewrites(); err != nil {
		return nil, err
	}
	if e.transactions != nil {
		p.transactions, p.dirty = e.transactions, e.transactions.dirty
	} else {
		go p.run()
	}
	e.mu.Lock()
	e.byPartition[partition] = p
	e.mu.Unlock()
	if e.transactions != nil {
		if err := e.transactions.failure(); err != nil {
			p.fail(err)
		}
	}
	return &epochStorage{Partition: shelf, partitionEpochs: p, epochs: e}, nil
}

// cause returns why the processor ended. When a transaction fails goka's error repeats that for each record in it.
func (e *Epochs) cause(err error) error {
	if e.transactions == nil {
		return err
	}
	if first := e.transactions.failure(); first != nil && !errors.Is(first, errClosed) && !errors.Is(first, errNotReturned) {
		return first
	}
	return err
}

// abandon gives up on everything in flight.
func (e *Epochs) failAll(why error) {
	for _, p := range e.partitions() {
		p.fail(why)
	}
}

// fail notes the first failure of any partition: not every record has a promise that would tell goka.
func (e *Epochs) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
		close(e.failed)
	}
}

// begin is called once before the first record of a partition, of whichever input: its rows are those of the changelog's end, which
// is read back from there on. What goka itself calls recovered may have been cut short by the end of the session.
func (e *Epochs) startPartition(p *partitionEpochs) {
	offset, err := p.store.GetOffset(-1)
	p.raiseChangelogEnd(offset + 1)
	if err == nil && e.follow(p, offset+1) {
		err = p.writePendingRewrites()
	}
	if err != nil {
		p.fail(err)
	}
}

// follow has a partition's changelog read back from an offset on, unless it was given up.
func (e *Epochs) follow(p *partitionEpochs, from int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byPartition[p.store.Number()] != p {
		return false
	}
	p.readBackTo.Store(from)
	p.recovered.Store(true)
	e.readback.follow(p.store.Number(), from)
	return true
}

// forget ends a partition's epochs.
func (e *Epochs) removePartition(partition int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readback.unfollow(partition)
	delete(e.byPartition, partition)
}

// recover writes a changelog record, read while goka recovers the table, straight to the disk: it is published already. A row that a
// foreign null came after is kept, and written again once the table is recovered.
func (e *Epochs) applyRecovered(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	older, p := false, e.partition(ctx.Partition())
	owe := func(w *localstore.Writer) {
		if p != nil {
			p.storePendingRewrite(w, key, older)
		}
	}
	err := e.store.Update(ctx.Partition(), ctx.Offset(), func(w *localstore.Writer) error {
		stored, err := w.Get(localstore.Rows, []byte(key))
		if err != nil {
			return err
		}
		switch {
		case value == nil && hasOwnerHeader(ctx.Headers()):
			w.Delete(localstore.Rows, []byte(key))
			e.conf.recoverIndex(w, key, stored, nil)
		case value == nil:
			older = stored != nil
		default:
			if older = stored != nil && e.conf.Older(value, stored); !older {
				w.Set(localstore.Rows, []byte(key), value)
				e.conf.recoverIndex(w, key, stored, value)
			}
		}
		owe(w)
		return nil
	})
	if p != nil && err == nil {
		p.noteRecovered(key, older)
	}
	return err
}

func (e *Epochs) send(r *kgo.Record, done func(offset int64, err error)) { send(e.client, r, done) }

// send produces to a partition and calls done from the client's goroutine, exactly once.
func send(client *kgo.Client, r *kgo.Record, done func(offset int64, err error)) {
	client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			err = fmt.Errorf("produce to %s: %w", r.Topic, err)
		}
		done(r.Offset, err)
	})
}

// An epochProducer is what goka emits to: outputs and changelog records alike.
type epochProducer struct{ epochs *Epochs }

func (p *epochProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p *epochProducer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	number := p.epochs.conf.PartitionOf(topic, key, headers)
	partition := p.epochs.partition(number)
	switch {
	case partition == nil: // the callback's own partition, which cannot be told, must not go on without it
		err := fmt.Errorf("output to %s for partition %d: %w", topic, number, errClosed)
		p.epochs.failAll(err)
		finish(nil, err)
	case topic == p.epochs.conf.Table:
		partition.addTablePromise(key, finish)
	default:
		partition.output(&kgo.Record{Topic: topic, Partition: number, Key: []byte(key), Value: value, Headers: producer.Headers(headers)}, finish)
	}
	return promise
}

func (p *epochProducer) Close() error {
	close(p.epochs.closed)
	<-p.epochs.touchDone
	if p.epochs.transactions != nil {
		p.epochs.transactions.close()
	}
	p.epochs.detector.close()
	p.epochs.readback.close()
	return producer.Close(p.epochs.client)
}

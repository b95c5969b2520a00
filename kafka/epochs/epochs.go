package epochs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
// goka writes a row to the store, then to the changelog, and does not order a callback's outputs with either. A crash
// in between leaves a row whose outputs are missing and cannot be computed again. Epochs publish in the opposite order:
//
//	outputs → table rows → local store → commit
//
// Outputs are sent at once. Rows are buffered, the newest per key, until every output before them on that partition is
// acknowledged. Then they are sent. When they are acknowledged too, they are written to the local store together with
// their changelog offset, in one batch. Then goka's promises are finished, and its offsets are committed. So a row that
// is found after a crash proves that the outputs of all its inputs are in the log. An input whose row is not found is
// processed again with the same row before it, and gives the same bytes. Each partition has its own epochs, so a slow
// one delays no other.
//
// A failed send rejects everything that is buffered; none of it was visible. The processor then ends, and its Group
// starts the next one from the committed prefix.
//
// With ExactlyOnce the epochs of all partitions are published together in transactions: see type transactions.
type Epochs struct {
	conf           Config
	store          *localstore.Store     // of the group's table
	tableID        string                // TopicID of the table, as text
	client         *kgo.Client           // set when goka starts: see producerBuilder
	readback       *readback             // likewise
	detector       *foreignWriteDetector // likewise; nil without a mirror
	txnProducer    *kafkaTxnProducer     // likewise; like the next field only with ExactlyOnce
	transactions   *transactions
	owner          []byte
	callbacks      int // how many Callback has wrapped
	mu             sync.RWMutex
	byPartition    map[int32]*partitionEpochs
	preparedQueues map[partitionID]*preparedQueue
	cacheShare     atomic.Int64 // of Config.RowCache, of each partition

	closed    chan struct{} // by the producer's Close
	touchDone chan struct{} // closed when touchPartitions has returned
	failed    chan struct{} // closed when err is set
	err       error         // the first failure of any partition; guarded by mu
}

// Limits of one partition. A consumer that recognises repeated outputs by their positions may rely on the first.
const (
	maxUnacked       = 1000    // outputs that are sent and not acknowledged
	maxBufferedBytes = 8 << 20 // bytes of rows not in the local store, and of outputs not acknowledged
	// maxUncommitted replaces maxUnacked in transactions, where no output is repeated or seen out of order.
	maxUncommitted = 4000
)

var (
	errNotReturned = errors.New("a callback did not return")
	errClosed      = errors.New("the partition was revoked or closed while this was in flight")
)

// newEpochs returns the epochs of one processor, for one Run.
func newEpochs(conf Config, store *localstore.Store, tableLog string) *Epochs {
	return &Epochs{
		conf: conf, store: store, tableID: tableLog, owner: newOwner(),
		byPartition: make(map[int32]*partitionEpochs), preparedQueues: make(map[partitionID]*preparedQueue),
		closed: make(chan struct{}), touchDone: make(chan struct{}), failed: make(chan struct{}),
	}
}

// options returns the options that the processor needs, after all others.
func (e *Epochs) options() []goka.ProcessorOption {
	return []goka.ProcessorOption{
		goka.WithProducerBuilder(e.producerBuilder),
		goka.WithStorageBuilder(e.storageBuilder),
		goka.WithConsumerGroupBuilder(e.groupBuilder),
		goka.WithUpdateCallback(e.applyRecovered),
		goka.WithTopicManagerBuilder(committed.TopicManager(e.conf.Cluster, e.minEnd)),
	}
}

// Callback wraps a callback of the processor, so that an epoch is never closed while it runs. The message is what
// Prepare returned for the record; without Prepare, what goka decoded.
func (e *Epochs) Callback(callback goka.ProcessCallback) goka.ProcessCallback {
	e.callbacks++
	return func(ctx goka.Context, message any) {
		prepared, found := e.takePrepared(ctx)
		if !found {
			e.reject(ctx, fmt.Errorf("%s/%d: no record was prepared for offset %d", ctx.Topic(), ctx.Partition(),
				ctx.Offset()))
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
			if !returned { // after a panic the epoch has a part of the callback's effects
				p.fail(errNotReturned)
			}
			p.gate.Unlock()
		}()
		callback(&gatedContext{gokaContext: ctx, epochs: p}, message)
		returned = true
		if err := p.failure(); err != nil { // perhaps of this callback's effects
			e.reject(ctx, err)
			return
		}
		p.callbackReturned(string(ctx.Topic()), ctx.Offset())
	}
}

// reject ends the processor before the record's callback. Nothing from this record on may be committed.
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

// producerBuilder is called by goka once per Run, before partitions are assigned.
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

// openProducer opens the client that publishes. The partition of each record is set here, not by a partitioner.
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

// partitions returns the epochs of all assigned partitions, in partition order.
func (e *Epochs) partitions() []*partitionEpochs {
	e.mu.RLock()
	defer e.mu.RUnlock()
	all := make([]*partitionEpochs, 0, len(e.byPartition))
	for _, number := range slices.Sorted(maps.Keys(e.byPartition)) {
		all = append(all, e.byPartition[number])
	}
	return all
}

// storageBuilder is called by goka when a partition is assigned. Its epochs exist until the storage is closed.
func (e *Epochs) storageBuilder(topic string, partition int32) (storage.Storage, error) {
	if topic != e.conf.Table {
		return nil, fmt.Errorf("epochs store the table %s, not %s: joins and lookups need another storage",
			e.conf.Table, topic)
	}
	store, err := e.store.Partition(partition)
	if err != nil {
		return nil, err
	}
	p := newPartitionEpochs(e.conf, e.owner, store, e.send)
	p.cache.share = e.cacheShare.Load
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
	e.shareCache()
	e.mu.Unlock()
	if e.transactions != nil {
		if err := e.transactions.failure(); err != nil {
			p.fail(err)
		}
	}
	return &epochStorage{Partition: store, partitionEpochs: p, epochs: e}, nil
}

// cause returns why the processor ended. When a transaction fails, goka's own error repeats the cause for each record
// of it.
func (e *Epochs) cause(err error) error {
	if e.transactions == nil {
		return err
	}
	if first := e.transactions.failure(); first != nil && !errors.Is(first, errClosed) &&
		!errors.Is(first, errNotReturned) {
		return first
	}
	return err
}

// failAll fails all partitions.
func (e *Epochs) failAll(why error) {
	for _, p := range e.partitions() {
		p.fail(why)
	}
}

// fail notes the first failure of any partition. goka may not know of it: not every record has a promise.
func (e *Epochs) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
		close(e.failed)
	}
}

// startPartition is called once, before the first record of a partition from any input. Its rows are recovered up to
// the end of the changelog, which is read back from there on. goka's MarkRecovered is not used: it is also called when
// the session ended meanwhile.
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

// follow starts to read back a partition's changelog from an offset on, unless the partition is closed.
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

// removePartition unregisters a partition that is closed.
func (e *Epochs) removePartition(partition int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.readback.unfollow(partition)
	delete(e.byPartition, partition)
	e.shareCache()
}

// shareCache divides the row cache among the assigned partitions; e.mu is locked.
func (e *Epochs) shareCache() {
	e.cacheShare.Store(e.conf.RowCache / int64(max(1, len(e.byPartition))))
}

// applyRecovered writes a changelog record that goka recovers to the disk: it is published already. A row that another
// writer's null follows is kept, and written to the changelog again once the table is recovered.
func (e *Epochs) applyRecovered(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	older, p := false, e.partition(ctx.Partition())
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
		if p != nil {
			p.storePendingRewrite(w, key, older)
		}
		return nil
	})
	if p != nil && err == nil {
		p.noteRecovered(key, older)
	}
	return err
}

func (e *Epochs) send(r *kgo.Record, done func(offset int64, err error)) { send(e.client, r, done) }

// send produces a record and calls done once, from a goroutine of the client.
func send(client *kgo.Client, r *kgo.Record, done func(offset int64, err error)) {
	client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			err = fmt.Errorf("produce to %s: %w", r.Topic, err)
		}
		done(r.Offset, err)
	})
}

// An epochProducer is the goka.Producer: it gets outputs and changelog records.
type epochProducer struct{ epochs *Epochs }

func (p *epochProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p *epochProducer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	number := p.epochs.conf.PartitionOf(topic, key, headers)
	partition := p.epochs.partition(number)
	switch {
	case partition == nil: // it is unknown which partition's callback emitted it, so none may go on
		err := fmt.Errorf("output to %s for partition %d: %w", topic, number, errClosed)
		p.epochs.failAll(err)
		finish(nil, err)
	case topic == p.epochs.conf.Table:
		partition.addTablePromise(key, finish)
	default:
		r := &kgo.Record{
			Topic: topic, Partition: number, Key: []byte(key), Value: value,
			Headers: producer.Headers(headers),
		}
		partition.output(r, finish)
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

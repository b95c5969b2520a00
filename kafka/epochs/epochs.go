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
// Outputs and rows, the newest per key, are buffered while the epoch is open. When it is closed, its outputs are sent,
// and when all of them are acknowledged, its rows. When these are acknowledged too, they are written to the local store
// together with their changelog offset, in one batch. Then the offset after the last input is committed. So a row that
// is found after a crash proves that the outputs of all its inputs are in the log. An input whose row is not found is
// processed again with the same row before it, and gives the same bytes. Each partition has its own epochs, so a slow
// one delays no other.
//
// After a failed send nothing more is published, and no row of the epoch was visible. The processor then ends, and
// its Group starts the next one from the committed offsets.
//
// With ExactlyOnce the epochs of all partitions are published together in transactions: see type transactions.
type Epochs struct {
	conf         Config
	codecs       *codecs
	store        *localstore.Store // of the group's table
	tableID      string            // TopicID of the table, as text
	client       *kgo.Client       // set when goka starts: see producerBuilder
	guard        *guard            // likewise
	txnProducer  *kafkaTxnProducer // likewise; like the next field only with ExactlyOnce
	transactions *transactions
	callbacks    int // how many Callback has wrapped

	mu          sync.RWMutex
	session     *session // of the consumer group
	byPartition map[int32]*partitionEpochs
	inputs      map[partitionID]*input
	cacheShare  atomic.Int64 // of Config.RowCache, of each partition

	closed    chan struct{} // by the producer's Close
	touchDone chan struct{} // closed when touchPartitions has returned
	failed    chan struct{} // closed when err is set
	err       error         // the first failure of any partition; guarded by mu
}

// Limits of one partition. A consumer that recognises repeated outputs by their positions may rely on the first.
const (
	maxUnacked       = 1000    // outputs that are buffered, or sent and not acknowledged
	maxBufferedBytes = 8 << 20 // bytes of rows not in the local store, and of outputs not acknowledged
	// maxUncommitted replaces maxUnacked in transactions, where no output is repeated or seen out of order.
	maxUncommitted = 3000
)

var (
	errNotReturned = errors.New("a callback did not return")
	errClosed      = errors.New("the partition was revoked or closed while this was in flight")
)

// newEpochs returns the epochs of one processor, for one Run.
func newEpochs(conf Config, store *localstore.Store, tableLog string) *Epochs {
	return &Epochs{
		conf: conf, store: store, tableID: tableLog,
		byPartition: make(map[int32]*partitionEpochs), inputs: make(map[partitionID]*input),
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
		goka.WithTopicManagerBuilder(e.topicManagerBuilder),
	}
}

// Callback wraps a callback of the processor, so that an epoch is never closed while it runs. The message is what
// Prepare returned for the record; without Prepare, what goka decoded.
func (e *Epochs) Callback(callback goka.ProcessCallback) goka.ProcessCallback {
	e.callbacks++
	return func(ctx goka.Context, message any) {
		input, p := e.inputOf(ctx), e.partition(ctx.Partition())
		if input == nil || p == nil {
			e.reject(ctx, p, fmt.Errorf("partition %d: %w", ctx.Partition(), errClosed))
			return
		}
		prepared, found := input.take(ctx.Offset())
		if !found {
			e.reject(ctx, p, fmt.Errorf("%s/%d: no record was prepared for offset %d", ctx.Topic(), ctx.Partition(),
				ctx.Offset()))
			return
		}
		if e.conf.Prepare != nil {
			message = prepared
		}
		if err := e.run(callback, ctx, p, message); err != nil {
			e.reject(ctx, p, err)
			return
		}
		input.callbackReturned(ctx.Offset())
	}
}

// run runs a callback within an epoch of its partition.
func (e *Epochs) run(callback goka.ProcessCallback, ctx goka.Context, p *partitionEpochs, message any) error {
	if err := p.enter(); err != nil {
		return err
	}
	returned := false
	defer func() {
		if !returned { // after a panic the epoch has a part of the callback's effects
			p.fail(errNotReturned)
		}
		p.gate.Unlock()
	}()
	callback(&gatedContext{gokaContext: ctx, epochs: p, codecs: e.codecs}, message)
	returned = true
	if err := p.failure(); err != nil { // perhaps of this callback's effects
		return err
	}
	p.callbackReturned(string(ctx.Topic()), ctx.Offset())
	return nil
}

// reject ends the processor before the record's callback. Nothing from this record on may be committed, and goka may
// call the next one. p is nil when the partition is closed.
func (e *Epochs) reject(ctx goka.Context, p *partitionEpochs, err error) {
	if p != nil {
		p.fail(err)
	} else if e.transactions != nil {
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
	if e.guard, err = startGuard(e.conf, open, e.partitions); err != nil {
		e.client.Close()
		return nil, err
	}
	if e.transactions != nil {
		go e.transactions.run()
	}
	go e.touchPartitions()
	go e.logRecovery(e.closed)
	return &noProducer{epochs: e}, nil
}

// openProducer opens the client that publishes. The partition of each record is set here, not by a partitioner.
func (e *Epochs) openProducer(open opener) (err error) {
	safe := append(producer.Options(e.conf.MaxMessageBytes), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if e.conf.Guarantee != ExactlyOnce {
		e.client, err = open(append(safe, kgo.ProducerLinger(time.Millisecond))...)
		return err
	}
	if e.txnProducer, err = openTxnProducer(e.conf, open, safe...); err != nil {
		return err
	}
	e.client = e.txnProducer.client
	e.transactions = newTransactions(e.txnProducer, e.conf, e.partitions, e.backlog)
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
	if e.transactions != nil {
		if err := e.transactions.failure(); err != nil { // of an earlier session: nothing would be published
			return nil, err
		}
	}
	store, err := e.store.Partition(partition)
	if err != nil {
		return nil, err
	}
	p := newPartitionEpochs(e.conf, store)
	p.rows.share = e.cacheShare.Load
	p.onFailure, p.changelogEnd.Table = e.fail, e.tableID
	p.open.recovery = true
	if err := p.loadPendingRewrites(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	session := e.session
	e.mu.Unlock()
	if e.transactions != nil {
		e.transactions.join(p)
	} else {
		startPipeline(p, func() bool { return e.backlog(partition) }, e.send,
			func(topic string, next int64, metadata string) { session.commit(topic, partition, next, metadata) })
	}
	e.mu.Lock()
	e.byPartition[partition] = p
	e.shareCache()
	e.mu.Unlock()
	go p.fillKeys()
	return &epochStorage{Partition: store, epochs: e, partition: p}, nil
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

// fail notes the first failure of any partition. goka does not know of it: it does not publish.
func (e *Epochs) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = err
		close(e.failed)
	}
}

// removePartition unregisters a partition that is closed.
func (e *Epochs) removePartition(partition int32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byPartition, partition)
	e.shareCache()
}

// shareCache divides the row cache among the assigned partitions; e.mu is locked.
func (e *Epochs) shareCache() {
	e.cacheShare.Store(e.conf.RowCache / int64(max(1, len(e.byPartition))))
}

// send is a sender.
func (e *Epochs) send(r *kgo.Record, acked func(r *kgo.Record, err error)) {
	e.client.Produce(context.Background(), r, acked)
}

// noProducer is the goka.Producer. A gatedContext emits in its place; its Close ends what producerBuilder started.
type noProducer struct{ epochs *Epochs }

func (p *noProducer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

// EmitWithHeaders is not called for what a callback emits. It fails all partitions, because it is not known which
// callback called it.
func (p *noProducer) EmitWithHeaders(topic, _ string, _ []byte, _ goka.Headers) *goka.Promise {
	err := fmt.Errorf("a record for %s was not emitted through the context of a callback", topic)
	p.epochs.failAll(err)
	promise, finish := goka.NewPromiseWithFinisher()
	finish(nil, err)
	return promise
}

func (p *noProducer) Close() error {
	close(p.epochs.closed)
	<-p.epochs.touchDone
	if p.epochs.transactions != nil {
		p.epochs.transactions.close()
	}
	p.epochs.guard.close()
	return producer.Close(p.epochs.client)
}

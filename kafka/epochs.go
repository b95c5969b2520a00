package kafka

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
	"github.com/twmb/franz-go/pkg/kgo"
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
type Epochs struct {
	conf        EpochConfig
	client      *kgo.Client // set by goka's start: see producerBuilder
	readback    *readback   // likewise
	owner       []byte
	mu          sync.RWMutex
	byPartition map[int32]*partitionEpochs
	inboxes     map[int32]*inbox
}

// EpochConfig describes the processor whose effects are to be exact.
type EpochConfig struct {
	Kafka   Config
	Store   *Store // of the group's table
	Table   string // the group table's topic
	Log     *slog.Logger
	Metrics *Metrics

	// InstanceID, when it is set, makes this a static member of the group: a restart under the same id takes its partitions
	// back at once, where the group would wait for the session of a killed one to expire.
	InstanceID string
	// Prepare is called once for each record before goka sees it, ahead of its callback and on another goroutine. It may
	// rewrite the record's key; what it returns is handed to the callback.
	Prepare Prepare
	// Older says that a record of the table is older than the row that is stored already. Compaction keeps the last record,
	// not the newest: an owner that was paused may have appended after its successor.
	Older func(record, stored []byte) bool
	// PartitionOf returns the input partition that an output belongs to.
	PartitionOf func(topic, key string, headers goka.Headers) int32
	// Interval is how long an epoch stays open after its first record, unless the one before it takes longer to publish.
	Interval time.Duration
}

// Limits of one partition. A consumer that tells repeats by their positions relies on the first: see file.Count.
const (
	maxUnacked = 1000    // outputs sent and not acknowledged
	maxHeld    = 8 << 20 // bytes of rows not yet in the local store
)

// NewEpochs returns the epochs of one processor. They are good for one Run of it.
func NewEpochs(conf EpochConfig) *Epochs {
	return &Epochs{conf: conf, owner: newOwner(), byPartition: make(map[int32]*partitionEpochs), inboxes: make(map[int32]*inbox)}
}

// Options are what the processor must be built with, after any other option.
func (e *Epochs) Options() []goka.ProcessorOption {
	return []goka.ProcessorOption{
		goka.WithProducerBuilder(e.producerBuilder),
		goka.WithStorageBuilder(e.storageBuilder),
		goka.WithConsumerGroupBuilder(e.groupBuilder),
		goka.WithUpdateCallback(e.recover),
	}
}

// Callback wraps the processor's callback, so that an epoch never closes in the middle of one. The message is what Prepare
// returned for the record.
func (e *Epochs) Callback(callback goka.ProcessCallback) goka.ProcessCallback {
	return func(ctx goka.Context, _ any) {
		message, found := e.prepared(ctx)
		if !found {
			ctx.DeferCommit()(fmt.Errorf("partition %d: no record was prepared for offset %d", ctx.Partition(), ctx.Offset()))
			return
		}
		p := e.partition(ctx.Partition())
		if p == nil {
			ctx.DeferCommit()(fmt.Errorf("partition %d: %w", ctx.Partition(), errClosed))
			return
		}
		if err := p.enter(); err != nil {
			ctx.DeferCommit()(err)
			return
		}
		returned := false
		defer func() {
			if !returned { // what the callback did before it panicked is half of an effect
				p.fail(errors.New("a callback did not return"))
			}
			p.gate.Unlock()
		}()
		callback(&gatedContext{gokaContext: ctx, epochs: p}, message)
		returned = true
	}
}

// A gatedContext poisons the epoch when the callback fails: while goka is stopping, its Fail returns and the callback goes on.
type gatedContext struct {
	gokaContext
	epochs *partitionEpochs
}

// gokaContext is embedded under this name because the interface has a method Context.
type gokaContext = goka.Context

func (c *gatedContext) Fail(err error) {
	c.epochs.fail(err)
	c.gokaContext.Fail(err)
}

func (e *Epochs) partition(number int32) *partitionEpochs {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.byPartition[number]
}

// producerBuilder is called by goka once per Run, before any partition is assigned.
func (e *Epochs) producerBuilder(brokers []string, clientID string, _ func() hash.Hash32) (goka.Producer, error) {
	conf := e.conf.Kafka
	conf.Brokers, conf.ClientID = brokers, clientID
	client, err := newProducer(conf, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(2*time.Millisecond))
	if err != nil {
		return nil, err
	}
	e.client = client
	if e.readback, err = startReadback(conf, e.conf.Table, e.owner, e.conf.Log, e.partition); err != nil {
		client.Close()
		return nil, err
	}
	return &epochProducer{epochs: e}, nil
}

// storageBuilder is called by goka when a partition is assigned; the partition's epochs live as long as its storage.
func (e *Epochs) storageBuilder(topic string, partition int32) (storage.Storage, error) {
	if topic != e.conf.Table {
		return nil, fmt.Errorf("epochs keep the table %s, not %s: joins and lookups need a storage of their own", e.conf.Table, topic)
	}
	shelf, err := newShelf(e.conf.Store, partition)
	if err != nil {
		return nil, err
	}
	p := newPartitionEpochs(e.conf, e.owner, shelf, e.send)
	e.mu.Lock()
	e.byPartition[partition] = p
	e.mu.Unlock()
	go p.run()
	return &epochStorage{shelf: shelf, partitionEpochs: p, epochs: e}, nil
}

// abandon gives up on everything in flight.
func (e *Epochs) abandon() {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, p := range e.byPartition {
		p.fail(errClosed)
	}
}

// forget ends a partition's epochs.
func (e *Epochs) forget(partition int32) {
	e.readback.leave(partition)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byPartition, partition)
}

// recover writes a changelog record, read while goka recovers the table, straight to the disk: it is published already.
func (e *Epochs) recover(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	return e.conf.Store.Update(ctx.Partition(), ctx.Offset(), func(w *Writer) error {
		if value == nil {
			w.Delete(Rows, []byte(key))
			return nil
		}
		stored, err := w.Get(Rows, []byte(key))
		if err != nil {
			return err
		}
		if stored == nil || !e.conf.Older(value, stored) {
			w.Set(Rows, []byte(key), value)
		}
		return nil
	})
}

// send produces to a partition and calls done from the client's goroutine, exactly once.
func (e *Epochs) send(r *kgo.Record, done func(offset int64, err error)) {
	e.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		if err != nil {
			err = notProduced(r.Topic, err)
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
	case partition == nil:
		finish(nil, fmt.Errorf("output to %s for partition %d: %w", topic, number, errClosed))
	case topic == p.epochs.conf.Table:
		partition.hold(finish)
	default:
		partition.output(&kgo.Record{Topic: topic, Partition: number, Key: []byte(key), Value: value, Headers: sortedHeaders(headers)}, finish)
	}
	return promise
}

func (p *epochProducer) Close() error {
	p.epochs.readback.close()
	return closeProducer(p.epochs.client)
}

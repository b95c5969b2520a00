package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	"tidemark/topology"
)

// A table keeps the local copy of one table topic: its rows, what apply derives from them, and how far it has read.
type table struct {
	coverage
	topic   topology.Topic
	dir     string
	apply   applyFunc
	metrics *metrics
	log     *slog.Logger

	rows       keyWaiters             // by key
	changes    keyWaiters             // by escaped workspace
	topicID    atomic.Pointer[string] // of the table topic, once known
	logID      atomic.Pointer[string] // of the events topic, once known
	generation atomic.Int64           // incremented when the store, or a partition of it, is discarded
	completed  atomic.Int64           // the last generation in which the copy was complete
	idle       atomic.Bool            // the store was not updated for longer than tombstones are kept
	recreated  atomic.Bool            // the table topic

	mu     sync.RWMutex      // locked for writing while the store opens or closes
	store  *localstore.Store // nil while closed
	reason error             // why the copy is not recovered

	restart    chan string      // a reason to replace the goka view
	logged     sync.Map         // causes of skipped records that were logged already
	partitions []partitionState // owned by the progress loop
}

// An applyFunc applies the table record at a changelog offset to the rows and indexes of a copy.
type applyFunc func(w *localstore.Writer, offset int64, key string, value []byte) (applied, error)

// A partitionState is what the last poll found of a partition.
type partitionState struct {
	generation int64
	nextRecord int64
	since      time.Time // when nextRecord was first found
	target     int64     // where the changelog ended at the first poll of this generation
	polled     bool      // once in this generation
	complete   atomic.Bool
}

// stallAfter is how long a partition may be behind without moving. The client closes a partition's channel on an error
// that it cannot retry, and goka may take that for an orderly end: the view keeps running and reads nothing.
const stallAfter = 30 * time.Second

// errClosed is returned by a read before the store is open and after it is closed.
var errClosed = errors.New("the local copy is closed")

func newTable(name string, topic topology.Topic, dir string, apply applyFunc, m *metrics, log *slog.Logger) *table {
	t := &table{
		coverage: newCoverage(name, topic.Partitions), topic: topic, dir: dir, apply: apply, metrics: m,
		log:    log.With("table", name),
		reason: errors.New("not started"), restart: make(chan string, 1),
		partitions: make([]partitionState, topic.Partitions),
	}
	t.generation.Store(1)
	return t
}

// ready returns nil once the copy was complete, else the reason why it is not.
func (t *table) ready() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	switch {
	case t.store != nil && t.complete():
		return nil
	case t.reason != nil:
		return fmt.Errorf("topic %s: %w", t.topic.Name, t.reason)
	}
	return fmt.Errorf("topic %s: the local copy is still being read", t.topic.Name)
}

// corrupt reports whether the store is known to be corrupt.
func (t *table) corrupt() bool {
	corrupt := false
	_ = t.read(func(s *localstore.Store) error { // a closed one is not corrupt
		corrupt = s.Corrupt()
		return nil
	})
	return corrupt
}

// complete reports whether the copy was complete once in its present generation.
func (t *table) complete() bool { return t.completed.Load() == t.generation.Load() }

func (t *table) setReason(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reason = err
}

// read calls f with the open store.
func (t *table) read(f func(s *localstore.Store) error) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.store == nil {
		return errClosed
	}
	return f(t.store)
}

// update is goka's callback for each record of the topic. Row, index and offset are written in one batch, so a crash
// cannot separate them.
func (t *table) update(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	partition := ctx.Partition()
	var done applied
	if err := t.read(func(s *localstore.Store) error {
		return s.Update(partition, ctx.Offset(), func(w *localstore.Writer) (err error) {
			if kafka.FilePartition([]byte(key), t.topic.Partitions) != partition {
				done.skipped = skipPartition
				return nil
			}
			done, err = t.apply(w, ctx.Offset(), key, value)
			return err
		})
	}); err != nil {
		return fmt.Errorf("apply %s %d:%d: %w", t.topic.Name, partition, ctx.Offset(), err)
	}
	if done.skipped != "" {
		t.skipped(done, partition, ctx.Offset())
	}
	if id := t.logID.Load(); id == nil || *id != done.logID {
		done.events = nil // offsets of another log
	}
	t.frontiers[partition].apply(ctx.Offset()+1, done.events)
	t.rows.notify(key)
	workspace, _, _ := strings.Cut(key, "/")
	t.changes.notify(workspace)
	return nil
}

// skipped counts a record without effect. Older versions are normal after a failover; anything else was written by
// another program, which is logged once for each cause.
func (t *table) skipped(c applied, partition int32, offset int64) {
	t.metrics.skipped.WithLabelValues(t.name, c.skipped).Inc()
	if c.skipped == skipOlder {
		return
	}
	if _, logged := t.logged.LoadOrStore(c.skipped, true); !logged {
		t.log.Warn("record skipped: not written by this program; further ones are only counted",
			"topic", t.topic.Name, "partition", partition, "offset", offset, "cause", c.skipped, "error", c.detail)
	}
}

// observe compares the copy of a partition with the end of its changelog, and requests another goka view if the copy
// has stopped moving. It reports whether the copy is up to date.
func (t *table) observe(partition int32, end int64, now time.Time) (upToDate bool) {
	generation, last := t.generation.Load(), &t.partitions[partition]
	if last.generation != generation {
		last.generation, last.polled = generation, false
		last.complete.Store(false)
	}
	if t.corrupt() {
		t.requestRestart("the local store is corrupt")
		return false
	}
	next, _ := t.frontiers[partition].offsets()
	if next == unknown {
		return false // the store is not open yet
	}
	if !last.polled {
		last.polled, last.target, last.since = true, end, now
	}
	last.target = min(last.target, end) // the end is lower once it is known that only a marker precedes it
	if next >= last.target && !last.complete.Swap(true) {
		t.partitionComplete(generation)
	}
	if next >= end || next != last.nextRecord {
		last.nextRecord, last.since = next, now
		return next >= end
	}
	if now.Sub(last.since) >= stallAfter {
		last.since = now
		t.requestRestart(fmt.Sprintf("partition %d is stuck at offset %d of %d", partition, next, end))
	}
	return false
}

// touch records in the store that a partition is up to date.
func (t *table) touch(partition int32) {
	err := t.read(func(s *localstore.Store) error { return s.Touch(partition) })
	switch {
	case errors.Is(err, localstore.ErrIdle): // for example a machine that was suspended
		t.idle.Store(true)
		t.requestRestart(err.Error())
	case err != nil && !errors.Is(err, errClosed):
		t.log.Warn("cannot record that the local copy is up to date", "partition", partition, "error", err)
	}
}

// requestRestart asks for another goka view.
func (t *table) requestRestart(reason string) {
	select {
	case t.restart <- reason:
	default: // requested already
	}
}

// partitionComplete marks the copy as complete once all partitions are. goka's own "running" state is not used: it is
// racy with several partitions.
func (t *table) partitionComplete(generation int64) {
	for i := range t.partitions {
		if p := &t.partitions[i]; p.generation != generation || !p.complete.Load() {
			return
		}
	}
	t.completed.Store(generation)
	t.log.Info("local copy is complete", "topic", t.topic.Name)
}

// The pause between two views, and how long one must have run for the next pause to be short again.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	longRun    = time.Minute
)

// run keeps the copy up to date until ctx ends.
func (t *table) run(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier, pauses.MaxInterval = firstPause, 2, maxPause
	for {
		begin := time.Now()
		err := t.runView(ctx, conf, streams)
		if ctx.Err() != nil {
			t.setReason(errors.New("stopping"))
			return t.close()
		}
		if _, fatal := errors.AsType[*storeError](err); fatal {
			t.setReason(err)
			return err
		}
		if recreated := t.recreated.Swap(false); t.corrupt() || t.idle.Swap(false) || recreated {
			t.discard(ctx)
		}
		if time.Since(begin) > longRun {
			pauses.Reset()
		}
		pause := pauses.NextBackOff()
		t.setReason(err)
		t.log.WarnContext(ctx, "view ended, starting another one",
			"topic", t.topic.Name, "pause", pause.String(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// discard closes a store that must not be used any more: localstore wipes it when it is opened again. Requests are
// refused until the copy is complete again. No view runs meanwhile.
func (t *table) discard(ctx context.Context) {
	for _, f := range t.frontiers {
		f.reset()
	}
	t.generation.Add(1)
	if err := t.close(); err != nil {
		t.log.WarnContext(ctx, "closing the discarded store failed", "topic", t.topic.Name, "error", err)
	}
}

// A storeError is a local store that cannot be opened: waiting does not mend it.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// open opens the store, once; it stays open over all attempts, so that what was read can be answered meanwhile.
func (t *table) open(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	if t.read(func(*localstore.Store) error { return nil }) == nil {
		return nil
	}
	ids, err := kafka.TopicIDs(ctx, conf, t.topic.Name, streams.Events.Name)
	if err != nil {
		return err
	}
	topicID, logID := ids[t.topic.Name].String(), ids[streams.Events.Name].Topic
	t.topicID.Store(&topicID)
	t.logID.Store(&logID)
	store, err := localstore.Open(t.dir, topicID+"/"+layout, t.log)
	if err != nil {
		return &storeError{err}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.store = store
	return nil
}

func (t *table) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.store == nil {
		return nil
	}
	store := t.store
	t.store = nil
	return store.Close()
}

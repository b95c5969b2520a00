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

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	"tidemark/topology"
)

// A table keeps the local copy of one table topic: its rows, what apply derives from them, and how far it has read.
type table struct {
	coverage
	topic   topology.Topic
	held    *holding
	dir     string
	kind    rowKind
	metrics *metrics
	log     *slog.Logger

	rows       keyWaiters             // by key
	changes    keyWaiters             // by escaped workspace
	topicID    atomic.Pointer[string] // of the table topic, once known
	logID      atomic.Pointer[string] // of the events topic, once known
	generation atomic.Int64           // incremented when the store, or a partition of it, is discarded
	idle       atomic.Bool            // the store was not updated for longer than tombstones are kept
	recreated  atomic.Bool            // the table topic

	mu     sync.RWMutex      // locked for writing while the store opens or closes
	store  *localstore.Store // nil while closed
	reason error             // why the copy is not recovered

	restart    chan string // a reason to replace the goka views
	logged     sync.Map    // causes of skipped records that were logged already
	partitions []partitionState
}

// A partitionState says how far the copy of a partition is.
type partitionState struct {
	givenUp   atomic.Int64 // how often the partition was given up to another instance
	completed atomic.Int64 // the last generation in which the copy was complete

	// What the last poll found; owned by the progress loop.
	polled      int64 // the last generation with a poll
	nextRecord  int64
	since       time.Time // when nextRecord was first found
	recordsRead int64     // reading.records then
	target      int64     // where the changelog ended at the first poll of this generation

	reading readingProgress
}

// stallAfter is how long a partition may be behind without moving. The client closes a partition's channel on an error
// that it cannot retry, and goka may take that for an orderly end: the view keeps running and reads nothing.
const stallAfter = 30 * time.Second

// errClosed is returned by a read before the store is open and after it is closed.
var errClosed = errors.New("the local copy is closed")

func newTable(
	name string, topic topology.Topic, held *holding, dir string, kind rowKind, m *metrics, log *slog.Logger,
) *table {
	t := &table{
		coverage: newCoverage(name, topic.Partitions), topic: topic, held: held, dir: dir, kind: kind, metrics: m,
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
	case !t.held.assigned():
		return errors.New("waiting for the first assignment of partitions")
	case t.store != nil && t.complete():
		return nil
	case t.reason != nil:
		return fmt.Errorf("topic %s: %w", t.topic.Name, t.reason)
	}
	return fmt.Errorf("topic %s: the local copy is still being read: %s", t.topic.Name, t.readSoFar(time.Now()))
}

// running returns nil while the copy is being read, else the reason why it is not.
func (t *table) running() error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.reason != nil {
		return fmt.Errorf("topic %s: %w", t.topic.Name, t.reason)
	}
	return nil
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

// complete reports whether the copy of each partition that is held was complete once in its present generation.
func (t *table) complete() bool {
	held := t.held.partitions()
	for _, partition := range held {
		if !t.completePartition(partition) {
			return false
		}
	}
	return t.held.assigned()
}

func (t *table) completePartition(partition int32) bool {
	return t.partitions[partition].completed.Load() == t.generationOf(partition)
}

// generationOf returns the generation of a partition's copy. It grows when the copy is discarded, and when the
// partition is given up: what was complete then is not any more when the partition comes back.
func (t *table) generationOf(partition int32) int64 {
	return t.generation.Load() + t.partitions[partition].givenUp.Load()
}

// giveUp makes the copy of a partition unusable until it is read again. Its rows stay in the store, and reading
// continues after them if the partition comes back.
func (t *table) giveUp(partition int32) {
	t.frontiers[partition].reset()
	t.partitions[partition].givenUp.Add(1)
}

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

// update applies a record of the topic. Row, index and offset are written in one batch, so a crash
// cannot separate them.
func (t *table) update(partition int32, offset int64, key string, value []byte) error {
	var done applied
	if err := t.read(func(s *localstore.Store) error {
		return s.Update(partition, offset, func(w *localstore.Writer) (err error) {
			if kafka.FilePartition([]byte(key), t.topic.Partitions) != partition {
				done.skipped = skipPartition
				return nil
			}
			done, err = t.kind.apply(w, offset, key, value)
			return err
		})
	}); err != nil {
		return fmt.Errorf("apply %s %d:%d: %w", t.topic.Name, partition, offset, err)
	}
	if done.skipped != "" {
		t.skipped(done, partition, offset)
	}
	if id := t.logID.Load(); id == nil || *id != done.logID {
		done.events = nil // offsets of another log
	}
	t.frontiers[partition].apply(offset+1, done.events)
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

// observe compares the copy of a partition with the end of its changelog, and requests other goka views if the copy has
// stopped moving. It reports whether the copy is up to date.
func (t *table) observe(partition int32, end int64, now time.Time) (upToDate bool) {
	generation, last := t.generationOf(partition), &t.partitions[partition]
	if t.corrupt() {
		t.requestRestart("the local store is corrupt")
		return false
	}
	next, _ := t.frontiers[partition].offsets()
	if next == unknown {
		return false // it is not open yet
	}
	if last.polled != generation {
		last.polled, last.target, last.since = generation, end, now
	}
	last.target = min(last.target, end) // the end is lower once it is known that only a marker precedes it
	last.reading.end.Store(last.target)
	if next >= last.target && last.completed.Swap(generation) != generation && t.complete() {
		t.log.Info("local copy is complete", "topic", t.topic.Name, "partitions", len(t.held.partitions()))
	}
	read, loads := last.reading.records.Load(), last.reading.finishing.Load()
	if next >= end || next != last.nextRecord || read != last.recordsRead || loads {
		last.nextRecord, last.recordsRead, last.since = next, read, now
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

// requestRestart asks for other goka views.
func (t *table) requestRestart(reason string) {
	select {
	case t.restart <- reason:
	default: // requested already
	}
}

// The pause between two runs of the views, and how long one must have lasted for the next pause to be short again.
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
		err := t.runViews(ctx, conf, streams)
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
		t.log.WarnContext(ctx, "the views of a table ended, starting others",
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

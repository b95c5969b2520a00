package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	"tidemark/topology"
)

// A table keeps the local copy of one table topic: its rows, what apply derives from them, and how far it has read.
type table struct {
	name    string // in metrics and messages
	topic   topology.Topic
	dir     string
	apply   func(w *localstore.Writer, key string, value []byte) (change, error)
	metrics *metrics
	log     *slog.Logger

	frontiers []*frontier // by partition
	rows      rowBells
	logID     atomic.Pointer[string] // of the events topic, once known
	lives     atomic.Int64           // of the copy: it begins another one, with nothing, when what it has cannot be trusted
	recovered atomic.Int64           // the life in which it was complete once
	idle      atomic.Bool            // it slept for too long

	mu     sync.RWMutex      // held for writing while the store opens or closes
	store  *localstore.Store // nil while closed
	reason error             // why the copy is not recovered

	restart   chan string // a reason to build the goka view anew
	told      sync.Map    // causes of skipped records that were logged already
	standings []standing  // by partition; touched by the progress loop alone
}

// A standing is how a partition was found at the last look.
type standing struct {
	life   int64
	next   int64
	since  time.Time // when it was first found there
	target int64     // where the changelog ended at the first look; the copy is complete once it has read that far
	seen   bool
	caught atomic.Bool
}

// stallAfter is how long a partition may be behind without moving. The client closes a partition's channel on an error that it
// cannot retry, and goka may take that for an orderly end: the view looks alive and reads nothing any more.
const stallAfter = 30 * time.Second

// errClosed is what a read finds before the store is open and after it is closed.
var errClosed = errors.New("the local copy is closed")

func newTable(name string, topic topology.Topic, dir string, apply func(*localstore.Writer, string, []byte) (change, error), m *metrics, log *slog.Logger) *table {
	t := &table{
		name: name, topic: topic, dir: dir, apply: apply, metrics: m, log: log.With("table", name),
		reason: errors.New("not started"), restart: make(chan string, 1), standings: make([]standing, topic.Partitions),
	}
	t.lives.Store(1)
	for range topic.Partitions {
		t.frontiers = append(t.frontiers, newFrontier())
	}
	return t
}

// ready returns nil once the copy was complete, else what it waits for.
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

// corrupt reports whether what the store holds cannot be trusted any more.
func (t *table) corrupt() bool {
	perished := false
	_ = t.read(func(s *localstore.Store) error { // one that is closed is not corrupt
		perished = s.Corrupt()
		return nil
	})
	return perished
}

// complete reports whether the copy was complete once in its present life.
func (t *table) complete() bool { return t.recovered.Load() == t.lives.Load() }

func (t *table) because(err error) {
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

// update is goka's callback for each record of the topic. Row, index and offset are written together: whatever kills the
// process, they belong together afterwards.
func (t *table) update(ctx goka.UpdateContext, _ storage.Storage, key string, value []byte) error {
	partition := ctx.Partition()
	var done change
	if kafka.FilePartition([]byte(key), t.topic.Partitions) != partition {
		done.skipped = skipPartition
	} else if err := t.read(func(s *localstore.Store) error {
		return s.Update(partition, ctx.Offset(), func(w *localstore.Writer) (err error) {
			done, err = t.apply(w, key, value)
			return err
		})
	}); err != nil {
		return fmt.Errorf("apply %s %d:%d: %w", t.topic.Name, partition, ctx.Offset(), err)
	}
	if done.skipped != "" {
		t.skipped(done, partition, ctx.Offset())
	}
	if id := t.logID.Load(); id == nil || *id != done.logID {
		done.events = nil // offsets of another log say nothing
	}
	t.frontiers[partition].applied(ctx.Offset()+1, done.events)
	t.rows.ring(key)
	return nil
}

// skipped counts a record without effect. Older versions are how the log looks after a failover; anything else was written
// by a stranger, which is told once for each cause.
func (t *table) skipped(c change, partition int32, offset int64) {
	t.metrics.skipped.WithLabelValues(t.name, c.skipped).Inc()
	if c.skipped == skipOlder {
		return
	}
	if _, before := t.told.LoadOrStore(c.skipped, true); !before {
		t.log.Warn("record skipped: not written by this program; further ones are only counted",
			"topic", t.topic.Name, "partition", partition, "offset", offset, "cause", c.skipped, "error", c.detail)
	}
}

// watch looks how far the copy is, given where the changelog ends, and asks for a new goka view if it has stopped moving. It says
// whether the copy has all of the partition.
func (t *table) watch(partition int32, end int64, now time.Time) (whole bool) {
	life, last := t.lives.Load(), &t.standings[partition]
	if last.life != life {
		last.life, last.seen = life, false
		last.caught.Store(false)
	}
	if t.corrupt() {
		t.again("the local store is corrupt")
		return false
	}
	next, _ := t.frontiers[partition].state()
	if next < 0 {
		return false // the store is not open yet
	}
	if !last.seen {
		last.seen, last.target, last.since = true, end, now
	}
	last.target = min(last.target, end) // a marker was the last of it
	if next >= last.target && !last.caught.Swap(true) {
		t.caughtUp(life)
	}
	if next >= end || next != last.next {
		last.next, last.since = next, now
		return next >= end
	}
	if now.Sub(last.since) >= stallAfter {
		last.since = now
		t.again(fmt.Sprintf("partition %d stands at %d of %d", partition, next, end))
	}
	return false
}

// touch notes in the store that it has all of a partition.
func (t *table) touch(partition int32) {
	err := t.read(func(s *localstore.Store) error { return s.Touch(partition) })
	switch {
	case errors.Is(err, localstore.ErrIdle): // for example a machine that was suspended
		t.idle.Store(true)
		t.again(err.Error())
	case err != nil && !errors.Is(err, errClosed):
		t.log.Warn("the local copy cannot note that it is up to date", "partition", partition, "error", err)
	}
}

// again asks for a new goka view.
func (t *table) again(reason string) {
	select {
	case t.restart <- reason:
	default: // asked for already
	}
}

// caughtUp notes that one more partition is complete. The "running" of goka is not asked: it is a race between partitions.
func (t *table) caughtUp(life int64) {
	for i := range t.standings {
		if p := &t.standings[i]; p.life != life || !p.caught.Load() {
			return
		}
	}
	t.recovered.Store(life)
	t.log.Info("local copy is complete", "topic", t.topic.Name)
}

// run keeps the copy up to date until ctx ends.
func (t *table) run(ctx context.Context, conf kafka.Config, streams topology.Streams) error {
	pause := firstPause
	for {
		begin := time.Now()
		err := t.attempt(ctx, conf, streams)
		if ctx.Err() != nil {
			t.because(errors.New("stopping"))
			return t.close()
		}
		if _, fatal := errors.AsType[*storeError](err); fatal {
			t.because(err)
			return err
		}
		if t.corrupt() || t.idle.Swap(false) {
			t.anew(ctx)
		}
		if time.Since(begin) > soundRun {
			pause = firstPause
		}
		t.because(err)
		t.log.WarnContext(ctx, "view ended, building it anew", "topic", t.topic.Name, "pause", pause.String(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

// The pause between two attempts, and how long one must have run for the next pause to be short again.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	soundRun   = time.Minute
)

// anew closes a store that cannot be trusted any more: opened again it is wiped, and until the copy is complete once more there are
// no answers. No view runs meanwhile.
func (t *table) anew(ctx context.Context) {
	for _, f := range t.frontiers {
		f.shut()
	}
	t.lives.Add(1)
	if err := t.close(); err != nil {
		t.log.WarnContext(ctx, "the local store is given up", "topic", t.topic.Name, "error", err)
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
	logID := ids[streams.Events.Name].Topic
	t.logID.Store(&logID)
	store, err := localstore.Open(t.dir, ids[t.topic.Name].String()+"/"+layout, t.log)
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

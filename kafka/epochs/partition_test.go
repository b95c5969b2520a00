package epochs

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// A wire is a fake broker: it keeps records until the test acknowledges them.
type wire struct {
	mu   sync.Mutex
	sent []*flight
	came chan struct{}
}

type flight struct {
	*kgo.Record
	acked func(*kgo.Record, error)
}

// done acknowledges the record at an offset, or fails it.
func (f *flight) done(offset int64, err error) {
	f.Offset = offset
	f.acked(f.Record, err)
}

func newWire() *wire { return &wire{came: make(chan struct{}, 1<<16)} }

func (w *wire) send(r *kgo.Record, acked func(*kgo.Record, error)) {
	w.mu.Lock()
	w.sent = append(w.sent, &flight{r, acked})
	w.mu.Unlock()
	w.came <- struct{}{}
}

// next waits for the next record to be sent.
func (w *wire) next(t *testing.T) *flight {
	t.Helper()
	select {
	case <-w.came:
	case <-time.After(5 * time.Second):
		t.Fatal("nothing was sent")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.sent[0]
	w.sent = w.sent[1:]
	return f
}

// quiet checks that nothing is sent for a while longer than an epoch.
func (w *wire) quiet(t *testing.T) {
	t.Helper()
	select {
	case <-w.came:
		t.Fatalf("sent too early: %s %s", w.sent[0].Topic, w.sent[0].Key)
	case <-time.After(30 * time.Millisecond):
	}
}

func openTestStore(t *testing.T) *localstore.Store {
	t.Helper()
	s, err := localstore.Open(t.TempDir(), "c/t", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put stores rows of partition 0, given as key and value in turn, and the offset they bring it to.
func put(t *testing.T, s *localstore.Store, offset int64, pairs ...string) {
	t.Helper()
	err := s.Update(0, offset, func(w *localstore.Writer) error {
		for i := 0; i < len(pairs); i += 2 {
			w.Set(localstore.Rows, []byte(pairs[i]), []byte(pairs[i+1]))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, s *localstore.Store, partition int32, key string) string {
	t.Helper()
	value, err := s.Get(partition, localstore.Rows, []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

type epochTest struct {
	*partitionEpochs
	wire    *wire
	store   *localstore.Store
	commits chan int64
	next    int64 // offset of the next input
}

func noBacklog() bool { return false }

func testConfig() Config {
	return Config{
		Table: "table", Log: slog.New(slog.DiscardHandler), Interval: time.Millisecond,
		Older: func(record, stored []byte) bool { return string(record) < string(stored) },
	}
}

func newEpochTest(t *testing.T) *epochTest {
	t.Helper()
	store := openTestStore(t)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return newEpochTestOn(t, store)
}

func newEpochTestOn(t *testing.T, store *localstore.Store) *epochTest {
	t.Helper()
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	e := &epochTest{
		partitionEpochs: newPartitionEpochs(testConfig(), shelf), wire: newWire(), store: store,
		commits: make(chan int64, 1<<16),
	}
	close(e.keysKnown) // no filter
	startPipeline(e.partitionEpochs, noBacklog, e.wire.send,
		func(_ string, next int64, _ string) { e.commits <- next })
	t.Cleanup(func() {
		e.fail(errClosed)
		e.publisher.drain()
	})
	return e
}

// callback does what Epochs.Callback does around a callback, and returns the offset to commit after it.
func (e *epochTest) callback(t *testing.T, effects func()) (next int64) {
	t.Helper()
	if err := e.enter(); err != nil {
		t.Fatal(err)
	}
	defer e.gate.Unlock()
	effects()
	e.callbackReturned("in", e.next)
	e.next++
	return e.next
}

// fold is a callback with an output and a row.
func (e *epochTest) fold(t *testing.T, key, value string) (next int64) {
	t.Helper()
	return e.callback(t, func() {
		e.output(&kgo.Record{Topic: "out", Key: []byte(key), Value: []byte(value)})
		if err := e.set(key, []byte(value), value); err != nil {
			t.Fatal(err)
		}
	})
}

// uncommitted checks that nothing more was committed.
func (e *epochTest) uncommitted(t *testing.T) {
	t.Helper()
	select {
	case next := <-e.commits:
		t.Fatalf("offset %d was committed too early", next)
	default:
	}
}

// committed waits until an offset is committed.
func (e *epochTest) committed(t *testing.T, next int64) {
	t.Helper()
	for {
		select {
		case got := <-e.commits:
			if got == next {
				return
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("offset %d was never committed", next)
		}
	}
}

// buffered returns the row of k if it is not on the disk yet; empty when there is none.
func (p *partitionEpochs) buffered() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.rows.byKey["k"]; r != nil && r.epoch != nil {
		return string(r.value)
	}
	return ""
}

func TestEpochPublishesOutputsThenRowsThenStoreThenCommit(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 40) // recovered up to there
	next := e.fold(t, "k", "v1")
	out := e.wire.next(t)
	if out.Topic != "out" {
		t.Fatalf("first sent was %s", out.Topic)
	}
	e.wire.quiet(t) // the row waits for the output
	if value := e.buffered(); value != "v1" {
		t.Errorf("the next callback sees %q", value)
	}
	out.done(7, nil)
	row := e.wire.next(t)
	if row.Topic != "table" || string(row.Value) != "v1" {
		t.Fatalf("sent %s %q", row.Topic, row.Value)
	}
	e.uncommitted(t)
	if got := get(t, e.store, 0, "k"); got != "" {
		t.Errorf("on the disk before its changelog record was acknowledged: %q", got)
	}
	row.done(41, nil)
	e.committed(t, next)
	offset, ok, err := e.store.Offset(0)
	if get(t, e.store, 0, "k") != "v1" || offset != 41 || !ok || err != nil {
		t.Errorf("on the disk: %q at %d (%t, %v)", get(t, e.store, 0, "k"), offset, ok, err)
	}
	if value := e.buffered(); value != "" {
		t.Errorf("%q is still buffered", value)
	}
}

// A record without effects is committed with those before it.
func TestEpochWithoutEffectsIsCommittedInOrder(t *testing.T) {
	e := newEpochTest(t)
	e.fold(t, "k", "v1")
	out := e.wire.next(t)
	e.awaitClosed(t)
	next := e.callback(t, func() {})
	e.wire.quiet(t)
	e.uncommitted(t)
	out.done(0, nil)
	e.wire.next(t).done(0, nil)
	e.committed(t, next)
	e.wire.quiet(t)
}

// The offset on the disk says that all records up to it are there. Foreign records are not: a zombie that becomes the
// owner again would never read what its successor wrote.
func TestStoreOffsetStopsBeforeForeignRecords(t *testing.T) {
	e := newEpochTest(t)
	for _, step := range []struct{ landed, stored int64 }{{0, 0}, {1, 1}, {5, 1}, {6, 1}} {
		next := e.fold(t, "k", "v")
		e.wire.next(t).done(0, nil)
		e.wire.next(t).done(step.landed, nil)
		e.committed(t, next)
		if offset, ok, err := e.store.Offset(0); offset != step.stored || !ok || err != nil {
			t.Errorf("a row at %d: the disk is at %d (%t, %v), wanted %d", step.landed, offset, ok, err, step.stored)
		}
		if got := get(t, e.store, 0, "k"); got != "v" {
			t.Errorf("a row at %d: on the disk is %q", step.landed, got)
		}
	}
}

// awaitClosed waits until the open epoch is empty.
func (e *epochTest) awaitClosed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		empty := e.open.empty()
		e.mu.Unlock()
		if empty {
			return
		}
		if time.Now().After(end) {
			t.Fatal("the epoch stays open")
		}
	}
}

func TestEpochSendsTheNewestRowOfAKey(t *testing.T) {
	e := newEpochTest(t)
	first := e.fold(t, "k", "v1")
	out := e.wire.next(t)
	e.awaitClosed(t) // the first epoch now waits for its output
	e.fold(t, "k", "v2")
	third := e.fold(t, "k", "v3")
	e.wire.quiet(t) // the outputs of the second epoch wait for the first
	out.done(0, nil)
	row := e.wire.next(t)
	if string(row.Value) != "v1" {
		t.Fatalf("row %q", row.Value)
	}
	if value := e.buffered(); value != "v3" {
		t.Errorf("callbacks see %q", value)
	}
	row.done(10, nil)
	e.committed(t, first)
	e.wire.next(t).done(1, nil)
	e.wire.next(t).done(2, nil)
	row = e.wire.next(t)
	if string(row.Value) != "v3" {
		t.Fatalf("row %q, want the newest only", row.Value)
	}
	e.uncommitted(t)
	row.done(11, nil)
	e.committed(t, third)
	e.wire.quiet(t)
}

func TestFailedOutputRejectsBufferedRows(t *testing.T) {
	e := newEpochTest(t)
	lost := errors.New("no leader")
	e.callback(t, func() {
		for _, key := range []string{"k", "l"} {
			e.output(&kgo.Record{Topic: "out", Key: []byte(key)})
			if err := e.set(key, []byte("v1"), nil); err != nil {
				t.Fatal(err)
			}
		}
	})
	first, second := e.wire.next(t), e.wire.next(t)
	second.done(8, nil)
	first.done(0, lost)
	e.wire.quiet(t)
	e.uncommitted(t)
	if err := e.enter(); !errors.Is(err, lost) {
		t.Errorf("a callback could enter after the failure: %v", err)
	}
	if get(t, e.store, 0, "k") != "" || get(t, e.store, 0, "l") != "" {
		t.Error("a rejected row is on the disk")
	}
}

func TestFailedRowIsNotStored(t *testing.T) {
	e := newEpochTest(t)
	lost := errors.New("not enough replicas")
	e.fold(t, "k", "v1")
	e.wire.next(t).done(0, nil)
	e.wire.next(t).done(0, lost)
	e.wire.quiet(t)
	e.uncommitted(t)
	if err := e.failure(); !errors.Is(err, lost) {
		t.Errorf("failed with %v", err)
	}
	if got := get(t, e.store, 0, "k"); got != "" {
		t.Errorf("on the disk: %q", got)
	}
}

func TestTooMuchInFlightDelaysTheNextCallback(t *testing.T) {
	e := newEpochTest(t)
	e.fillUp(t)
	entered := make(chan error, 1)
	go func() {
		err := e.enter()
		if err == nil {
			e.gate.Unlock()
		}
		entered <- err
	}()
	select {
	case err := <-entered:
		t.Fatalf("entered with %d outputs in flight: %v", maxUnacked, err)
	case <-time.After(20 * time.Millisecond):
	}
	e.wire.next(t).done(1, nil)
	select {
	case err := <-entered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("an acknowledgement made no room")
	}
	for range maxUnacked {
		e.wire.next(t).done(1, nil)
	}
}

// fillUp leaves no room for outputs: one is sent, and the others are in the open epoch.
func (e *epochTest) fillUp(t *testing.T) {
	t.Helper()
	e.fold(t, "k", "v")
	e.awaitClosed(t)
	for range maxUnacked - 1 {
		e.callback(t, func() { e.output(&kgo.Record{Topic: "out"}) })
	}
}

func TestFailedPartitionPublishesNothing(t *testing.T) {
	e := newEpochTest(t)
	e.fold(t, "k", "v1")
	out := e.wire.next(t)
	e.fail(errClosed)
	out.done(3, nil)
	e.wire.quiet(t)
	e.output(&kgo.Record{Topic: "out"})
	e.wire.quiet(t)
	e.uncommitted(t)
}

// A partition that is closed first publishes and commits what its callbacks have done.
func TestDrainPublishesWhatIsLeft(t *testing.T) {
	e := newEpochTest(t)
	e.conf.Interval = time.Hour
	next := e.fold(t, "k", "v1")
	drained := make(chan struct{})
	go func() { e.publisher.drain(); close(drained) }()
	e.wire.next(t).done(0, nil)
	e.wire.next(t).done(0, nil)
	e.committed(t, next)
	<-drained
	if got := get(t, e.store, 0, "k"); got != "v1" {
		t.Errorf("on the disk: %q", got)
	}
}

// A null deletes the row, on the disk only once the changelog has it. Its header tells it from another writer's null.
func TestEpochDeletes(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v")
	next := e.callback(t, func() {
		if err := e.set("k", nil, nil); err != nil {
			t.Fatal(err)
		}
	})
	if row, err := e.current("k"); row.value != nil || err != nil {
		t.Errorf("callbacks see %q, %v", row.value, err)
	}
	record := e.wire.next(t)
	if record.Value != nil || len(record.Headers) != 1 || record.Headers[0].Key != ownerHeader {
		t.Errorf("record %q, %v", record.Value, record.Headers)
	}
	record.done(2, nil)
	if e.committed(t, next); get(t, e.store, 0, "k") != "" {
		t.Errorf("on the disk %q", get(t, e.store, 0, "k"))
	}
}

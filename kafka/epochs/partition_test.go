package epochs

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
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
	done func(int64, error)
}

func (w *wire) send(r *kgo.Record, done func(int64, error)) {
	w.mu.Lock()
	w.sent = append(w.sent, &flight{r, done})
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
	wire  *wire
	store *localstore.Store
}

func newEpochTest(t *testing.T) *epochTest {
	t.Helper()
	store := openTestStore(t)
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{came: make(chan struct{}, 1<<16)}
	conf := Config{
		Table: "table", Log: slog.New(slog.DiscardHandler), Interval: time.Millisecond,
		Older: func(record, stored []byte) bool { return string(record) < string(stored) },
	}
	p := newPartitionEpochs(conf, []byte("me"), shelf, w.send)
	go p.run()
	t.Cleanup(func() {
		p.close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &epochTest{p, w, store}
}

// A promised is the result of a promise: nothing yet, nil, or an error.
type promised chan error

func (p promised) finish(_ *sarama.ProducerMessage, err error) *goka.Promise {
	p <- err
	return nil
}

func (p promised) pending(t *testing.T) {
	t.Helper()
	select {
	case err := <-p:
		t.Fatalf("finished too early: %v", err)
	default:
	}
}

func (p promised) result(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p:
		return err
	case <-time.After(5 * time.Second):
		t.Fatal("never finished")
		return nil
	}
}

// fold does what a callback does: outputs, then the row.
func (e *epochTest) fold(t *testing.T, key, value string) (output, table promised) {
	t.Helper()
	output, table = make(promised, 1), make(promised, 1)
	if err := e.enter(); err != nil {
		t.Fatal(err)
	}
	defer e.gate.Unlock()
	e.output(&kgo.Record{Topic: "out", Key: []byte(key), Value: []byte(value)}, output.finish)
	if err := e.set(key, []byte(value)); err != nil {
		t.Fatal(err)
	}
	e.addTablePromise(key, table.finish)
	return output, table
}

func TestEpochPublishesOutputsThenRowsThenStoreThenCommit(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 40) // recovered up to there
	output, table := e.fold(t, "k", "v1")
	out := e.wire.next(t)
	if out.Topic != "out" {
		t.Fatalf("first sent was %s", out.Topic)
	}
	e.wire.quiet(t) // the row waits for the output
	if value, held := e.bufferedRow("k"); !held || string(value) != "v1" {
		t.Errorf("the next callback sees %q, %t", value, held)
	}
	out.done(7, nil)
	if err := output.result(t); err != nil {
		t.Errorf("output: %v", err)
	}
	row := e.wire.next(t)
	if row.Topic != "table" || string(row.Value) != "v1" {
		t.Fatalf("sent %s %q", row.Topic, row.Value)
	}
	table.pending(t)
	if got := get(t, e.store, 0, "k"); got != "" {
		t.Errorf("on the disk before its changelog record was acknowledged: %q", got)
	}
	row.done(41, nil)
	if err := table.result(t); err != nil {
		t.Errorf("row: %v", err)
	}
	offset, ok, err := e.store.Offset(0)
	if get(t, e.store, 0, "k") != "v1" || offset != 41 || !ok || err != nil {
		t.Errorf("on the disk: %q at %d (%t, %v)", get(t, e.store, 0, "k"), offset, ok, err)
	}
	if _, held := e.bufferedRow("k"); held {
		t.Error("the row is still held")
	}
}

// The offset on the disk says that all records up to it are there. Foreign records are not: a zombie that becomes the
// owner again would never read what its successor wrote.
func TestStoreOffsetStopsBeforeForeignRecords(t *testing.T) {
	e := newEpochTest(t)
	for _, step := range []struct{ landed, stored int64 }{{0, 0}, {1, 1}, {5, 1}, {6, 1}} {
		_, table := e.fold(t, "k", "v")
		e.wire.next(t).done(0, nil)
		e.wire.next(t).done(step.landed, nil)
		if err := table.result(t); err != nil {
			t.Fatal(err)
		}
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
	_, first := e.fold(t, "k", "v1")
	out := e.wire.next(t)
	e.awaitClosed(t) // the first epoch now waits for its output
	_, second := e.fold(t, "k", "v2")
	_, third := e.fold(t, "k", "v3")
	out.done(0, nil)
	e.wire.next(t).done(1, nil)
	e.wire.next(t).done(2, nil)
	if row := e.wire.next(t); string(row.Value) != "v1" {
		t.Fatalf("row %q", row.Value)
	} else {
		if value, _ := e.bufferedRow("k"); string(value) != "v3" {
			t.Errorf("callbacks see %q", value)
		}
		row.done(10, nil)
	}
	if err := first.result(t); err != nil {
		t.Error(err)
	}
	row := e.wire.next(t)
	if string(row.Value) != "v3" {
		t.Fatalf("row %q, want the newest only", row.Value)
	}
	second.pending(t)
	row.done(11, nil)
	if err := errors.Join(second.result(t), third.result(t)); err != nil {
		t.Error(err)
	}
	e.wire.quiet(t)
}

func TestFailedOutputRejectsBufferedRows(t *testing.T) {
	e := newEpochTest(t)
	lost := errors.New("no leader")
	output1, table1 := e.fold(t, "k", "v1")
	output2, table2 := e.fold(t, "l", "v1")
	first, second := e.wire.next(t), e.wire.next(t)
	second.done(8, nil)
	first.done(0, lost)
	for name, p := range map[string]promised{"output": output1, "its row": table1, "another row": table2} {
		if err := p.result(t); !errors.Is(err, lost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := output2.result(t); err != nil {
		t.Errorf("the acknowledged output: %v", err)
	}
	e.wire.quiet(t)
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
	_, table := e.fold(t, "k", "v1")
	e.wire.next(t).done(0, nil)
	e.wire.next(t).done(0, lost)
	if err := table.result(t); !errors.Is(err, lost) {
		t.Errorf("row: %v", err)
	}
	if got := get(t, e.store, 0, "k"); got != "" {
		t.Errorf("on the disk: %q", got)
	}
}

func TestTooMuchInFlightDelaysTheNextCallback(t *testing.T) {
	e := newEpochTest(t)
	for range maxUnacked {
		if err := e.enter(); err != nil {
			t.Fatal(err)
		}
		e.output(&kgo.Record{Topic: "out"}, make(promised, 1).finish)
		e.gate.Unlock()
	}
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
	for range maxUnacked - 1 {
		e.wire.next(t).done(1, nil)
	}
}

func TestClosedPartitionPublishesNothing(t *testing.T) {
	e := newEpochTest(t)
	_, table := e.fold(t, "k", "v1")
	out := e.wire.next(t)
	e.fail(errClosed) // as close does with something pending
	if err := table.result(t); !errors.Is(err, errClosed) {
		t.Errorf("row: %v", err)
	}
	out.done(3, nil)
	e.wire.quiet(t)
	late := make(promised, 1)
	e.output(&kgo.Record{Topic: "out"}, late.finish)
	if err := late.result(t); !errors.Is(err, errClosed) {
		t.Errorf("an output after the end: %v", err)
	}
}

// A row that is said to belong to another partition fails the group: it would be committed before it is written.
func TestARowOfAnotherPartitionEndsTheEpoch(t *testing.T) {
	e := newEpochTest(t)
	output, table := make(promised, 1), make(promised, 1)
	if err := e.enter(); err != nil {
		t.Fatal(err)
	}
	e.addTablePromise("k", table.finish) // its row was set elsewhere
	e.output(&kgo.Record{Topic: "out", Key: []byte("k")}, output.finish)
	e.gate.Unlock()
	if output.result(t) == nil || table.result(t) == nil || e.failure() == nil {
		t.Error("the epoch went on")
	}
	e.wire.quiet(t)
}

// A null deletes the row, on the disk only once the changelog has it.
func TestEpochDeletes(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v")
	table := make(promised, 1)
	if err := e.enter(); err != nil {
		t.Fatal(err)
	}
	if err := e.set("k", nil); err != nil {
		t.Fatal(err)
	}
	e.addTablePromise("k", table.finish)
	e.gate.Unlock()
	if value, held := e.bufferedRow("k"); !held || value != nil {
		t.Errorf("callbacks see %q, %t", value, held)
	}
	row := e.wire.next(t)
	if row.Value != nil {
		t.Errorf("record %q", row.Value)
	}
	row.done(2, nil)
	if err := table.result(t); err != nil || get(t, e.store, 0, "k") != "" {
		t.Errorf("%v; on the disk %q", err, get(t, e.store, 0, "k"))
	}
}

package epochs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/localstore"
)

// A script is a fake txnProducer: every step of a transaction waits until the test decides its result.
type script struct{ steps chan step }

type step struct {
	what string
	done func(offset int64, err error)
}

func (s *script) ask(what string) error {
	answer := make(chan error, 1)
	s.steps <- step{what, func(_ int64, err error) { answer <- err }}
	return <-answer
}

func (s *script) begin() error { return s.ask("begin") }

func (s *script) send(r *kgo.Record, done func(int64, error)) {
	s.steps <- step{fmt.Sprintf("%s/%d %s=%s", r.Topic, r.Partition, r.Key, r.Value), done}
}

func (s *script) flush(context.Context) {}

func (s *script) addOffsets(_ context.Context, next map[partitionID]inputOffset) error {
	return s.ask("add" + offsetsText(next))
}

func (s *script) commitOffsets(_ context.Context, next map[partitionID]inputOffset) error {
	return s.ask("commit only" + offsetsText(next))
}

func (s *script) end(_ context.Context, commit bool) error {
	if commit {
		return s.ask("commit")
	}
	return s.ask("abort")
}

func offsetsText(next map[partitionID]inputOffset) string {
	text := ""
	for _, at := range slices.SortedFunc(maps.Keys(next),
		func(a, b partitionID) int { return int(a.number - b.number) }) {
		text += fmt.Sprintf(" %s/%d=%d", at.topic, at.number, next[at].offset)
	}
	return text
}

// expect waits for the next step, which must be the one named.
func (s *script) expect(t *testing.T, what string) step {
	t.Helper()
	select {
	case next := <-s.steps:
		if next.what != what {
			t.Fatalf("next is %q, want %q", next.what, what)
		}
		return next
	case <-time.After(5 * time.Second):
		t.Fatalf("%q never came", what)
		return step{}
	}
}

// goes lets steps succeed.
func (s *script) goes(t *testing.T, steps ...string) {
	t.Helper()
	for _, what := range steps {
		s.expect(t, what).done(0, nil)
	}
}

func (s *script) quiet(t *testing.T) {
	t.Helper()
	select {
	case next := <-s.steps:
		t.Fatalf("too early, or too much: %s", next.what)
	case <-time.After(30 * time.Millisecond):
	}
}

type transactionTest struct {
	*script
	shared     *transactions
	partitions []*partitionEpochs
	store      *localstore.Store
}

func newTransactionTest(t *testing.T, partitions int) *transactionTest {
	t.Helper()
	x := &transactionTest{script: &script{steps: make(chan step, 1000)}, store: openTestStore(t)}
	conf := Config{
		Table: "table", Interval: time.Millisecond,
		Older: func(record, stored []byte) bool { return string(record) < string(stored) },
	}
	x.shared = newTransactions(x.script, conf, []byte("me"), func() []*partitionEpochs { return x.partitions })
	for number := range partitions {
		shelf, err := x.store.Partition(int32(number))
		if err != nil {
			t.Fatal(err)
		}
		p := newPartitionEpochs(conf, []byte("me"), shelf, nil)
		p.transactions, p.dirty = x.shared, x.shared.dirty
		x.partitions = append(x.partitions, p)
	}
	go x.shared.run()
	t.Cleanup(func() {
		x.shared.close()
		if err := x.store.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// fold does what Epochs.Callback does around a callback with an output and a row.
func (x *transactionTest) fold(t *testing.T, partition int, offset int64, key, value string) (output, table promised) {
	t.Helper()
	p := x.partitions[partition]
	output, table = make(promised, 1), make(promised, 1)
	if err := p.enter(); err != nil {
		t.Fatal(err)
	}
	defer p.gate.Unlock()
	p.output(&kgo.Record{Topic: "out", Partition: int32(partition), Key: []byte(key), Value: []byte(value)},
		output.finish)
	if err := p.set(key, []byte(value)); err != nil {
		t.Fatal(err)
	}
	p.addTablePromise(key, table.finish)
	p.callbackReturned("in", offset)
	return output, table
}

// together runs callbacks of several partitions while no epoch can be closed.
func (x *transactionTest) together(t *testing.T, callbacks func()) {
	t.Helper()
	x.shared.round.Lock()
	defer x.shared.round.Unlock()
	callbacks()
}

func TestTransactionOrder(t *testing.T) {
	x := newTransactionTest(t, 1)
	x.partitions[0].readBackTo.Store(41)
	var output, table promised
	x.together(t, func() { output, table = x.fold(t, 0, 7, "k", "v1") })
	x.goes(t, "begin")
	out, row := x.expect(t, "out/0 k=v1"), x.expect(t, "table/0 k=v1")
	row.done(41, nil)
	x.quiet(t) // the offsets wait for every acknowledgement
	out.done(3, nil)
	x.goes(t, "add in/0=8")
	commit := x.expect(t, "commit")
	output.pending(t)
	table.pending(t)
	if got := get(t, x.store, 0, "k"); got != "" {
		t.Errorf("on the disk before the commit: %q", got)
	}
	if value, held := x.partitions[0].bufferedRow("k"); !held || string(value) != "v1" {
		t.Errorf("the next callback sees %q, %t", value, held)
	}
	commit.done(0, nil)
	if err := errors.Join(output.result(t), table.result(t)); err != nil {
		t.Error(err)
	}
	offset, ok, err := x.store.Offset(0)
	if get(t, x.store, 0, "k") != "v1" || offset != 40 || !ok || err != nil {
		t.Errorf("on the disk: %q at %d (%t, %v)", get(t, x.store, 0, "k"), offset, ok, err)
	}
	if p := x.partitions[0]; p.unacked != 0 || p.bufferedBytes != 0 || len(p.overlay) != 0 {
		t.Errorf("still held: %d outputs, %d bytes, %d rows", p.unacked, p.bufferedBytes, len(p.overlay))
	}
	x.quiet(t)
}

// Callbacks go on while a transaction is published; their effects go into the next one.
func TestTransactionIsFilledWhileAnotherIsCommitted(t *testing.T) {
	x := newTransactionTest(t, 1)
	x.together(t, func() { x.fold(t, 0, 7, "k", "v1") })
	x.goes(t, "begin", "out/0 k=v1", "table/0 k=v1", "add in/0=8")
	commit := x.expect(t, "commit")
	x.fold(t, 0, 8, "k", "v2")
	_, last := x.fold(t, 0, 12, "k", "v3") // offsets have gaps
	x.quiet(t)
	commit.done(0, nil)
	x.goes(t, "begin", "out/0 k=v2", "out/0 k=v3", "table/0 k=v3", "add in/0=13", "commit")
	if err := last.result(t); err != nil {
		t.Error(err)
	}
}

func TestTransactionTakesAllPartitionsAtOnce(t *testing.T) {
	x := newTransactionTest(t, 3)
	x.together(t, func() { x.fold(t, 2, 5, "c", "v1"); x.fold(t, 0, 7, "a", "v1") })
	x.goes(t, "begin", "out/0 a=v1", "table/0 a=v1", "out/2 c=v1", "table/2 c=v1", "add in/0=8 in/2=6", "commit")
}

// Records without effects need no transaction, and franz-go would not end one in which nothing was produced.
func TestOffsetsAloneAreCommittedWithoutATransaction(t *testing.T) {
	x := newTransactionTest(t, 2)
	x.together(t, func() { x.partitions[0].callbackReturned("in", 7); x.partitions[1].callbackReturned("in", 8) })
	x.goes(t, "commit only in/0=8 in/1=9")
	x.quiet(t)
}

// Whatever fails, nothing of the transaction is stored, its promises fail, and nothing more is published.
func TestFailedTransactionKeepsNothing(t *testing.T) {
	records := []string{"begin", "out/0 k=v1", "table/0 k=v1", "out/1 l=v1", "table/1 l=v1"}
	offsets := append(slices.Clip(records), "add in/0=8 in/1=9")
	for _, test := range []struct {
		failed string
		steps  []string
		abort  bool
	}{
		{"begin", records[:1], false},
		{"out/1 l=v1", records, true},
		{"table/0 k=v1", records, true},
		{"add in/0=8 in/1=9", offsets, true},
		{"commit", append(slices.Clip(offsets), "commit"), false}, // whether it is committed is not known: the next attempt asks
	} {
		t.Run(test.failed, func(t *testing.T) {
			lost := errors.New("lost")
			x := newTransactionTest(t, 2)
			var promises [4]promised
			x.together(t, func() {
				promises[0], promises[1] = x.fold(t, 0, 7, "k", "v1")
				promises[2], promises[3] = x.fold(t, 1, 8, "l", "v1")
			})
			for _, what := range test.steps {
				var err error
				if what == test.failed {
					err = lost
				}
				x.expect(t, what).done(9, err)
			}
			if test.abort {
				x.goes(t, "abort")
			}
			for i, p := range promises {
				if err := p.result(t); !errors.Is(err, lost) {
					t.Errorf("promise %d: %v", i, err)
				}
			}
			if get(t, x.store, 0, "k") != "" || get(t, x.store, 1, "l") != "" {
				t.Error("a row of it is on the disk")
			}
			for number, p := range x.partitions {
				if err := p.enter(); !errors.Is(err, lost) {
					t.Errorf("partition %d: a callback could enter after the failure: %v", number, err)
				}
			}
			x.quiet(t)
		})
	}
}

// A part of a callback's effects is never published, nor what other partitions have buffered, nor an offset.
func TestFailedCallbackIsNotPublished(t *testing.T) {
	x := newTransactionTest(t, 2)
	half, bad := make(promised, 1), errors.New("bad")
	var other promised
	x.together(t, func() {
		other, _ = x.fold(t, 1, 3, "l", "v1")
		p := x.partitions[0]
		if err := p.enter(); err != nil {
			t.Fatal(err)
		}
		p.output(&kgo.Record{Topic: "out"}, half.finish)
		p.fail(bad)
		p.gate.Unlock()
	})
	if err := half.result(t); !errors.Is(err, bad) {
		t.Errorf("its output: %v", err)
	}
	if err := other.result(t); !errors.Is(err, bad) {
		t.Errorf("another partition's output: %v", err)
	}
	x.shared.flush()
	x.quiet(t)
}

// A partition that is closed first publishes what its callbacks have done.
func TestFlushPublishesAndWaits(t *testing.T) {
	x := newTransactionTest(t, 1)
	x.together(t, func() { x.fold(t, 0, 7, "k", "v1") })
	flushed := make(chan struct{})
	go func() { x.shared.flush(); close(flushed) }()
	x.goes(t, "begin", "out/0 k=v1", "table/0 k=v1", "add in/0=8")
	commit := x.expect(t, "commit")
	select {
	case <-flushed:
		t.Fatal("flushed before the commit")
	case <-time.After(10 * time.Millisecond):
	}
	commit.done(0, nil)
	<-flushed
	if get(t, x.store, 0, "k") != "v1" {
		t.Error("not on the disk after the flush")
	}
}

// The next start must recover foreign records before our rows that are not rewritten yet: the offset on the disk does
// not pass them until the rewrite is committed.
func TestStoreOffsetStopsBeforeUnhandledRecords(t *testing.T) {
	x := newTransactionTest(t, 1)
	put(t, x.store, 1, "k", "v7")
	p := x.partitions[0]
	p.readBackTo.Store(2)
	r := &readback{owner: []byte("me"), partition: func(int32) *partitionEpochs { return p }}
	stands := func(want int64) {
		t.Helper()
		x.awaitStored(t, p)
		if offset, ok, err := x.store.Offset(0); offset != want || !ok || err != nil {
			t.Errorf("the disk is at %d (%t, %v), wanted %d", offset, ok, err, want)
		}
	}
	p.recovered.Store(true)
	x.together(t, func() { x.fold(t, 0, 7, "other", "v1") })
	x.goes(t, "begin", "out/0 other=v1")
	x.expect(t, "table/0 other=v1").done(9, nil) // behind a strange record at 5
	x.goes(t, "add in/0=8")
	commit := x.expect(t, "commit")
	r.handle(&kgo.Record{Key: []byte("k"), Value: []byte("v5"), Offset: 5}) // answered in the next transaction
	commit.done(0, nil)
	x.goes(t, "begin")
	row := x.expect(t, "table/0 k=v7")
	if offset, _, err := x.store.Offset(0); offset != 1 || err != nil {
		t.Errorf("the answer is not committed, and the disk is at %d (%v)", offset, err)
	}
	row.done(11, nil)
	x.goes(t, "commit")
	stands(1) // rows alone move nothing: no offsets fence an owner that was paused
	r.handle(&kgo.Record{
		Key: []byte("other"), Value: []byte("v1"), Offset: 9,
		Headers: []kgo.RecordHeader{{Key: ownerHeader, Value: []byte("me")}},
	})
	r.handle(&kgo.Record{
		Key: []byte("k"), Value: []byte("v7"), Offset: 11,
		Headers: []kgo.RecordHeader{{Key: ownerHeader, Value: []byte("me")}},
	})
	x.together(t, func() { x.fold(t, 0, 8, "other", "v2") })
	x.goes(t, "begin", "out/0 other=v2")
	x.expect(t, "table/0 other=v2").done(13, nil)
	x.goes(t, "add in/0=9", "commit")
	stands(11)
}

// The mirror end tracks the records of transactions, and their markers.
func TestMirrorEndTracksTransactions(t *testing.T) {
	x := newTransactionTest(t, 1)
	p := x.partitions[0]
	mirrored(&epochTest{partitionEpochs: p})
	p.mirror.end.next = 3
	put(t, x.store, 1, "k", "v7")
	x.together(t, func() { x.fold(t, 0, 7, "other", "v1") })
	x.goes(t, "begin")
	x.expect(t, "out/0 other=v1").done(3, nil)
	x.goes(t, "table/0 other=v1", "add in/0=8", "commit")
	for end := time.Now().Add(5 * time.Second); !p.idle(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("outputs stay in flight")
		}
	}
	p.mirror.end.observed(5)
	if p.mirror.end.hasForeign() {
		t.Errorf("it suspects %v", p.mirror.end.foreign)
	}
	p.mirror.end.observed(6) // another's behind the marker
	if !p.mirror.end.hasForeign() {
		t.Error("another's record was not noticed")
	}
	if err := p.repair("k", 5, nil); err != nil {
		t.Fatal(err)
	}
	x.goes(t, "begin")
	x.expect(t, "out/0 k=of v7").done(6, nil)
	x.goes(t, "commit")
}

// awaitStored waits until a partition has no buffered rows.
func (x *transactionTest) awaitStored(t *testing.T, p *partitionEpochs) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		left := len(p.overlay)
		p.mu.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("rows stay held")
		}
	}
}

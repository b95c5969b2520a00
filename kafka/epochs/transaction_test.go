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

func (s *script) bind() {}

func (s *script) begin() error { return s.ask("begin") }

func (s *script) send(r *kgo.Record, acked func(*kgo.Record, error)) {
	f := &flight{r, acked}
	s.steps <- step{fmt.Sprintf("%s/%d %s=%s", r.Topic, r.Partition, r.Key, r.Value), f.done}
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
	conf := testConfig()
	conf.Guarantee = ExactlyOnce
	x.shared = newTransactions(x.script, conf, func() []*partitionEpochs { return x.partitions },
		func(int32) bool { return false })
	for number := range partitions {
		shelf, err := x.store.Partition(int32(number))
		if err != nil {
			t.Fatal(err)
		}
		p := newPartitionEpochs(conf, shelf)
		close(p.keysKnown) // no filter
		x.shared.join(p)
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
func (x *transactionTest) fold(t *testing.T, partition int, offset int64, key, value string) {
	t.Helper()
	p := x.partitions[partition]
	if err := p.enter(); err != nil {
		t.Fatal(err)
	}
	defer p.gate.Unlock()
	p.output(&kgo.Record{Topic: "out", Partition: int32(partition), Key: []byte(key), Value: []byte(value)})
	if err := p.set(key, []byte(value), value); err != nil {
		t.Fatal(err)
	}
	p.callbackReturned("in", offset)
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
	x.partitions[0].table.next = 41
	x.together(t, func() { x.fold(t, 0, 7, "k", "v1") })
	x.goes(t, "begin")
	out, row := x.expect(t, "out/0 k=v1"), x.expect(t, "table/0 k=v1")
	row.done(41, nil)
	x.quiet(t) // the offsets wait for every acknowledgement
	out.done(3, nil)
	x.goes(t, "add in/0=8")
	commit := x.expect(t, "commit")
	if got := get(t, x.store, 0, "k"); got != "" {
		t.Errorf("on the disk before the commit: %q", got)
	}
	if value := x.partitions[0].buffered(); value != "v1" {
		t.Errorf("the next callback sees %q", value)
	}
	commit.done(0, nil)
	x.shared.flush() // waits for the transaction
	offset, ok, err := x.store.Offset(0)
	if get(t, x.store, 0, "k") != "v1" || offset != 41 || !ok || err != nil {
		t.Errorf("on the disk: %q at %d (%t, %v)", get(t, x.store, 0, "k"), offset, ok, err)
	}
	if p := x.partitions[0]; p.bufferedBytes != 0 || p.bufferedRows() != 0 {
		t.Errorf("still held: %d bytes, %d rows", p.bufferedBytes, p.bufferedRows())
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
	x.fold(t, 0, 12, "k", "v3") // offsets have gaps
	x.quiet(t)
	commit.done(0, nil)
	x.goes(t, "begin", "out/0 k=v2", "out/0 k=v3", "table/0 k=v3", "add in/0=13", "commit")
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

// Whatever fails, nothing of the transaction is stored, and nothing more is published.
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
			x.together(t, func() { x.fold(t, 0, 7, "k", "v1"); x.fold(t, 1, 8, "l", "v1") })
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
			x.shared.flush() // waits for the end of the transaction
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
	x.together(t, func() {
		x.fold(t, 1, 3, "l", "v1")
		p := x.partitions[0]
		if err := p.enter(); err != nil {
			t.Fatal(err)
		}
		p.output(&kgo.Record{Topic: "out"})
		p.fail(errors.New("bad"))
		p.gate.Unlock()
	})
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
	put(t, x.store, 4, "k", "v7")
	p := x.partitions[0]
	p.table.next = 5
	stands := func(want int64) {
		t.Helper()
		x.awaitStored(t, p)
		if offset, ok, err := x.store.Offset(0); offset != want || !ok || err != nil {
			t.Errorf("the disk is at %d (%t, %v), wanted %d", offset, ok, err, want)
		}
	}
	x.together(t, func() { x.fold(t, 0, 7, "other", "v1") })
	x.goes(t, "begin", "out/0 other=v1")
	x.expect(t, "table/0 other=v1").done(9, nil) // behind foreign records from 5 on
	x.goes(t, "add in/0=8")
	commit := x.expect(t, "commit")
	s := scanOf(t, p, guardedTopics(p.conf)[0])
	s.lastRecords["k"] = &kgo.Record{Value: []byte("v5"), Offset: 5}
	if err := s.repair(); err != nil { // rewritten in the next transaction
		t.Fatal(err)
	}
	s.close()
	commit.done(0, nil)
	x.goes(t, "begin")
	row := x.expect(t, "table/0 k=v7")
	if offset, _, err := x.store.Offset(0); offset != 4 || err != nil {
		t.Errorf("the rewrite is not committed, and the disk is at %d (%v)", offset, err)
	}
	row.done(11, nil)                 // behind the marker at 10
	x.goes(t, "add in/0=8", "commit") // again, so that a paused former owner is fenced
	stands(11)
	x.together(t, func() { x.fold(t, 0, 8, "other", "v2") })
	x.goes(t, "begin", "out/0 other=v2")
	x.expect(t, "table/0 other=v2").done(13, nil)
	x.goes(t, "add in/0=9", "commit")
	stands(13)
	x.together(t, func() { x.fold(t, 0, 9, "other", "v3") })
	x.goes(t, "begin", "out/0 other=v3")
	x.expect(t, "table/0 other=v3").done(20, nil) // behind foreign records
	x.goes(t, "add in/0=10", "commit")
	stands(13)
}

// A foreign record that is found after the epoch was closed, and before its rows are sent, leaves no hole between the
// acknowledgements. The offset does not pass it either.
func TestStoreOffsetStopsBeforeARecordFoundMeanwhile(t *testing.T) {
	x := newTransactionTest(t, 1)
	put(t, x.store, 4, "k", "v7")
	p := x.partitions[0]
	p.table.next = 5
	x.together(t, func() { x.fold(t, 0, 7, "other", "v1") })
	begin := x.expect(t, "begin")
	if startScan(p, guardedTopics(p.conf)[0], 6) == nil {
		t.Fatal("the foreign record at 5 is not noticed")
	}
	begin.done(0, nil)
	x.goes(t, "out/0 other=v1")
	x.expect(t, "table/0 other=v1").done(6, nil)
	x.goes(t, "add in/0=8", "commit")
	x.awaitStored(t, p)
	if offset, ok, err := x.store.Offset(0); offset != 4 || !ok || err != nil {
		t.Errorf("the disk is at %d (%t, %v), wanted 4", offset, ok, err)
	}
}

// Both logs track the records of transactions, and their markers.
func TestOwnLogTracksTransactions(t *testing.T) {
	x := newTransactionTest(t, 1)
	p := x.partitions[0]
	mirrored(p)
	p.mirror.next, p.table.next = 3, 6
	put(t, x.store, 1, "k", "v7")
	x.together(t, func() { x.fold(t, 0, 7, "other", "v1") })
	x.goes(t, "begin")
	x.expect(t, "out/0 other=v1").done(3, nil)
	x.expect(t, "table/0 other=v1").done(6, nil)
	x.goes(t, "add in/0=8")
	commit := x.expect(t, "commit")
	for i, topic := range guardedTopics(p.conf) {
		if startScan(p, topic, 100) != nil {
			t.Errorf("topic %d: the end is believed in a transaction", i)
		}
	}
	commit.done(0, nil)
	x.shared.flush() // waits for the transaction
	for i, topic := range guardedTopics(p.conf) {
		marker := []int64{7, 4}[i]
		if startScan(p, topic, marker+1) != nil {
			t.Errorf("topic %d: the marker is taken for a foreign record", i)
		}
		if startScan(p, topic, marker+2) == nil {
			t.Errorf("topic %d: a foreign record was not noticed", i)
		}
	}
	repairs(t, p, 1, "k", nil)
	x.goes(t, "begin")
	x.expect(t, "out/0 k=of v7").done(6, nil)
	x.goes(t, "commit")
}

func (p *partitionEpochs) bufferedRows() int { return len(p.open.rows) + len(p.publishingRows) }

// awaitStored waits until a partition has no buffered rows.
func (x *transactionTest) awaitStored(t *testing.T, p *partitionEpochs) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		left := p.bufferedRows()
		p.mu.Unlock()
		if left == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("rows stay held")
		}
	}
}

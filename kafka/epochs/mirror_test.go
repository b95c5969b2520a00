package epochs

import (
	"slices"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// Records of other writers between or after our own are found, our own are not.
func TestMirrorEndFindsForeignOffsets(t *testing.T) {
	found := func(e *mirrorEnd, next int64, others ...committed.Span) {
		t.Helper()
		got, to := e.takeForeign()
		if !slices.Equal(got, others) || to != next {
			t.Fatalf("%v up to %d, want %v up to %d", got, to, others, next)
		}
	}
	e := mirrorEnd{next: -1}
	e.acknowledged(maxScanBack + 100) // whoever was the owner before wrote what lies before our first
	found(&e, maxScanBack+101, committed.Span{From: 100, To: maxScanBack + 100})
	at := int64(maxScanBack + 101)
	e.acknowledged(at)
	e.observed(at + 1)
	found(&e, at+1)
	e.acknowledged(at + 3) // two of others before it
	e.acknowledged(at + 4)
	e.observed(at + 6) // and one after
	found(&e, at+6, committed.Span{From: at + 1, To: at + 3}, committed.Span{From: at + 5, To: at + 6})
	e.observed(at + 5) // an answer from a broker that lags
	found(&e, at+6)
	e.acknowledged(at + 7)
	e.restoreForeign([]committed.Span{{From: 1, To: 2}})
	found(&e, at+8, committed.Span{From: 1, To: 2}, committed.Span{From: at + 6, To: at + 7})

	idle := mirrorEnd{next: -1}
	idle.observed(50)
	found(&idle, 50, committed.Span{From: 0, To: 50})
}

// A marker of our transaction is not foreign; a record beside it is.
func TestMirrorEndSkipsMarkersOfOurTransactions(t *testing.T) {
	e := mirrorEnd{next: 10}
	found := func(next int64, others ...committed.Span) {
		t.Helper()
		if got, to := e.takeForeign(); !slices.Equal(got, others) || to != next {
			t.Fatalf("%v up to %d, want %v up to %d", got, to, others, next)
		}
	}
	e.acknowledged(10)
	e.acknowledged(11)
	e.transactionCommitted()
	e.observed(12) // the marker has not landed
	e.observed(13)
	e.acknowledged(13)
	found(14)
	e.transactionCommitted()
	e.observed(16) // a record beside the marker at 14 or 15
	found(16, committed.Span{From: 14, To: 16})
	e.acknowledged(16)
	e.transactionCommitted()
	e.acknowledged(19) // a record beside the marker at 17 or 18
	found(20, committed.Span{From: 17, To: 19})
	e.acknowledged(21) // inside a transaction there is no marker
	found(22, committed.Span{From: 20, To: 21})
}

func mirrored(e *epochTest) {
	e.conf.Mirror = &Mirror{
		Topic:  "out",
		Older:  func(record, row []byte) bool { return string(record) < "of "+string(row) },
		Record: func(row []byte) ([]byte, error) { return append([]byte("of "), row...), nil },
	}
}

// A zombie appends an output of an old row after ours: ours is sent again, and only then.
func TestOlderForeignOutputIsRepaired(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e)
	put(t, e.store, 1, "k", "v7")
	for _, value := range []string{"of v7", "of v8"} {
		if err := e.repair("k", 5, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	for _, value := range [][]byte{[]byte("of v1"), nil} {
		if err := e.repair("never seen", 5, value); err != nil {
			t.Fatal(err)
		}
	}
	e.wire.quiet(t)
	for _, value := range [][]byte{[]byte("of v6"), nil} { // nil: deleted by another writer
		if err := e.repair("k", 5, value); err != nil {
			t.Fatal(err)
		}
		sent := e.wire.next(t)
		if sent.Topic != "out" || string(sent.Key) != "k" || string(sent.Value) != "of v7" {
			t.Fatalf("%q is mended with %s %q %q", value, sent.Topic, sent.Key, sent.Value)
		}
		sent.done(9, nil)
	}
}

// The newest row is the buffered one, if there is one.
func TestRepairUsesUnpublishedRows(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e)
	put(t, e.store, 1, "k", "v7")
	e.fold(t, "k", "v8")
	output := e.wire.next(t)
	if err := e.repair("k", 5, []byte("of v7")); err != nil {
		t.Fatal(err)
	}
	if again := e.wire.next(t); string(again.Value) != "of v8" {
		t.Fatalf("mended with %q", again.Value)
	} else {
		again.done(2, nil)
	}
	output.done(1, nil)
	e.wire.next(t).done(3, nil) // the row
}

// Our record that is in flight, or behind the foreign one, is the last one of its key anyway.
func TestNoRepairBeforeOurOwnRecord(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e)
	put(t, e.store, 1, "k", "v7")
	before, _ := e.fold(t, "before", "v1")
	e.mirror.end.observed(6)
	look := e.startScan()
	defer look.close()
	begun := make(chan error)
	go func() { begun <- look.takeForeign(t.Context()) }()
	output := e.wire.next(t)
	e.fold(t, "k", "v8") // meanwhile
	select {
	case <-begun:
		t.Fatal("begins before what was sent has landed")
	case <-time.After(20 * time.Millisecond):
	}
	output.done(6, nil)
	if err := <-begun; err != nil || look.next != 7 {
		t.Fatalf("%v; looks up to %d", err, look.next)
	}
	if err := before.result(t); err != nil {
		t.Fatal(err)
	}
	look.lastRecords["k"] = &kgo.Record{Offset: 5, Value: []byte("of v6")}      // ours will come after it
	look.lastRecords["before"] = &kgo.Record{Offset: 6, Value: []byte("of v0")} // it is ours
	if err := look.repair(); err != nil {
		t.Fatal(err)
	}
	newest := e.wire.next(t)
	for newest.Topic != "out" { // the first one's row
		newest.done(1, nil)
		newest = e.wire.next(t)
	}
	newest.done(7, nil)
	row := e.wire.next(t)
	if row.Topic != "table" {
		t.Fatalf("sent again: %s %q", row.Topic, row.Value)
	}
	row.done(2, nil)
	if err := e.repair("k", 8, []byte("of v6")); err != nil { // behind ours
		t.Fatal(err)
	}
	e.wire.next(t).done(9, nil)
}

// A closed partition belongs to another owner: nothing may be sent to it.
func TestNoRepairInAClosedPartition(t *testing.T) {
	store := openTestStore(t)
	t.Cleanup(func() { _ = store.Close() })
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{came: make(chan struct{}, 1<<16)}
	p := newPartitionEpochs(Config{Table: "table"}, nil, shelf, w.send)
	go p.run()
	mirrored(&epochTest{partitionEpochs: p})
	put(t, store, 1, "k", "v7")
	p.close()
	if err := p.repair("k", 5, []byte("of v6")); err != nil {
		t.Fatal(err)
	}
	refused := make(promised, 1)
	p.output(&kgo.Record{Topic: "out"},
		func(m *sarama.ProducerMessage, err error) *goka.Promise { return refused.finish(m, err) })
	if err := refused.result(t); err == nil {
		t.Error("an output was taken")
	}
	w.quiet(t)
}

// When an owner ends before it has written its row again, the next owner does it.
func TestRecoveredTableEndsWithTheNewestRow(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v7")
	put(t, e.store, 2, "other", "v7")
	e.noteRecovered("k", true)
	e.noteRecovered("other", true)
	e.noteRecovered("other", false) // it was written again
	if err := e.writePendingRewrites(); err != nil {
		t.Fatal(err)
	}
	row := e.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" || row.Topic != "table" {
		t.Fatalf("wrote %s %q %q", row.Topic, row.Key, row.Value)
	}
	row.done(3, nil)
	e.wire.quiet(t)
}

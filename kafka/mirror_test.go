package kafka

import (
	"testing"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// What others write between our own records, or after them, is a gap; what we write is not.
func TestEdgeFindsWhatOthersWrote(t *testing.T) {
	e := unknownEdge()
	e.landed(3) // before the end was asked for
	e.ended(lookBack + 100)
	if gap := e.take(); gap != (Span{100, lookBack + 100}) {
		t.Fatalf("at first %v", gap)
	}
	at := int64(lookBack + 100)
	e.landed(at)
	e.landed(at + 1)
	e.ended(at + 2)
	if gap := e.take(); gap != (Span{}) {
		t.Fatalf("ours alone: %v", gap)
	}
	e.landed(at + 4) // two of others before it
	e.landed(at + 5)
	e.ended(at + 7) // and one after
	if gap := e.take(); gap != (Span{at + 2, at + 7}) {
		t.Fatalf("others: %v", gap)
	}
	e.landed(at + 6) // it was ours, acknowledged late
	e.ended(at + 6)  // an answer from a broker that lags
	if gap := e.take(); gap != (Span{}) {
		t.Fatalf("known already: %v", gap)
	}
	e.restore(Span{1, 2})
	e.landed(at + 8)
	e.restore(Span{1, 2})
	if gap := e.take(); gap != (Span{1, at + 9}) {
		t.Fatalf("tried again: %v", gap)
	}
}

func mirrored(e *epochTest) {
	e.conf.Mirror = &Mirror{
		Topic:  "out",
		Older:  func(record, row []byte) bool { return string(record) < "of "+string(row) },
		Record: func(row []byte) ([]byte, error) { return append([]byte("of "), row...), nil },
	}
}

// A paused owner that wakes appends an output of an old row after ours: ours is sent again, and only then.
func TestOlderOutputOfAnotherOwnerIsMended(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e)
	put(t, e.store, 0, 1, "k", "v7")
	for _, value := range []string{"of v7", "of v8"} {
		if err := e.mend("k", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.mend("k", nil); err != nil { // deleted by hand
		t.Fatal(err)
	}
	if err := e.mend("never seen", []byte("of v1")); err != nil {
		t.Fatal(err)
	}
	e.wire.quiet(t)
	if err := e.mend("k", []byte("of v6")); err != nil {
		t.Fatal(err)
	}
	sent := e.wire.next(t)
	if sent.Topic != "out" || string(sent.Key) != "k" || string(sent.Value) != "of v7" {
		t.Fatalf("mended with %s %q %q", sent.Topic, sent.Key, sent.Value)
	}
	sent.done(9, nil)
}

// The newest row is the one that waits in an epoch, if one does.
func TestMendKnowsRowsThatAreNotPublishedYet(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e)
	put(t, e.store, 0, 1, "k", "v7")
	e.fold(t, "k", "v8")
	output := e.wire.next(t)
	if err := e.mend("k", []byte("of v7")); err != nil {
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

// A partition that was given up belongs to another: nothing may be sent there any more.
func TestNothingIsMendedInAPartitionThatWasGivenUp(t *testing.T) {
	store := openTestStore(t, t.TempDir(), "c/t")
	t.Cleanup(func() { _ = store.Close() })
	shelf, err := newShelf(store, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{came: make(chan struct{}, 1<<16)}
	p := newPartitionEpochs(EpochConfig{Store: store, Table: "table"}, nil, shelf, w.send)
	go p.run()
	mirrored(&epochTest{partitionEpochs: p})
	put(t, store, 0, 1, "k", "v7")
	p.close()
	if err := p.mend("k", []byte("of v6")); err != nil {
		t.Fatal(err)
	}
	refused := make(promised, 1)
	p.output(&kgo.Record{Topic: "out"}, func(m *sarama.ProducerMessage, err error) *goka.Promise { return refused.finish(m, err) })
	if err := refused.result(t); err == nil {
		t.Error("an output was taken")
	}
	w.quiet(t)
}

// An owner may be gone before it has written its row again: whoever recovers the table does.
func TestRecoveredTableEndsWithTheNewestRow(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 0, 1, "k", "v7")
	put(t, e.store, 0, 2, "other", "v7")
	e.recalled("k", true)
	e.recalled("other", true)
	e.recalled("other", false) // it was written again
	if err := e.rewrite(); err != nil {
		t.Fatal(err)
	}
	row := e.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" || row.Topic != "table" {
		t.Fatalf("wrote %s %q %q", row.Topic, row.Key, row.Value)
	}
	row.done(3, nil)
	e.wire.quiet(t)
}

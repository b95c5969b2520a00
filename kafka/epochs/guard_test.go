package epochs

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// acked is an acknowledgement of a record that was sent.
func (l *ownLog) ackedAt(offset int64) (foreignFrom int64) {
	l.noteSent(nil)
	foreignFrom = l.noteAcked(nil, offset)
	l.settle()
	return foreignFrom
}

// finds checks which foreign offsets are found, and the known end.
func (l *ownLog) finds(t *testing.T, next int64, want ...committed.Span) {
	t.Helper()
	first := int64(math.MaxInt64)
	if len(want) > 0 {
		first = want[0].From
	}
	if from := l.foreignFrom(); from != first {
		t.Errorf("foreign from %d, want %d", from, first)
	}
	got, to := l.takeForeign()
	if !slices.Equal(got, want) || to != next {
		t.Fatalf("%v up to %d, want %v up to %d", got, to, want, next)
	}
	if from := l.foreignFrom(); from != first {
		t.Errorf("in the scan, foreign from %d, want %d", from, first)
	}
	l.endScan(true)
}

// Records of other writers between or after our own are found, our own are not.
func TestOwnLogFindsForeignOffsets(t *testing.T) {
	l := &ownLog{next: -1}
	// Whoever was the owner before wrote what lies before our first.
	if from := l.ackedAt(maxScanBack + 100); from != 100 {
		t.Errorf("foreign from %d", from)
	}
	l.finds(t, maxScanBack+101, committed.Span{From: 100, To: maxScanBack + 100})
	at := int64(maxScanBack + 101)
	if from := l.ackedAt(at); from != math.MaxInt64 {
		t.Errorf("foreign from %d", from)
	}
	l.observed(at + 1)
	l.finds(t, at+1)
	l.ackedAt(at + 3) // two of others before it
	l.ackedAt(at + 4)
	l.observed(at + 6) // and one after
	l.finds(t, at+6, committed.Span{From: at + 1, To: at + 3}, committed.Span{From: at + 5, To: at + 6})
	l.observed(at + 5) // an answer from a broker that lags
	l.finds(t, at+6)
	l.noteSent(nil)
	l.observed(at + 7) // ours, which is in flight
	l.noteAcked(nil, at+6)
	l.settle()
	l.finds(t, at+7)

	idle := &ownLog{next: -1}
	idle.observed(50)
	idle.finds(t, 50, committed.Span{From: 0, To: 50})
}

// What a scan took and did not check is checked again.
func TestOwnLogChecksAgain(t *testing.T) {
	l := &ownLog{next: 1}
	l.ackedAt(2)
	l.takeForeign()
	l.ackedAt(5)
	l.endScan(false)
	l.finds(t, 6, committed.Span{From: 1, To: 2}, committed.Span{From: 3, To: 5})
}

// A marker of our transaction is not foreign; a record beside it is.
func TestOwnLogSkipsMarkersOfOurTransactions(t *testing.T) {
	l := &ownLog{next: 10}
	l.ackedAt(10)
	l.ackedAt(11)
	l.transactionCommitted()
	l.observed(12) // the marker has not landed
	l.observed(13)
	l.ackedAt(13)
	l.finds(t, 14)
	l.transactionCommitted()
	l.observed(16) // a record beside the marker at 14 or 15
	l.finds(t, 16, committed.Span{From: 14, To: 16})
	l.ackedAt(16)
	l.transactionCommitted()
	l.ackedAt(19) // a record beside the marker at 17 or 18
	l.finds(t, 20, committed.Span{From: 17, To: 19})
	l.ackedAt(21) // inside a transaction there is no marker
	l.finds(t, 22, committed.Span{From: 20, To: 21})
}

func mirrored(p *partitionEpochs) {
	p.conf.Mirror = &Mirror{
		Topic:  "out",
		Older:  func(record, row []byte) bool { return string(record) < "of "+string(row) },
		Record: func(row []byte) ([]byte, error) { return append([]byte("of "), row...), nil },
	}
}

// scanOf starts a scan of the table or the mirror, and takes the foreign offsets.
func scanOf(t *testing.T, p *partitionEpochs, topic guardedTopic) *foreignScan {
	t.Helper()
	p.mu.Lock()
	log := topic.log(p)
	if len(log.foreign) == 0 {
		log.foreign = []committed.Span{{From: 0, To: 1}}
	}
	p.mu.Unlock()
	s := startScan(p, topic, 0)
	if err := s.takeForeign(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// repairs repairs a key of the table (0) or its mirror (1) after a foreign record.
func repairs(t *testing.T, p *partitionEpochs, topic int, key string, value []byte) {
	t.Helper()
	const offset = 5
	s := scanOf(t, p, guardedTopics(p.conf)[topic])
	defer s.close()
	s.lastRecords[key] = &kgo.Record{Offset: offset, Value: value}
	s.foreign = []committed.Span{{From: offset, To: offset + 1}}
	if err := s.repair(); err != nil {
		t.Fatal(err)
	}
}

// A zombie appends an old row, or an output of it, after ours: ours is written again, and only then. So it is after
// another writer's null.
func TestOlderForeignRecordsAreRepaired(t *testing.T) {
	for topic, name := range []string{"table", "out"} {
		t.Run(name, func(t *testing.T) {
			e, of := newEpochTest(t), []string{"", "of "}[topic]
			mirrored(e.partitionEpochs)
			put(t, e.store, 1, "k", "v7")
			for _, value := range []string{of + "v7", of + "v8"} {
				repairs(t, e.partitionEpochs, topic, "k", []byte(value))
			}
			for _, value := range [][]byte{[]byte(of + "v1"), nil} {
				repairs(t, e.partitionEpochs, topic, "never seen", value)
			}
			e.wire.quiet(t)
			for _, value := range [][]byte{[]byte(of + "v6"), nil} { // nil: deleted by another writer
				repairs(t, e.partitionEpochs, topic, "k", value)
				sent := e.wire.next(t)
				if sent.Topic != name || string(sent.Key) != "k" || string(sent.Value) != of+"v7" {
					t.Fatalf("%q is repaired with %s %q %q", value, sent.Topic, sent.Key, sent.Value)
				}
				sent.done(9, nil)
				e.awaitIdle(t, guardedTopics(e.conf)[topic].log(e.partitionEpochs))
			}
		})
	}
}

// The newest row is the buffered one, if there is one.
func TestRepairUsesUnpublishedRows(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e.partitionEpochs)
	put(t, e.store, 1, "k", "v7")
	s := &foreignScan{partition: e.partitionEpochs, topic: guardedTopics(e.conf)[1], log: &e.mirror}
	e.fold(t, "k", "v8")
	output := e.wire.next(t)
	if err := s.repairKey("k", &kgo.Record{Offset: 5, Value: []byte("of v7")}); err != nil {
		t.Fatal(err)
	}
	output.done(1, nil)
	e.wire.next(t).done(3, nil) // the row
	again := e.wire.next(t)
	if string(again.Value) != "of v8" {
		t.Fatalf("repaired with %q", again.Value)
	}
	again.done(2, nil)
}

// awaitIdle waits until nothing of ours is in flight.
func (e *epochTest) awaitIdle(t *testing.T, log *ownLog) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		idle := log.idle()
		e.mu.Unlock()
		if idle {
			return
		}
		if time.Now().After(end) {
			t.Fatal("something stays in flight")
		}
	}
}

// Our record that is in flight, or behind the foreign one, is the last one of its key anyway.
func TestNoRepairBeforeOurOwnRecord(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e.partitionEpochs)
	put(t, e.store, 1, "k", "v7")
	mirror := guardedTopics(e.conf)[1]
	e.mirror.observed(6)
	e.fold(t, "before", "v1")
	s := startScan(e.partitionEpochs, mirror, 6)
	begun := make(chan error)
	go func() { begun <- s.takeForeign(t.Context()) }()
	output := e.wire.next(t)
	e.fold(t, "k", "v8") // meanwhile
	select {
	case <-begun:
		t.Fatal("begins before what was sent has landed")
	case <-time.After(20 * time.Millisecond):
	}
	output.done(6, nil)
	if err := <-begun; err != nil || s.next != 7 {
		t.Fatalf("%v; reads up to %d", err, s.next)
	}
	s.lastRecords["k"] = &kgo.Record{Offset: 5, Value: []byte("of v6")}      // ours will come after it
	s.lastRecords["before"] = &kgo.Record{Offset: 6, Value: []byte("of v0")} // it is ours
	if err := s.repair(); err != nil {
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
	if err := s.repairKey("k", &kgo.Record{Offset: 8, Value: []byte("of v6")}); err != nil { // behind ours
		t.Fatal(err)
	}
	e.wire.next(t).done(9, nil)
	s.close()
}

// A closed partition belongs to another owner: nothing may be sent to it.
func TestNoRepairInAClosedPartition(t *testing.T) {
	e := newEpochTest(t)
	mirrored(e.partitionEpochs)
	put(t, e.store, 1, "k", "v7")
	e.publisher.drain()
	e.close()
	for topic := range 2 {
		repairs(t, e.partitionEpochs, topic, "k", nil)
	}
	e.wire.quiet(t)
}

package epochs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"tidemark/kafka/localstore"
)

// In recovery only an owner's null deletes. A row before another writer's null is kept, and written again unless its
// owner has done so.
func TestRecoveryKeepsARowBeforeAForeignNull(t *testing.T) {
	e := newEpochTest(t)
	e.open.recovery = true
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	ours := goka.Headers{ownerHeader: []byte("one before")}
	for offset, r := range []struct {
		key, value string
		headers    goka.Headers
	}{
		{"kept", "v7", ours},
		{"kept", "", nil},
		{"answered", "v7", ours},
		{"answered", "", nil},
		{"answered", "v7", ours},
		{"deleted", "v7", ours},
		{"deleted", "", ours},
		{"kept, then deleted", "v7", ours},
		{"kept, then deleted", "", nil},
		{"kept, then deleted", "", ours},
		{"never seen", "", nil},
	} {
		var value []byte
		if r.value != "" {
			value = []byte(r.value)
		}
		if err := epochs.applyRecovered(recovering{offset: int64(offset), headers: r.headers}, nil, r.key,
			value); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"kept": "v7", "answered": "v7", "deleted": "", "kept, then deleted": "",
		"never seen": "",
	} {
		if row := get(t, e.store, 0, key); row != want {
			t.Errorf("the row of %q is %q, want %q", key, row, want)
		}
	}
	row := e.wire.next(t)
	if string(row.Key) != "kept" || string(row.Value) != "v7" {
		t.Fatalf("wrote %q %q", row.Key, row.Value)
	}
	row.done(20, nil)
	e.wire.quiet(t)
}

// Pending rewrites are on the disk, because the stored offset is past the records that made them necessary.
func TestPendingRewritesSurviveARestart(t *testing.T) {
	e := newEpochTest(t)
	e.open.recovery = true
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	for offset, value := range []string{"v7", "v5"} {
		if err := epochs.applyRecovered(recovering{offset: int64(offset)}, nil, "k", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.storeRecovered(); err != nil {
		t.Fatal(err)
	}
	next := newEpochTestOn(t, e.store)
	if err := next.loadPendingRewrites(); err != nil {
		t.Fatal(err)
	}
	if err := next.start(); err != nil {
		t.Fatal(err)
	}
	row := next.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" {
		t.Fatalf("wrote %q %q", row.Key, row.Value)
	}
	row.done(2, nil)
	published := next.fold(t, "other", "v1") // after it
	next.wire.next(t).done(0, nil)
	next.wire.next(t).done(3, nil)
	next.committed(t, published)
	last := newEpochTestOn(t, e.store)
	if err := last.loadPendingRewrites(); err != nil || len(last.pendingRewrites) > 0 {
		t.Errorf("still pending: %v, %v", last.pendingRewrites, err)
	}
}

// A recovery in batches, of any size and interrupted at any record, is the same as one record after the other.
func TestRecoveryInBatches(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		store := openTestStore(t)
		rows, pending := map[string]string{}, map[string]bool{}
		e := recoveringTestOn(t, store)
		from := int64(0)
		type change struct {
			key, value string
			byOwner    bool
		}
		var log []change
		for len(log) < 400 {
			c := change{key: strconv.Itoa(random.IntN(25)), byOwner: random.IntN(2) == 0}
			if random.IntN(8) > 0 {
				c.value = fmt.Sprintf("v%03d %c", max(0, len(log)-random.IntN(60)), 'a'+random.IntN(4))
			}
			log = append(log, c)
			switch row := rows[c.key]; {
			case row != "" && (c.value == "" && !c.byOwner || c.value != "" && c.value < row):
				pending[c.key] = true
			case c.value != "":
				rows[c.key] = c.value
				delete(pending, c.key)
			default:
				if c.byOwner {
					delete(rows, c.key)
				}
				delete(pending, c.key)
			}
		}
		for offset := int64(0); offset < int64(len(log)); offset++ {
			c := log[offset]
			var value []byte
			if c.value != "" {
				value = []byte(c.value)
			}
			if err := e.recover(c.key, value, offset, c.byOwner); err != nil {
				t.Fatal(err)
			}
			if random.IntN(30) == 0 {
				if err := e.storeRecovered(); err != nil {
					t.Fatal(err)
				}
			}
			if random.IntN(60) == 0 {
				e = recoveringTestOn(t, store) // what is not on the disk is recovered again
				stored, err := e.partitionEpochs.store.GetOffset(-1)
				if err != nil || stored < from-1 {
					t.Fatalf("seed %d: the disk is at %d, %v, and was at %d", seed, stored, err, from)
				}
				from, offset = stored+1, stored
			}
		}
		if err := e.storeRecovered(); err != nil {
			t.Fatal(err)
		}
		e.holdsRecovered(t, seed, rows, pending)
		if err := store.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// recoveringTestOn is a partition before its first record, with the second word of a row as its index entry.
func recoveringTestOn(t *testing.T, store *localstore.Store) *epochTest {
	t.Helper()
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	conf := testConfig()
	conf.Index = func(key string, row []byte) []string { return []string{strings.Fields(string(row))[1] + "/" + key} }
	e := &epochTest{partitionEpochs: newPartitionEpochs(conf, shelf), store: store}
	e.open.recovery = true
	e.rows.share = func() int64 { return 1000 }
	if err := e.loadPendingRewrites(); err != nil {
		t.Fatal(err)
	}
	e.fillKeys()
	return e
}

func (e *epochTest) holdsRecovered(t *testing.T, seed uint64, rows map[string]string, pending map[string]bool) {
	t.Helper()
	entries := map[string]bool{}
	for key := range 25 {
		key := strconv.Itoa(key)
		if got := get(t, e.store, 0, key); got != rows[key] {
			t.Errorf("seed %d: row %s is %q, want %q", seed, key, got, rows[key])
		}
		if row, err := e.current(key); string(row.value) != rows[key] || err != nil {
			t.Errorf("seed %d: callbacks see %q, %v, want %q", seed, row.value, err, rows[key])
		}
		if rows[key] != "" {
			entries[e.conf.Index(key, []byte(rows[key]))[0]] = true
		}
	}
	for space, want := range map[localstore.Space]map[string]bool{indexSpace: entries, pendingRewriteSpace: pending} {
		found := map[string]bool{}
		scan := e.partitionEpochs.store.Scan(space, nil, nil)
		for scan.Next() {
			found[string(scan.Key())] = true
		}
		if err := scan.Close(); err != nil || !maps.Equal(found, want) {
			t.Errorf("seed %d: space %x has %v, %v, want %v", seed, space, found, err, want)
		}
	}
}

// The progress counts the partitions that are not recovered.
func TestRecoveryProgress(t *testing.T) {
	store := openTestStore(t)
	defer store.Close()
	epochs, now := newEpochs(testConfig(), store, ""), time.Now()
	if text := epochs.recoverySoFar(now); text != "" {
		t.Errorf("without partitions: %s", text)
	}
	for number := range int32(3) {
		e := recoveringTestOn(t, store)
		epochs.byPartition[number] = e.partitionEpochs
		e.progress = recoveryProgress{began: now.Add(-6 * time.Second), first: -1, end: 1100}
		for offset := range int64(50) {
			if err := e.recover("k", []byte("v a"), 100+2*offset, false); err != nil {
				t.Fatal(err)
			}
		}
		e.recovered.Store(number == 2)
	}
	if got, want := epochs.recoverySoFar(now), "100 records of 2 partitions, 10 %, about 55 s left"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// recovering is the context that goka passes to the update callback.
type recovering struct {
	goka.UpdateContext
	offset  int64
	headers goka.Headers
}

func (r recovering) Partition() int32      { return 0 }
func (r recovering) Offset() int64         { return r.offset }
func (r recovering) Headers() goka.Headers { return r.headers }

// A failure to write a row again ends the session.
func TestFailedRewriteEndsTheSession(t *testing.T) {
	e := newEpochTest(t)
	epochs := newEpochs(e.conf, e.store, "")
	e.onFailure = epochs.fail
	put(t, e.store, 1, "k", "v7")
	ctx, stop := epochs.whilePublishing(t.Context())
	defer stop()
	repairs(t, e.partitionEpochs, 0, "k", []byte("v5"))
	refused := errors.New("refused")
	e.wire.next(t).done(0, refused)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, refused) {
		t.Errorf("ended with %v", err)
	}
}

// A recovery that the end of the session interrupts is not complete, although goka calls MarkRecovered before it closes
// the partition.
func TestInterruptedRecoveryIsNotPublished(t *testing.T) {
	e := newEpochTest(t)
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	e.noteRecovered("k", true)
	if err := (&epochStorage{Partition: e.partitionEpochs.store}).MarkRecovered(); err != nil {
		t.Error(err)
	}
	over, end := context.WithCancel(t.Context())
	end()
	h := &sessionHandler{inner: idle{}, epochs: epochs, session: &session{fakeSession{ctx: over}}}
	if err := h.ConsumeClaim(fakeSession{ctx: over}, fakeClaim{}); err != nil {
		t.Error(err)
	}
	e.wire.quiet(t)
	if e.recovered.Load() {
		t.Error("counts as recovered")
	}
}

// When an owner ends before it has written its row again, the next owner does it.
func TestRecoveredTableEndsWithTheNewestRow(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v7")
	put(t, e.store, 2, "other", "v7")
	e.noteRecovered("k", true)
	e.noteRecovered("other", true)
	e.noteRecovered("other", false) // it was written again
	if err := e.start(); err != nil {
		t.Fatal(err)
	}
	row := e.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" || row.Topic != "table" {
		t.Fatalf("wrote %s %q %q", row.Topic, row.Key, row.Value)
	}
	row.done(3, nil)
	e.wire.quiet(t)
}

// idle is a goka that consumes nothing.
type idle struct{}

func (idle) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (idle) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (idle) ConsumeClaim(sarama.ConsumerGroupSession, sarama.ConsumerGroupClaim) error {
	return nil
}

type fakeSession struct {
	sarama.ConsumerGroupSession
	ctx context.Context
}

func (s fakeSession) Claims() map[string][]int32 { return map[string][]int32{"in": {0}} }
func (s fakeSession) Context() context.Context   { return s.ctx }

type fakeClaim struct{ sarama.ConsumerGroupClaim }

func (fakeClaim) Topic() string        { return "in" }
func (fakeClaim) Partition() int32     { return 0 }
func (fakeClaim) InitialOffset() int64 { return 0 }
func (fakeClaim) Messages() <-chan *sarama.ConsumerMessage {
	none := make(chan *sarama.ConsumerMessage)
	close(none)
	return none
}

// waits is a goka whose session does not end before a callback has returned.
type waits struct {
	idle
	returned chan error
}

func (w waits) Cleanup(sarama.ConsumerGroupSession) error { return <-w.returned }

// A callback that waits for acknowledgements from a partition without a leader does not keep the member in a session
// that has ended.
func TestCallbackWaitingForRoomEndsWithItsSession(t *testing.T) {
	t.Parallel()
	e := newEpochTest(t)
	e.fillUp(t)
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	inner := waits{returned: make(chan error, 1)}
	go func() { inner.returned <- e.enter() }()
	h := &sessionHandler{inner: inner, epochs: epochs, session: &session{fakeSession{ctx: t.Context()}}}
	cleaned := make(chan error, 1)
	go func() { cleaned <- h.Cleanup(nil) }()
	select {
	case err := <-cleaned:
		if !errors.Is(err, errClosed) {
			t.Errorf("the callback gets %v", err)
		}
	case <-time.After(2 * drainTimeout):
		t.Error("the session did not end")
	}
}

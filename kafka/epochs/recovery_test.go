package epochs

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// In recovery only an owner's null deletes. A row before another writer's null is kept, and written again unless its
// owner has done so.
func TestRecoveryKeepsARowBeforeAForeignNull(t *testing.T) {
	e := newEpochTest(t)
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
	for key, want := range map[string]string{
		"kept": "v7", "answered": "v7", "deleted": "", "kept, then deleted": "",
		"never seen": "",
	} {
		if row := get(t, e.store, 0, key); row != want {
			t.Errorf("the row of %q is %q, want %q", key, row, want)
		}
	}
	if err := e.writePendingRewrites(); err != nil {
		t.Fatal(err)
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
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	for offset, value := range []string{"v7", "v5"} {
		if err := epochs.applyRecovered(recovering{offset: int64(offset)}, nil, "k", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	next := newEpochTestOn(t, e.store)
	if err := next.loadPendingRewrites(); err != nil {
		t.Fatal(err)
	}
	if err := next.writePendingRewrites(); err != nil {
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
	for range maxUnacked {
		e.callback(t, func() { e.output(&kgo.Record{Topic: "out"}) })
	}
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

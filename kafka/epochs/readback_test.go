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

// A zombie appends an old row after ours: ours is written again, and only then.
func TestOlderForeignRowIsRewritten(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v7")
	r := &readback{owner: []byte("me"), partition: func(int32) *partitionEpochs { return e.partitionEpochs }}
	record := func(owner, value string) *kgo.Record {
		return &kgo.Record{
			Key: []byte("k"), Value: []byte(value),
			Headers: []kgo.RecordHeader{{Key: ownerHeader, Value: []byte(owner)}},
		}
	}
	r.handle(record("other", "v5")) // while the table is recovered: the row may not be the newest yet
	e.wire.quiet(t)
	e.recovered.Store(true)
	r.handle(record("me", "v5"))    // our own, read late
	r.handle(record("other", "v8")) // nothing to mend
	e.wire.quiet(t)
	r.handle(record("other", "v5"))
	row := e.wire.next(t)
	if string(row.Value) != "v7" || row.Topic != "table" {
		t.Fatalf("answered with %s %q", row.Topic, row.Value)
	}
	row.done(9, nil)
}

// So it is after a null of another writer, but not after one of ours.
func TestForeignNullIsRewritten(t *testing.T) {
	e := newEpochTest(t)
	put(t, e.store, 1, "k", "v7")
	e.recovered.Store(true)
	r := &readback{owner: []byte("me"), partition: func(int32) *partitionEpochs { return e.partitionEpochs }}
	r.handle(&kgo.Record{Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: ownerHeader, Value: []byte("me")}}})
	r.handle(&kgo.Record{Key: []byte("never seen")})
	e.wire.quiet(t)
	r.handle(&kgo.Record{Key: []byte("k")})
	row := e.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" {
		t.Fatalf("answered with %q %q", row.Key, row.Value)
	}
	row.done(9, nil)
}

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
	next := &epochTest{
		newPartitionEpochs(e.conf, []byte("next"), e.partitionEpochs.store, e.wire.send), e.wire,
		e.store,
	}
	go next.run()
	t.Cleanup(next.close)
	if err := next.loadPendingRewrites(); err != nil {
		t.Fatal(err)
	}
	if err := next.writePendingRewrites(); err != nil {
		t.Fatal(err)
	}
	row := e.wire.next(t)
	if string(row.Key) != "k" || string(row.Value) != "v7" {
		t.Fatalf("wrote %q %q", row.Key, row.Value)
	}
	row.done(2, nil)
	_, table := next.fold(t, "other", "v1") // published after it
	e.wire.next(t).done(0, nil)
	e.wire.next(t).done(3, nil)
	if err := table.result(t); err != nil {
		t.Fatal(err)
	}
	last := newPartitionEpochs(e.conf, nil, e.partitionEpochs.store, e.wire.send)
	if err := last.loadPendingRewrites(); err != nil || len(last.pendingRewrites) > 0 {
		t.Errorf("still owed: %v, %v", last.pendingRewrites, err)
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

// Rewritten rows have no promise; a failure to write them ends the session all the same.
func TestFailedRewriteEndsTheSession(t *testing.T) {
	e := newEpochTest(t)
	epochs := newEpochs(e.conf, e.store, "")
	e.onFailure = epochs.fail
	put(t, e.store, 1, "k", "v7")
	session, stop := epochs.whilePublishing(t.Context())
	defer stop()
	e.rewriteIfOlder("k", []byte("v5"))
	refused := errors.New("refused")
	e.wire.next(t).done(0, refused)
	<-session.Done()
	if err := context.Cause(session); !errors.Is(err, refused) {
		t.Errorf("ended with %v", err)
	}
}

// A recovery that the end of the session interrupts is not complete, although goka calls MarkRecovered before it closes
// the partition.
func TestInterruptedRecoveryIsNotReadBack(t *testing.T) {
	e := newEpochTest(t)
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	e.noteRecovered("k", true)
	if err := (&epochStorage{
		Partition: e.partitionEpochs.store, partitionEpochs: e.partitionEpochs,
		epochs: epochs,
	}).MarkRecovered(); err != nil {
		t.Error(err)
	}
	over, end := context.WithCancel(t.Context())
	end()
	h := &sessionHandler{inner: idle{}, epochs: epochs, session: newSession(fakeSession{ctx: over}, epochs)}
	if err := h.ConsumeClaim(fakeSession{ctx: over}, fakeClaim{}); err != nil {
		t.Error(err)
	}
	e.wire.quiet(t)
	if e.recovered.Load() {
		t.Error("counts as recovered")
	}
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

func (fakeClaim) Topic() string    { return "in" }
func (fakeClaim) Partition() int32 { return 0 }
func (fakeClaim) Messages() <-chan *sarama.ConsumerMessage {
	none := make(chan *sarama.ConsumerMessage)
	close(none)
	return none
}

// goka passes a failed look-up to its own context, whose Fail returns while it stops: the callback then sees no row.
func TestUnreadableRowFailsTheCallback(t *testing.T) {
	for name, lookUp := range map[string]func(e *epochTest, s *epochStorage) error{
		"not read": func(e *epochTest, s *epochStorage) error {
			corrupt := errors.New("bad block")
			e.fail(corrupt)
			return corrupt
		},
		"not decoded": func(e *epochTest, s *epochStorage) error {
			_, err := s.Get("k")
			return errors.Join(err, errors.New("no protobuf"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEpochTest(t)
			put(t, e.store, 1, "k", "v7")
			epochs := newEpochs(e.conf, e.store, "")
			epochs.byPartition[0] = e.partitionEpochs
			s := &epochStorage{Partition: e.partitionEpochs.store, partitionEpochs: e.partitionEpochs, epochs: epochs}
			inner := &stoppingContext{lookUp: func() error { return lookUp(e, s) }}
			output := make(promised, 1)
			ctx := &gatedContext{gokaContext: inner, epochs: e.partitionEpochs}
			if err := e.enter(); err != nil {
				t.Fatal(err)
			}
			if row := ctx.Value(); row != nil {
				t.Fatalf("the row is %v", row)
			}
			e.output(&kgo.Record{Topic: "out", Key: []byte("k"), Value: []byte("v1")}, output.finish)
			if err := e.set("k", []byte("v1")); err == nil {
				t.Error("the row was taken")
			}
			e.gate.Unlock()
			if err := output.result(t); err == nil {
				t.Error("the output was taken")
			}
			e.wire.quiet(t)
		})
	}
}

// A stoppingContext is goka's while it stops: Fail returns.
type stoppingContext struct {
	gokaContext
	lookUp func() error
}

func (c *stoppingContext) Key() string { return "k" }
func (c *stoppingContext) Fail(error)  {}
func (c *stoppingContext) Value() any {
	if err := c.lookUp(); err != nil {
		c.Fail(err)
	}
	return nil
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
		e.output(&kgo.Record{Topic: "out"}, promised(make(chan error, 1)).finish)
	}
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	inner := waits{returned: make(chan error, 1)}
	go func() { inner.returned <- e.enter() }()
	h := &sessionHandler{inner: inner, epochs: epochs, session: newSession(fakeSession{ctx: t.Context()}, epochs)}
	cleaned := make(chan error, 1)
	go func() { cleaned <- h.Cleanup(nil) }()
	select {
	case err := <-cleaned:
		if !errors.Is(err, errClosed) {
			t.Errorf("the callback is told %v", err)
		}
	case <-time.After(2 * drainTimeout):
		t.Error("the session did not end")
	}
}

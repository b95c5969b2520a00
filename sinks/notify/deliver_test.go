package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// memory is a Store. What is in it survives a crash.
type memory struct {
	mu    sync.Mutex
	saved map[string]Delivery
	known map[string]Delivery      // of the process
	fail  func(state string) error // before a write
	after func(state string) error // after a write
	puts  []string
}

func newMemory() *memory { return &memory{saved: map[string]Delivery{}} }

func (m *memory) Open(_ context.Context, _ string, _ []*sinks.Record) (map[string]Delivery, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail("open"); err != nil {
			return nil, err
		}
	}
	if m.known == nil {
		m.known = maps.Clone(m.saved)
	}
	return m.known, nil
}

func (m *memory) Put(_ context.Context, _, op string, _ int32, d Delivery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		if err := m.fail(d.State); err != nil {
			return err
		}
	}
	m.saved[op] = d
	m.puts = append(m.puts, op+" "+d.State)
	if m.after != nil {
		return m.after(d.State)
	}
	return nil
}

// A receiver is a channel that answers what answer returns, and notes what it accepted.
type receiver struct {
	mu       sync.Mutex
	answer   func(id string) error // nil: accept all
	before   func() error
	attempts map[string]int
	accepted []string
}

func (r *receiver) Check(context.Context) error { return nil }

func (r *receiver) Send(_ context.Context, m *Message) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempts == nil {
		r.attempts = map[string]int{}
	}
	r.attempts[m.ID]++
	if r.answer != nil {
		if err := r.answer(m.ID); err != nil {
			return err
		}
	}
	r.accepted = append(r.accepted, m.ID)
	if r.before != nil {
		return r.before()
	}
	return nil
}

// A rig is a sink with a clock.
type rig struct {
	*Sink
	store *memory
	to    *receiver
	clock time.Time
	log   *bytes.Buffer
}

func newRig(store *memory, to *receiver, change ...func(*Sink)) *rig {
	r := &rig{store: store, to: to, clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), log: &bytes.Buffer{}}
	r.Sink = newSink(&Rule{Name: "r", Children: true}, to, Settings{
		Store: store, Log: slog.New(slog.NewTextHandler(r.log, nil)), Metrics: NewMetrics(prometheus.NewRegistry()),
	})
	r.now = func() time.Time { return r.clock }
	if store != nil {
		store.known = nil
	}
	for _, f := range change {
		f(r.Sink)
	}
	return r
}

func asWebhook(s *Sink) { s.webhook = true }

// record returns a notice of a file; id is file.number.
func record(t *testing.T, partition int32, offset int64, id string) *sinks.Record {
	t.Helper()
	name, _, _ := strings.Cut(id, ".")
	workspace, _, _ := strings.Cut(name, "-")
	value, err := codecs.Notice{}.Encode(&tidemarkv1.Notice{
		OpId: id, Event: "workspace_storage_file_updated", EventId: id, WorkspaceId: workspace, FileId: name,
		Position: &tidemarkv1.Position{Partition: partition, Offset: offset}, At: 1_700_000_000_000_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &sinks.Record{
		Topic: "notify", Partition: partition, Offset: offset, Key: []byte(url.PathEscape(name)), Value: value,
		Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}
}

func records(t *testing.T, ids ...string) (batch []*sinks.Record) {
	t.Helper()
	for i, id := range ids {
		batch = append(batch, record(t, 0, int64(i), id))
	}
	return batch
}

// drain delivers as the loop does, until nothing is left or limit has passed. It returns the ids of rejected records.
func (r *rig) drain(t *testing.T, batch []*sinks.Record, limit time.Duration) (rejected []string, _ []*sinks.Record) {
	t.Helper()
	for end := r.clock.Add(limit); len(batch) > 0 && r.clock.Before(end); {
		err := r.Deliver(t.Context(), batch)
		if err == nil {
			return rejected, nil
		}
		if partial, ok := errors.AsType[*sinks.Partial](err); ok {
			for _, b := range batch {
				if reason := partial.Rejected[b]; reason != nil {
					rejected = append(rejected, fmt.Sprintf("%s: %s", b.Key, reason.Reason))
				}
			}
			batch, err = partial.Again, partial.Err
		}
		pause := time.Second
		if later, ok := errors.AsType[*sinks.Later](err); ok {
			pause = later.Pause
		}
		r.clock = r.clock.Add(pause)
	}
	return rejected, batch
}

// However a process ends, a message is delivered, and twice only if the process ended between its send and its result.
func TestCrashAtEachPoint(t *testing.T) {
	crash := errors.New("killed")
	for _, test := range []struct {
		name  string
		set   func(m *memory, r *receiver, at func() error)
		twice bool
	}{
		{"before the intent", func(m *memory, _ *receiver, at func() error) { m.fail = only(stateIntent, at) }, false},
		{"after the intent", func(m *memory, _ *receiver, at func() error) { m.after = only(stateIntent, at) }, false},
		{"after the send", func(_ *memory, r *receiver, at func() error) { r.before = at }, true},
		{"before the result", func(m *memory, _ *receiver, at func() error) { m.fail = only(stateSent, at) }, true},
		{"after the result", func(m *memory, _ *receiver, at func() error) { m.after = only(stateSent, at) }, false},
	} {
		for nth := 1; nth <= 3; nth++ {
			store, to := newMemory(), &receiver{}
			ctx, cancel := context.WithCancel(t.Context())
			count := 0
			test.set(store, to, func() error {
				if count++; count == nth {
					cancel() // nothing is written after this
					store.fail = func(string) error { return crash }
					return crash
				}
				return nil
			})
			batch := records(t, "a-1.1", "a-1.2", "a-1.3") // of one file, so one after the other
			if err := newRig(store, to).Deliver(ctx, batch); err == nil {
				t.Errorf("%s: no error of the crash", test.name)
			}
			store.fail, store.after, to.before = nil, nil, nil
			after := newRig(store, to)
			after.clock = after.clock.Add(time.Minute)
			if rejected, left := after.drain(t, batch, time.Hour); len(rejected)+len(left) > 0 {
				t.Errorf("%s: rejected %v, left %v", test.name, rejected, left)
			}
			want := []string{"a-1.1", "a-1.2", "a-1.3"}
			if test.twice {
				want = append(want, fmt.Sprintf("a-1.%d", nth))
			}
			slices.Sort(want)
			slices.Sort(to.accepted)
			if diff := cmp.Diff(want, to.accepted); diff != "" {
				t.Errorf("%s of message %d (-want +got):\n%s", test.name, nth, diff)
			}
		}
	}
}

// Messages about different files are sent at the same time. Those that are in flight at a crash are sent twice, and no
// others. Messages about one file stay in order.
func TestCrashWithMessagesInFlight(t *testing.T) {
	store, to := newMemory(), &receiver{}
	ctx, cancel := context.WithCancel(t.Context())
	sending, most, accepted := make(chan struct{}, 100), 0, 0
	store.after = only(stateIntent, func() error { // the store's lock is held
		sending <- struct{}{}
		most = max(most, len(sending))
		return nil
	})
	to.before = func() error {
		time.Sleep(time.Millisecond)
		if <-sending; accepted == 30 {
			cancel()
			store.mu.Lock()
			store.fail = func(string) error { return errors.New("killed") }
			store.mu.Unlock()
		}
		accepted++
		return nil
	}
	var ids []string
	for file := range 20 {
		for n := range 3 {
			ids = append(ids, fmt.Sprintf("f%d.%d", file, n))
		}
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	batch := records(t, ids...)
	if err := newRig(store, to).Deliver(ctx, batch); err == nil {
		t.Error("no error of the crash")
	}
	store.fail, store.after, to.before = nil, nil, nil
	after := newRig(store, to)
	after.clock = after.clock.Add(time.Minute)
	if rejected, left := after.drain(t, batch, time.Hour); len(rejected)+len(left) > 0 {
		t.Errorf("rejected %v, left %v", rejected, left)
	}
	first := slices.Clone(to.accepted)
	slices.Sort(first)
	if n := len(slices.Compact(first)); n != len(ids) {
		t.Errorf("%d of %d messages are accepted", n, len(ids))
	}
	if repeats := len(to.accepted) - len(ids); repeats < 1 || repeats > inFlight || most < 2 || most > inFlight {
		t.Errorf("%d repeats, %d in flight at most", repeats, most)
	}
	for i, id := range ids {
		for _, later := range ids[i+1:] {
			sameFile := strings.HasPrefix(later, strings.SplitAfter(id, ".")[0])
			if sameFile && slices.Index(to.accepted, later) < slices.Index(to.accepted, id) {
				t.Errorf("%s is accepted before %s", later, id)
			}
		}
	}
}

func only(state string, f func() error) func(string) error {
	return func(s string) error {
		if s != state {
			return nil
		}
		return f()
	}
}

// Kafka's errors are not the destination's: nothing has failed, no attempt is counted, and nothing is sent again.
func TestStoreFails(t *testing.T) {
	for _, state := range []string{"open", stateIntent, stateSent} {
		store, to := newMemory(), &receiver{}
		r := newRig(store, to)
		down := errors.New("no leader")
		store.fail = only(state, func() error { return down })
		batch := records(t, "a-1.1", "a-2.1")
		for range 20 {
			if err := r.Deliver(t.Context(), batch); err == nil && state == stateSent {
				break // what is accepted is known
			} else if !waitsOnly(err) || !errors.Is(err, down) {
				t.Errorf("%s: %v", state, err)
			}
			r.clock = r.clock.Add(time.Minute)
		}
		store.fail = nil
		rejected, left := r.drain(t, batch, time.Hour)
		slices.Sort(to.accepted)
		if diff := cmp.Diff([]string{"a-1.1", "a-2.1"}, to.accepted); diff != "" || len(rejected)+len(left) > 0 {
			t.Errorf("%s: rejected %v, %d left (-want +got):\n%s", state, rejected, len(left), diff)
		}
		if n := store.saved["a-1.1"].Attempts; state != stateSent && n != 1 {
			t.Errorf("%s: %d attempts are counted", state, n)
		}
		if !strings.Contains(r.log.String(), "messages wait for the deliveries topic") {
			t.Errorf("%s: log %s", state, r.log)
		}
	}
}

// A digest that is rejected is a dead letter of each of its notices; the digest of another workspace is sent.
func TestDigestRejected(t *testing.T) {
	to := &receiver{answer: func(id string) error {
		if strings.HasPrefix(id, "a-1.1") {
			return &sinks.Rejected{Reason: "too long", Answer: "msg_too_long"}
		}
		return nil
	}}
	store := newMemory()
	r := newRig(store, to, func(s *Sink) { s.rule.Digest = time.Minute })
	batch := records(t, "a-1.1", "b-1.1", "a-2.1")
	for range 2 { // the second time as after a crash before the commit
		rejected, left := r.drain(t, batch, time.Hour)
		if diff := cmp.Diff([]string{"b-1.1//1"}, to.accepted); diff != "" || len(rejected) != 2 || len(left) > 0 ||
			to.attempts["a-1.1//2"] != 1 || store.saved["a-2.1"].State != stateRejected {
			t.Errorf("rejected %v, %d left, attempts %v (-want +got):\n%s", rejected, len(left), to.attempts, diff)
		}
	}
}

// A digest whose result is not known after a crash is sent again as it was, although more notices came meanwhile. They
// are a digest of their own.
func TestDigestAfterACrash(t *testing.T) {
	store := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	to := &receiver{before: func() error { cancel(); return errors.New("killed") }}
	digest := func(s *Sink) { s.rule.Digest = time.Minute }
	before := newRig(store, to, digest)
	before.clock = before.clock.Add(time.Minute)
	if err := before.Deliver(ctx, records(t, "a-1.1", "a-2.1")); err == nil {
		t.Fatal("no error of the crash")
	}
	to.before = nil
	after := newRig(store, to, digest)
	after.clock = after.clock.Add(2 * time.Minute)
	_, left := after.drain(t, records(t, "a-1.1", "a-2.1", "a-3.1", "a-4.1"), time.Hour)
	if diff := cmp.Diff([]string{"a-1.1//2", "a-1.1//2", "a-3.1//2"}, to.accepted); diff != "" || len(left) > 0 {
		t.Errorf("%d left (-want +got):\n%s", len(left), diff)
	}
}

// A digest has the notices of a workspace, and waits for its time. Repeats of a notice count once.
func TestDigest(t *testing.T) {
	to := &receiver{}
	r := newRig(newMemory(), to, func(s *Sink) { s.rule.Digest = 15 * time.Minute })
	batch := records(t, "a-1.1", "b-1.1", "a-2.1", "a-1.1")
	if err := r.Deliver(t.Context(), batch); !waitsOnly(err) {
		t.Errorf("at first: %v", err)
	}
	start := r.clock
	_, left := r.drain(t, batch, time.Hour)
	if diff := cmp.Diff([]string{"a-1.1//2", "b-1.1//1"}, to.accepted); diff != "" || len(left) > 0 ||
		r.clock.Sub(start) != 15*time.Minute {
		t.Errorf("%d left after %v (-want +got):\n%s", len(left), r.clock.Sub(start), diff)
	}
	if err := r.Deliver(t.Context(), append(batch, record(t, 0, 9, "a-3.1"))); err != nil {
		t.Fatal(err)
	}
	if got := to.accepted[len(to.accepted)-1]; got != "a-3.1//1" {
		t.Errorf("after a restart the digest has %s", got)
	}
}

// The end of the batch's context lets the attempt finish, and its result is recorded.
func TestAttemptOutlivesItsContext(t *testing.T) {
	store := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	to := &receiver{before: func() error { cancel(); return nil }}
	err := newRig(store, to).Deliver(ctx, records(t, "a-1.1", "a-2.1"))
	partial, ok := errors.AsType[*sinks.Partial](err)
	if !ok || len(partial.Again) != 1 || !errors.Is(err, context.Canceled) {
		t.Fatalf("%#v", err)
	}
	if diff := cmp.Diff([]string{"a-1.1 intent", "a-1.1 sent"}, store.puts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUndecodableNoticeIsRejected(t *testing.T) {
	r := newRig(newMemory(), &receiver{})
	batch := append(records(t, "a-1.1"), &sinks.Record{Value: []byte("{")})
	partial, ok := errors.AsType[*sinks.Partial](r.Deliver(t.Context(), batch))
	if !ok || partial.Rejected[batch[1]] == nil || len(partial.Rejected) != 1 || len(r.to.accepted) != 1 {
		t.Errorf("%+v", partial)
	}
}

// waitsOnly reports whether a batch waits and nothing has failed.
func waitsOnly(err error) bool {
	later, ok := errors.AsType[*sinks.Later](err)
	return ok && later.Waiting
}

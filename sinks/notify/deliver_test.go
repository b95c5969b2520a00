package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
			batch := records(t, "a-1.1", "a-2.1", "a-3.1")
			if err := newRig(store, to).Deliver(ctx, batch); err == nil {
				t.Errorf("%s: no error of the crash", test.name)
			}
			store.fail, store.after, to.before = nil, nil, nil
			after := newRig(store, to)
			after.clock = after.clock.Add(time.Minute)
			if rejected, left := after.drain(t, batch, time.Hour); len(rejected)+len(left) > 0 {
				t.Errorf("%s: rejected %v, left %v", test.name, rejected, left)
			}
			want := []string{"a-1.1", "a-2.1", "a-3.1"}
			if test.twice {
				want = append(want, fmt.Sprintf("a-%d.1", nth))
			}
			slices.Sort(want)
			slices.Sort(to.accepted)
			if diff := cmp.Diff(want, to.accepted); diff != "" {
				t.Errorf("%s of message %d (-want +got):\n%s", test.name, nth, diff)
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

// While nothing is accepted the attempts get rare, warnings come at 36 and 65 hours, and after five days the rule is
// disabled. No message becomes a dead letter. Enabled, it goes on.
func TestDeadEndpoint(t *testing.T) {
	store, to := newMemory(), &receiver{answer: func(string) error { return errors.New("refused connection") }}
	r := newRig(store, to, asWebhook)
	var times []time.Duration
	start, answer := r.clock, to.answer
	to.answer = func(id string) error {
		if id == "a-1.1" {
			times = append(times, r.clock.Sub(start))
		}
		return answer(id)
	}
	batch := records(t, "a-1.1", "a-2.1", "a-3.1")
	rejected, left := r.drain(t, batch, 8*24*time.Hour)
	if len(rejected) > 0 || len(left) != 3 || to.attempts["a-3.1"] > 0 {
		t.Errorf("rejected %v, %d left, attempts %v", rejected, len(left), to.attempts)
	}
	for i, at := range times[1:] {
		pause := pauses[min(i, len(pauses)-1)]
		if got := at - times[i]; got < pause*8/10-time.Second || got > pause*12/10+maxWait {
			t.Errorf("pause %d is %v, want %v ± 20 %%", i+1, got, pause)
		}
	}
	if n := len(times); n < 10 || n > 13 || times[n-1] < 5*24*time.Hour*95/100 || times[n-1] > 7*24*time.Hour {
		t.Errorf("attempts at %v", times)
	}
	log := r.log.String()
	if strings.Count(log, "level=WARN") != 2 || strings.Count(log, "level=ERROR") != 1 ||
		!strings.Contains(log, "a rule is disabled: fix the receiver, then run `tidemark notify enable`") {
		t.Errorf("log:\n%s", log)
	}
	// Also the messages of other partitions wait now.
	err := r.Deliver(t.Context(), []*sinks.Record{record(t, 1, 0, "b-1.1")})
	if !errors.Is(err, errDisabled) || to.attempts["b-1.1"] > 0 {
		t.Errorf("another partition: %v", err)
	}
	to.answer = nil
	for op, d := range store.saved { // as Enable does
		if d.State == stateDisabled {
			store.saved[op] = Delivery{State: stateFailed}
		}
	}
	store.known = nil
	if rejected, left = r.drain(t, batch, time.Hour); len(rejected)+len(left) > 0 || len(to.accepted) != 3 {
		t.Errorf("enabled again: rejected %v, %d left, accepted %v", rejected, len(left), to.accepted)
	}
}

// Attempts and the time of the first survive a restart.
func TestScheduleSurvivesARestart(t *testing.T) {
	store, to := newMemory(), &receiver{answer: func(string) error { return errors.New("down") }}
	batch := records(t, "a-1.1")
	newRig(store, to, asWebhook).drain(t, batch, 3*time.Hour)
	want := to.attempts["a-1.1"]
	again := newRig(store, to, asWebhook)
	again.clock = again.clock.Add(3 * time.Hour)
	again.drain(t, batch, 2*time.Hour) // the next pause is 5 hours
	if got := to.attempts["a-1.1"]; got != want || want != 5 || store.saved["a-1.1"].Attempts != 5 {
		t.Errorf("%d attempts before, %d after: %+v", want, got, store.saved["a-1.1"])
	}
}

// A message whose content is refused while others are accepted becomes a dead letter after ten attempts, in minutes.
func TestContentAtFault(t *testing.T) {
	to := &receiver{answer: func(id string) error {
		if id == "a-1.1" {
			return &refused{errors.New("422"), true}
		}
		return nil
	}}
	r := newRig(newMemory(), to, asWebhook)
	start := r.clock
	rejected, left := r.drain(t, records(t, "a-1.1", "a-2.1"), time.Hour)
	if took := r.clock.Sub(start); len(rejected) != 1 || len(left) > 0 || to.attempts["a-1.1"] != 10 ||
		took < 8*time.Minute || took > 14*time.Minute {
		t.Errorf("rejected %v, %d left, attempts %v, took %v", rejected, len(left), to.attempts, took)
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

// A message that is refused while others are accepted becomes a dead letter after ten attempts and an hour. Other files
// do not wait for it, its own file does.
func TestMessageAtFault(t *testing.T) {
	store := newMemory()
	to := &receiver{answer: func(id string) error {
		if id == "a-1.1" {
			return &refused{errors.New("500"), false}
		}
		return nil
	}}
	r := newRig(store, to, asWebhook)
	batch := records(t, "a-1.1", "a-2.1", "a-1.2", "a-3.1")
	_, left := r.drain(t, batch, 30*time.Minute)
	if diff := cmp.Diff([]string{"a-2.1", "a-3.1"}, to.accepted); diff != "" || len(left) != 2 {
		t.Errorf("%d left, accepted (-want +got):\n%s", len(left), diff)
	}
	rejected, left := r.drain(t, left, 3*time.Hour)
	if len(rejected) != 1 || len(left) > 0 || to.attempts["a-1.1"] < 30 || to.attempts["a-1.1"] > 45 {
		t.Errorf("rejected %v, %d left, attempts %v", rejected, len(left), to.attempts)
	}
	if diff := cmp.Diff([]string{"a-2.1", "a-3.1", "a-1.2"}, to.accepted); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	// Rejected before the commit and a crash: not sent again.
	attempts := to.attempts["a-1.1"]
	if rejected, left = newRig(store, to).drain(t, batch, time.Hour); len(rejected) != 1 || len(left) > 0 ||
		to.attempts["a-1.1"] != attempts {
		t.Errorf("after a restart: rejected %v, %d left, attempts %v", rejected, len(left), to.attempts)
	}
}

// A message alone, that nothing can be compared with: refused for its content it ends after 72 hours.
func TestMessageAlone(t *testing.T) {
	for content, want := range map[bool]int{true: 1, false: 0} {
		to := &receiver{answer: func(string) error { return &refused{errors.New("422"), content} }}
		rejected, _ := newRig(newMemory(), to, asWebhook).drain(t, records(t, "a-1.1"), 8*24*time.Hour)
		if len(rejected) != want {
			t.Errorf("content %v: rejected %v", content, rejected)
		}
	}
}

// An endpoint that comes back after 50 hours is found within a minute by the messages that wait, in all partitions.
func TestRecovery(t *testing.T) {
	to := &receiver{answer: func(string) error { return &refused{errors.New("500"), false} }}
	r := newRig(newMemory(), to, asWebhook)
	first := records(t, "a-1.1", "a-2.1", "a-3.1")
	second := []*sinks.Record{record(t, 1, 0, "b-1.1")}
	r.drain(t, first, 50*time.Hour)
	r.clock = r.clock.Add(-20 * time.Hour)
	r.drain(t, second, 20*time.Hour)
	to.answer = nil
	if err := r.Deliver(t.Context(), []*sinks.Record{record(t, 2, 0, "c-1.1")}); err != nil {
		t.Fatal(err)
	}
	for _, batch := range [][]*sinks.Record{first, second} {
		start := r.clock
		rejected, left := r.drain(t, batch, time.Hour)
		if took := r.clock.Sub(start); len(rejected)+len(left) > 0 || took > 2*maxWait {
			t.Errorf("rejected %v, %d left after %v", rejected, len(left), took)
		}
	}
}

func TestGoneDisablesAtOnce(t *testing.T) {
	to := &receiver{answer: func(string) error { return errGone }}
	r := newRig(newMemory(), to, asWebhook)
	_, left := r.drain(t, records(t, "a-1.1", "a-2.1"), 48*time.Hour)
	if len(left) != 2 || to.attempts["a-1.1"] != 1 || to.attempts["a-2.1"] != 0 {
		t.Errorf("%d left, attempts %v", len(left), to.attempts)
	}
}

// A pause that a channel asks for is one for all partitions.
func TestPause(t *testing.T) {
	pause := true
	to := &receiver{answer: func(string) error {
		if pause {
			return &sinks.Later{Pause: 10 * time.Minute, Err: errors.New("429")}
		}
		return nil
	}}
	r := newRig(newMemory(), to)
	if err := r.Deliver(t.Context(), records(t, "a-1.1", "a-2.1")); err == nil || to.attempts["a-2.1"] > 0 {
		t.Fatalf("%v, attempts %v", err, to.attempts)
	}
	pause = false
	start := r.clock
	_, left := r.drain(t, []*sinks.Record{record(t, 1, 0, "b-1.1")}, time.Hour)
	took := r.clock.Sub(start)
	if len(left) > 0 || took < 10*time.Minute || took > 11*time.Minute || to.attempts["b-1.1"] != 1 {
		t.Errorf("%d left after %v, attempts %v", len(left), took, to.attempts)
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

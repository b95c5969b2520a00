package notify

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

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
		took < 4*time.Minute || took > 8*time.Minute {
		t.Errorf("rejected %v, %d left, attempts %v, took %v", rejected, len(left), to.attempts, took)
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

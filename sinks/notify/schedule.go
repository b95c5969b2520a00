package notify

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"time"

	"tidemark/sinks"
)

const (
	maxWait      = time.Minute        // until a message that waits is looked at again: the channel may work by then
	giveUpAfter  = 72 * time.Hour     // on a message
	disableAfter = 5 * 24 * time.Hour // when nothing at all is accepted
)

// pauses are those of Standard Webhooks, scaled to 72 hours: between attempts while an endpoint accepts nothing.
var pauses = []time.Duration{
	5 * time.Second, 5 * time.Minute, 25 * time.Minute, 90 * time.Minute, 5 * time.Hour, 10 * time.Hour, 13 * time.Hour,
	18 * time.Hour, 24 * time.Hour,
}

var errDisabled = errors.New("disabled: fix the receiver, then run `tidemark notify enable`")

// due returns when the next attempt is made. The jitter is the same each time it is asked.
func (s *Sink) due(op string, d Delivery, accepting bool) time.Time {
	if d.Attempts == 0 {
		return time.Time{}
	}
	pause := pauses[min(d.Attempts, len(pauses))-1]
	switch doubled := time.Second << min(d.Attempts-1, 10); {
	case accepting:
		pause = min(doubled, 2*time.Minute)
	case !s.webhook:
		pause = min(5*doubled, 10*time.Minute)
	}
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(op)) // it never fails
	jitter := 0.8 + 0.4*rand.New(rand.NewPCG(seed.Sum64(), uint64(d.Attempts))).Float64()
	if at := d.At.Add(time.Duration(jitter * float64(pause))); at.After(d.After) {
		return at
	}
	return d.After
}

// accepting reports whether the channel has accepted a message since the first attempt of this one.
func (s *Sink) accepting(d Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.accepted.Before(d.First)
}

// later returns the error that delivers the batch again at that time.
func (s *Sink) later(at time.Time, err error) *sinks.Later {
	return &sinks.Later{Pause: min(max(at.Sub(s.now()), time.Second), maxWait), Err: err}
}

// waiting returns a *sinks.Later with Waiting: the batch is not due, and nothing has failed.
func (s *Sink) waiting(at time.Time, why error) error {
	wait := s.later(at, why)
	wait.Waiting = true
	return wait
}

// storeFailed returns the error that delivers the batch again after 5 s: the destination was not asked, or its answer
// is not recorded.
func (s *Sink) storeFailed(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the partition goes to another process
	}
	s.Log.WarnContext(ctx, "messages wait for the deliveries topic", "rule", s.rule.Name, "error", err)
	return s.waiting(s.now().Add(5*time.Second), err)
}

// loadState reads from the deliveries of a partition when the channel last accepted a message, and whether one has
// disabled the rule. It returns an error if it is disabled: by a message of this partition, or lately one of another.
func (s *Sink) loadState(known map[string]Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, answer := s.now(), "by a message of another partition"
	for _, d := range known {
		if d.State == stateSent && d.At.After(s.accepted) {
			s.accepted = d.At
		}
		if d.State == stateDisabled {
			s.disabled, answer = now, d.Answer
		}
	}
	gauge := s.Metrics.disabled.WithLabelValues(s.rule.Name)
	if now.Sub(s.disabled) >= 2*maxWait {
		gauge.Set(0)
		return nil
	}
	gauge.Set(1)
	return s.waiting(now.Add(maxWait), fmt.Errorf("%w: %s", errDisabled, answer))
}

// recordResult sets the result of an attempt in d. It returns what becomes of the records.
func (s *Sink) recordResult(d *Delivery, failed error, accepting bool) error {
	now := s.now()
	age := now.Sub(d.First)
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed == nil {
		s.accepted, s.warned, d.State, d.At, d.Answer = now, 0, stateSent, now, ""
		s.Metrics.failing.WithLabelValues(s.rule.Name).Set(0)
		return nil
	}
	s.Metrics.failing.WithLabelValues(s.rule.Name).Set(age.Seconds())
	d.State, d.Answer = stateFailed, fmt.Sprintf("%.500s", failed)
	if wait, ok := errors.AsType[*sinks.Later](failed); ok {
		s.paused, d.Answer = now.Add(wait.Pause), fmt.Sprintf("%.500s", wait.Err)
		d.After = s.paused
	}
	refusal, isRefused := errors.AsType[*refused](failed)
	if isRefused {
		d.Refused++
	} else {
		refusal = &refused{}
	}
	log := s.Log.With("rule", s.rule.Name, "failing_for", age.Round(time.Second), "error", d.Answer)
	rejected, isRejected := errors.AsType[*sinks.Rejected](failed)
	tried := d.Attempts >= len(pauses) // not if the process was down
	switch {
	case isRejected:
		d.State, d.Answer = stateRejected, rejected.Answer
		return rejected
	case accepting && d.Refused >= 10 && (refusal.content || age >= time.Hour),
		tried && age >= giveUpAfter && (accepting || refusal.content):
		d.State = stateRejected
		return &sinks.Rejected{Answer: d.Answer, Reason: fmt.Sprintf(
			"failed %d times in %v: fix the receiver, then replay this", d.Attempts, age.Round(time.Second))}
	case errors.Is(failed, errGone), s.webhook && tried && age >= disableAfter:
		log.Error("a rule is disabled: fix the receiver, then run `tidemark notify enable` before retention deletes " +
			"notices")
		d.State, s.disabled = stateDisabled, now
		return s.later(now.Add(maxWait), fmt.Errorf("%w: %s", errDisabled, d.Answer))
	}
	for _, limit := range []time.Duration{giveUpAfter / 10 * 9, giveUpAfter / 2} {
		if s.webhook && age >= limit && s.warned < limit {
			s.warned = age
			log.Warn("a receiver has failed for long: fix it, or the rule is disabled after 5 days")
		}
	}
	return s.later(s.due("", *d, accepting), errors.New(d.Answer))
}

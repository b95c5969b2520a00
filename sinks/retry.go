package sinks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sony/gobreaker/v2"

	"tidemark/kafka"
)

// The pauses between attempts, and when a destination counts as down: its circuit breaker opens, and one attempt at a
// time finds out whether it is back.
const (
	firstPause   = 250 * time.Millisecond
	maxPause     = 30 * time.Second
	breakerTrips = 5               // consecutive failures
	breakerOpen  = 5 * time.Second // before the next attempt
	breakerPoll  = 250 * time.Millisecond
	logEvery     = 30 * time.Second
)

// again calls f until it returns nil or a permanent error, or ctx ends. failed may be nil.
func again(ctx context.Context, failed func(error, time.Duration), f func() error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier, pauses.MaxInterval = firstPause, 2, maxPause
	_, err := backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, f() },
		backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(failed))
	return err
}

// WhileUnreachable calls f again while no broker answers. The error is another one, or that of ctx.
func WhileUnreachable(ctx context.Context, log *slog.Logger, f func() error) error {
	return again(ctx, func(err error, pause time.Duration) {
		log.WarnContext(ctx, "the brokers do not answer, trying again", "error", err, "pause", pause)
	}, func() error {
		err := f()
		if err != nil && !kafka.Unreachable(err) {
			return backoff.Permanent(err)
		}
		return err
	})
}

// A retry makes attempts at one destination, from several goroutines.
type retry struct {
	log     *slog.Logger
	metrics sinkMetrics
	attempt time.Duration
	refusal time.Duration
	breaker *gobreaker.CircuitBreaker[struct{}]

	mu       sync.Mutex
	state    gobreaker.State
	failure  error // the last one; nil: the last attempt succeeded
	logged   time.Time
	accepted int       // attempts in which the destination accepted a record
	refusing time.Time // since when records wait because it refuses all; zero: none does
}

func newRetry(c Config) *retry {
	r := &retry{log: c.Log, metrics: c.Metrics.of(c.Name), attempt: c.Attempt, refusal: c.Refusal}
	r.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     breakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerTrips },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.state = to
			r.metrics.breaker.Set(map[gobreaker.State]float64{gobreaker.StateOpen: 1}[to])
		},
		IsSuccessful: up,
		IsExcluded:   func(err error) bool { return errors.Is(err, errCancelled) || notDue(err) },
	})
	return r
}

// final reports whether an attempt is not made again as it is: it succeeded, was refused, or was not due.
func final(err error) bool {
	_, rejected := errors.AsType[*Rejected](err)
	return err == nil || rejected || notDue(err)
}

// up reports whether an attempt shows that the destination is up.
func up(err error) bool {
	_, progress := errors.AsType[*progressError](err)
	return progress || final(err)
}

// A notDueError is a batch that is not due yet: the Loop waits, and not the retry.
type notDueError struct{ pause time.Duration }

func (e *notDueError) Error() string { return fmt.Sprintf("not due for %v", e.pause) }

// notDue reports whether a batch is not due yet.
func notDue(err error) bool {
	_, own := errors.AsType[*notDueError](err)
	later, ok := errors.AsType[*Later](err)
	return own || ok && later.Waiting
}

// A progressError is a batch of which some records were applied.
type progressError struct{ error }

func (e *progressError) Unwrap() error { return e.error }

// errCancelled is an attempt whose partition was revoked.
var errCancelled = errors.New("cancelled")

// do calls attempt until its error is final, and returns that, or ctx ends. It pauses between attempts, and while the
// destination is down only one of the goroutines tries. The end of pausing ends a pause, and no attempt.
func (r *retry) do(ctx, pausing context.Context, attempt func(ctx context.Context) error) error {
	return again(pausing, nil, func() error {
		_, err := r.breaker.Execute(func() (struct{}, error) { return struct{}{}, r.once(ctx, attempt) })
		later, paused := errors.AsType[*Later](err)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
			return &backoff.RetryAfterError{Duration: breakerPoll}
		case paused && later.Pause > 0:
			return &backoff.RetryAfterError{Duration: later.Pause}
		case final(err):
			return backoff.Permanent(err)
		}
		return err
	})
}

// once makes one attempt, counts it and notes its result.
func (r *retry) once(ctx context.Context, attempt func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, r.attempt)
	defer cancel()
	begin := time.Now()
	err := attempt(bounded)
	switch {
	case ctx.Err() != nil && !final(err):
		return fmt.Errorf("%w: %w", errCancelled, err)
	case errors.Is(bounded.Err(), context.DeadlineExceeded) && !final(err):
		err = fmt.Errorf("no answer within %v: %w", r.attempt, err)
	}
	if notDue(err) {
		return err
	}
	r.metrics.seconds.Observe(time.Since(begin).Seconds())
	outcome := "failed"
	if err == nil {
		outcome = "ok"
	} else if final(err) {
		outcome = "rejected"
	}
	r.metrics.attempts.WithLabelValues(outcome).Inc()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !up(err) {
		r.fail(ctx, err)
	} else if r.failure != nil && r.refusing.IsZero() {
		r.failure, r.logged = nil, time.Time{}
		r.log.InfoContext(ctx, "the destination accepts records again")
	}
	return err
}

// fail keeps a failure, and logs the first, then one now and then.
func (r *retry) fail(ctx context.Context, err error) {
	r.failure = err
	if time.Since(r.logged) >= logEvery {
		r.logged = time.Now()
		r.log.WarnContext(ctx, "delivery failed, trying again", "error", err)
	}
}

// accept notes that the destination has accepted a record.
func (r *retry) accept() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted++
	r.setRefusing(time.Time{})
}

// acceptances returns the number of attempts in which the destination accepted a record.
func (r *retry) acceptances() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// noteRejection notes that a record waits, because the destination refuses it and has accepted no other one. It reports
// whether the record counts as at fault: one of all that wait does when Config.Refusal has passed, because those behind
// it may be accepted.
func (r *retry) noteRejection(ctx context.Context, why *Rejected) (atFault bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refusing.IsZero() {
		r.setRefusing(time.Now())
	}
	r.fail(ctx, fmt.Errorf("the destination refuses all records: correct its settings, or the destination: %w", why))
	if atFault = time.Since(r.refusing) >= r.refusal; atFault {
		r.setRefusing(time.Time{})
	}
	return atFault
}

// clearRefusing is called when a refused record stops waiting, because its partition goes to another process.
func (r *retry) clearRefusing() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setRefusing(time.Time{})
}

func (r *retry) setRefusing(since time.Time) {
	r.refusing = since
	r.metrics.refusing.Set(map[bool]float64{false: 1}[since.IsZero()])
}

// Ready returns the last failure while the destination is down, or refuses all records.
func (r *retry) Ready() error {
	r.breaker.State() // may notice that it is time for the next attempt
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil || r.state == gobreaker.StateClosed && r.refusing.IsZero() {
		return nil
	}
	if _, refused := errors.AsType[*Rejected](r.failure); refused {
		return r.failure
	}
	return fmt.Errorf("the destination is down: %w", r.failure)
}

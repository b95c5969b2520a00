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

// A retry makes attempts at one destination, from several goroutines.
type retry struct {
	log     *slog.Logger
	metrics sinkMetrics
	attempt time.Duration
	breaker *gobreaker.CircuitBreaker[struct{}]

	mu      sync.Mutex
	failure error // the last one; nil: the last attempt succeeded
	logged  time.Time
}

// newRetry returns a retry whose attempts take at most the given time.
func newRetry(name string, attempt time.Duration, log *slog.Logger, metrics *Metrics) *retry {
	r := &retry{log: log, metrics: metrics.of(name), attempt: attempt}
	r.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     breakerOpen,
		ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerTrips },
		OnStateChange: func(_ string, _, to gobreaker.State) {
			r.metrics.breaker.Set(map[gobreaker.State]float64{gobreaker.StateOpen: 1}[to])
		},
		IsSuccessful: works,
		IsExcluded:   func(err error) bool { return errors.Is(err, errCancelled) || waits(err) },
	})
	return r
}

// answered reports whether an error is none of the destination's: it works, or was not asked.
func answered(err error) bool {
	_, rejected := errors.AsType[*Rejected](err)
	return err == nil || rejected || waits(err)
}

// A waitError is a batch that waits for its time: the Loop does that, and not the retry.
type waitError struct{ pause time.Duration }

func (e *waitError) Error() string { return fmt.Sprintf("waits for %v", e.pause) }

// waits reports whether a batch waits for its time.
func waits(err error) bool {
	_, own := errors.AsType[*waitError](err)
	later, ok := errors.AsType[*Later](err)
	return own || ok && later.Waiting
}

// A progressError is a batch of which some records were applied: the destination works.
type progressError struct{ err error }

func (e *progressError) Error() string { return e.err.Error() }
func (e *progressError) Unwrap() error { return e.err }

// works reports whether an attempt shows that the destination works.
func works(err error) bool {
	_, progress := errors.AsType[*progressError](err)
	return progress || answered(err)
}

// errCancelled is an attempt whose partition was revoked.
var errCancelled = errors.New("cancelled")

// do calls attempt until it returns nil, a *Rejected or a *waitError, which do returns, or ctx ends. It pauses between
// attempts, and while the destination is down only one of the goroutines tries. The end of pausing ends a pause, and no
// attempt.
func (r *retry) do(ctx, pausing context.Context, attempt func(ctx context.Context) error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier, pauses.MaxInterval = firstPause, 2, maxPause
	_, err := backoff.Retry(pausing, func() (struct{}, error) {
		_, err := r.breaker.Execute(func() (struct{}, error) { return struct{}{}, r.once(ctx, attempt) })
		later, paused := errors.AsType[*Later](err)
		switch {
		case err == nil:
		case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
			err = &backoff.RetryAfterError{Duration: breakerPoll}
		case paused:
			err = &backoff.RetryAfterError{Duration: later.Pause}
		case answered(err):
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0))
	return err
}

// once makes one attempt, counts it and notes its result.
func (r *retry) once(ctx context.Context, attempt func(ctx context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, r.attempt)
	defer cancel()
	begin := time.Now()
	err := attempt(bounded)
	switch {
	case ctx.Err() != nil && !answered(err):
		return fmt.Errorf("%w: %w", errCancelled, err)
	case err != nil && errors.Is(bounded.Err(), context.DeadlineExceeded) && !answered(err):
		err = fmt.Errorf("no answer within %v: %w", r.attempt, err)
	}
	if waits(err) {
		return err
	}
	r.metrics.seconds.Observe(time.Since(begin).Seconds())
	switch {
	case err == nil:
		r.metrics.attemptOK.Inc()
	case answered(err):
		r.metrics.attemptRejected.Inc()
	default:
		r.metrics.attemptFailed.Inc()
	}
	r.note(ctx, err)
	return err
}

// note logs the first failure, then one now and then, and the first success after them.
func (r *retry) note(ctx context.Context, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.failure != nil
	if works(err) {
		if r.failure = nil; failed {
			r.log.InfoContext(ctx, "the destination accepts records again")
			r.logged = time.Time{}
		}
		return
	}
	r.failure = err
	if time.Since(r.logged) >= logEvery {
		r.logged = time.Now()
		r.log.WarnContext(ctx, "delivery failed, trying again", "error", err)
	}
}

// Ready returns the last failure while the destination is down.
func (r *retry) Ready() error {
	if r.breaker.State() == gobreaker.StateClosed {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failure == nil {
		return nil
	}
	return fmt.Errorf("the destination is down: %w", r.failure)
}

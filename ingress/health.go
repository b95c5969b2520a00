package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

const (
	checkEvery   = 2 * time.Second  // a check's result is reused for this long
	checkTimeout = 5 * time.Second  // the longest a check may take
	checkWait    = time.Second      // the longest that readiness waits for a check
	failureHolds = 5 * time.Second  // not ready after a failed append, unless one succeeds
	logEvery     = 10 * time.Second // while appends fail
)

// health decides whether events can be appended now, from the results of the last appends and from a check of its own:
// without the check, an instance without traffic would never learn that its broker is back.
type health struct {
	check func(context.Context) error
	log   *slog.Logger

	mu        sync.Mutex
	checking  chan struct{} // closed when the running check ends; nil if none runs
	checkedAt time.Time
	checked   error
	failedAt  time.Time
	failed    error // of the last append
	loggedAt  time.Time
	logged    bool // a failure, and not yet its end
}

func newHealth(check func(context.Context) error, log *slog.Logger) *health {
	return &health{check: check, log: log, checked: errors.New("the broker has not been reached yet")}
}

// appended records the result of an append. It logs a failure every logEvery and then the next success: while a broker
// is unreachable every request fails, and while one partition has no leader, every request of that partition does.
func (h *health) appended(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = err
	if err == nil {
		if h.logged {
			h.logged = false
			h.log.Info("events are acknowledged again")
		}
		return
	}
	if h.failedAt = time.Now(); h.failedAt.Sub(h.loggedAt) >= logEvery {
		h.logged, h.loggedAt = true, h.failedAt
		h.log.Warn("events are not acknowledged: answering 503", "error", err)
	}
}

// ready returns nil, or why events cannot be appended. It waits up to checkWait for a check that is due.
func (h *health) ready() error {
	h.mu.Lock()
	if h.checking == nil && time.Since(h.checkedAt) >= checkEvery {
		h.checking = make(chan struct{})
		go h.run(h.checking)
	}
	pending := h.checking
	h.mu.Unlock()
	if pending != nil {
		select {
		case <-pending:
		case <-time.After(checkWait):
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checked != nil {
		return h.checked
	}
	if h.failed != nil && time.Since(h.failedAt) < failureHolds {
		return fmt.Errorf("the last event failed: %w", h.failed)
	}
	return nil
}

func (h *health) run(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	err := h.check(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checked, h.checkedAt, h.checking = err, time.Now(), nil
	close(done)
}

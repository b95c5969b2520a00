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
	checkEvery   = 2 * time.Second // a check's answer is good for so long
	checkTimeout = 5 * time.Second // and may take so long
	checkWait    = time.Second     // but readiness answers sooner
	failureHolds = 5 * time.Second // after a failed append, unless one succeeds
	tellEvery    = 10 * time.Second
)

// health says whether events can be appended now, from what became of the last ones and from a check of its own: without
// the check an instance that gets no traffic would never learn that its broker is back.
type health struct {
	check func(context.Context) error
	log   *slog.Logger

	mu        sync.Mutex
	checking  chan struct{} // closed when the check under way ends; nil without one
	checkedAt time.Time
	checked   error
	failedAt  time.Time
	failed    error // of the last append
	toldAt    time.Time
	told      bool // of a failure, and not yet of its end
}

func newHealth(check func(context.Context) error, log *slog.Logger) *health {
	return &health{check: check, log: log, checked: errors.New("the broker has not been reached yet")}
}

// appended notes what became of an append. It logs a failure now and then and the next success: while a broker is away
// every request fails alike, and while one partition is, every other one.
func (h *health) appended(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failed = err
	if err == nil {
		if h.told {
			h.told = false
			h.log.Info("events are acknowledged again")
		}
		return
	}
	if h.failedAt = time.Now(); h.failedAt.Sub(h.toldAt) >= tellEvery {
		h.told, h.toldAt = true, h.failedAt
		h.log.Warn("events are not acknowledged: answering 503", "error", err)
	}
}

// ready returns nil or why not. It waits a moment for a check that is due, so that its answer is fresh.
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

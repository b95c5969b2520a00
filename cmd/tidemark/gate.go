package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"tidemark/kafka"
	"tidemark/problem"
	"tidemark/views"
)

// A startGate is the start-up gate of a process's roles: it opens once topics and ACLs pass validation, and it stays
// open. While no broker can be reached the check is repeated; a cluster that tidemark cannot run on ends the process.
// Once open, the gate watches the topics' partition counts, since partitions can be added while the roles run.
type startGate struct {
	check func(context.Context) error
	watch func() (*kafka.TopicChecker, error) // opens the checker of the partition counts; nil: they are not watched
	log   *slog.Logger
	open  chan struct{} // closed once the check has passed

	topics *kafka.TopicChecker // of watchUntil

	mu     sync.Mutex
	reason error
}

func newStartGate(check func(context.Context) error, log *slog.Logger) *startGate {
	return &startGate{
		check: check, log: log, open: make(chan struct{}),
		reason: errors.New("the topics have not been checked yet"),
	}
}

// The first and the longest pause between two checks while no broker can be reached, and how often partitions are
// counted.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 5 * time.Second
	watchEvery = 3 * time.Second
)

// run checks until the gate is open, and then watches until ctx ends.
func (g *startGate) run(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier, pauses.MaxInterval = firstPause, 2, maxPause
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := g.check(ctx)
		if err != nil && !kafka.Unreachable(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(
		func(err error, pause time.Duration) {
			g.set(fmt.Errorf("waiting for the brokers: %w", err))
			g.log.WarnContext(ctx, "no broker can be reached, trying again", "pause", pause.String(), "error", err)
		}))
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	g.set(nil)
	close(g.open)
	g.watchUntil(ctx)
	return nil
}

// watchUntil keeps readiness up to date until ctx ends. A topic that has more partitions than before does not end the
// process: the roles go on, and an operator decides.
func (g *startGate) watchUntil(ctx context.Context) {
	if g.watch == nil {
		<-ctx.Done()
		return
	}
	defer g.closeTopics()
	logged := ""
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := g.checkPartitions(ctx)
		if ctx.Err() != nil || kafka.Unreachable(err) { // each role reports brokers that it cannot reach
			continue
		}
		g.set(err)
		switch {
		case err == nil && logged != "":
			g.log.InfoContext(ctx, "the topics have the wanted number of partitions again")
			logged = ""
		case err != nil && err.Error() != logged:
			logged = err.Error()
			g.log.ErrorContext(ctx, "the topics' partitions are not as wanted: `tidemark doctor` says what to do",
				"error", err)
		}
	}
}

// checkPartitions uses one client for all its calls. After an error that is not about partitions it closes the client:
// the next one reads certificates and passwords again, which may have been replaced.
func (g *startGate) checkPartitions(ctx context.Context) (err error) {
	if g.topics == nil {
		if g.topics, err = g.watch(); err != nil {
			return err
		}
	}
	err = g.topics.Partitions(ctx)
	if _, counted := errors.AsType[*kafka.Mismatch](err); err != nil && !counted {
		g.closeTopics()
	}
	return err
}

func (g *startGate) closeTopics() {
	if g.topics != nil {
		g.topics.Close()
		g.topics = nil
	}
}

func (g *startGate) set(reason error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.reason = reason
}

// Ready returns nil while the gate is open and the topics have the partition counts that were checked. The state of the
// brokers is for each role to report.
func (g *startGate) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// errNotStarted is the reason of every role behind a closed gate: readiness shows the cause beside it.
var errNotStarted = errors.New("waiting for the topics")

// ready returns a role's readiness check, which is not called before the gate is open.
func (g *startGate) ready(check func() error) func() error {
	return func() error {
		select {
		case <-g.open:
			return check()
		default:
			return errNotStarted
		}
	}
}

// then returns a service's run that begins when the gate opens.
func (g *startGate) then(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-g.open:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// handler answers 503 while the gate is closed: clients learn more from it than from a refused connection.
func (g *startGate) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-g.open:
			next.ServeHTTP(w, r)
		default:
			if views.RetryEventStream(w, r) {
				return
			}
			problem.New(http.StatusServiceUnavailable, "starting",
				"the topics have not passed validation yet: try again in a moment").
				Retry(2 * time.Second).Write(w)
		}
	})
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"tidemark/kafka"
)

// A cluster is the door to the roles: it stays shut until the topics have been found fit. A broker that is away is waited
// for; one that answers with something tidemark cannot run on ends the process. From then on the numbers of partitions
// are watched: anybody can add some while the roles run.
type cluster struct {
	check func(context.Context) error
	watch func(context.Context) error // says which topic has another number of partitions; nil: nobody looks
	log   *slog.Logger
	fit   chan struct{} // closed once the check has passed

	mu     sync.Mutex
	reason error
}

func newCluster(check func(context.Context) error, log *slog.Logger) *cluster {
	return &cluster{check: check, log: log, fit: make(chan struct{}), reason: errors.New("the topics have not been checked yet")}
}

// The pause between two checks while no broker answers, and between two looks at the numbers of partitions.
const (
	firstPause = 250 * time.Millisecond
	maxPause   = 5 * time.Second
	watchEvery = 3 * time.Second
)

// run checks until the cluster is fit, and then waits for ctx: a service ends when it is told to.
func (c *cluster) run(ctx context.Context) error {
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := c.check(ctx)
		if err == nil {
			c.set(nil)
			close(c.fit)
			c.watchUntil(ctx)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		if !kafka.Unreachable(err) {
			return err
		}
		c.set(fmt.Errorf("waiting for the brokers: %w", err))
		c.log.WarnContext(ctx, "the brokers cannot be asked yet, trying again", "pause", pause.String(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// watchUntil keeps readiness up to date until ctx ends. A topic that has more partitions than before is not a reason to
// end: what runs goes on as far as it can, and a person has to decide.
func (c *cluster) watchUntil(ctx context.Context) {
	if c.watch == nil {
		<-ctx.Done()
		return
	}
	said := ""
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := c.watch(ctx)
		if ctx.Err() != nil || kafka.Unreachable(err) { // brokers that are away are for each role to report
			continue
		}
		c.set(err)
		switch {
		case err == nil && said != "":
			c.log.InfoContext(ctx, "the topics have the wanted number of partitions again")
			said = ""
		case err != nil && err.Error() != said:
			said = err.Error()
			c.log.ErrorContext(ctx, "a topic has another number of partitions than wanted: `tidemark doctor` says what to do", "error", err)
		}
	}
}

func (c *cluster) set(reason error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = reason
}

// Ready returns nil once the cluster has been found fit, and while its topics have the number of partitions that they had
// then. What else becomes of the brokers later is for each role to tell.
func (c *cluster) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// errUnfit is the reason of every role that has not begun: readiness names the cause beside it.
var errUnfit = errors.New("waiting for the topics")

// ready returns a role's check that is asked only when the cluster is fit: before, the role has not begun.
func (c *cluster) ready(check func() error) func() error {
	return func() error {
		select {
		case <-c.fit:
			return check()
		default:
			return errUnfit
		}
	}
}

// then returns a service's run that begins when the cluster is fit.
func (c *cluster) then(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-c.fit:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// gate answers 503 until the cluster is fit: an address that is open early tells more than a refused connection.
func (c *cluster) gate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-c.fit:
			next.ServeHTTP(w, r)
			return
		default:
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, starting) //nolint:errcheck // a client that has left
	})
}

const starting = `{"type":"about:blank","title":"Service Unavailable","status":503,"code":"starting",` +
	`"detail":"the Kafka cluster has not been found fit yet: try again in a moment"}`

package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// MaxWait is the longest that a read may wait; a client's timeout must be longer.
const MaxWait = 60 * time.Second

const defaultWait = 5 * time.Second

// waitForm is also the pattern in openapi.json: whole seconds with or without "s", or milliseconds, up to MaxWait.
var waitForm = regexp.MustCompile(`^(([0-9]|[1-5][0-9]|60)s?|([0-9]{1,4}|[1-5][0-9]{4}|60000)ms)$`)

// parseWait parses the parameter wait.
func parseWait(s string) (time.Duration, error) {
	if !waitForm.MatchString(s) {
		return 0, badField("wait", "wait must be whole seconds, such as 5 or 5s, or milliseconds, such as 500ms, "+
			"and at most 60 seconds")
	}
	unit := time.Second
	if strings.HasSuffix(s, "ms") {
		unit = time.Millisecond
	}
	n, err := strconv.Atoi(strings.TrimRight(s, "ms"))
	return time.Duration(n) * unit, err
}

// A barrier has the parameters at_least and wait. With as_of a call waits for a position too.
type barrier struct {
	position  *tidemarkv1.Position // nil: none
	parameter string               // that has it
	wait      time.Duration
}

func parseBarrier(query url.Values) (barrier, error) {
	b := barrier{parameter: "at_least", wait: defaultWait}
	var err error
	if query.Has("wait") {
		if b.wait, err = parseWait(query.Get("wait")); err != nil {
			return b, err
		}
	}
	if query.Has("at_least") {
		if b.position, err = tidemarkv1.ParsePosition(query.Get("at_least")); err != nil {
			return b, badField("at_least",
				"at_least must be a position as the webhook endpoint answered it, for example 7:1234")
		}
	}
	return b, nil
}

// A reachedFunc reports whether the requested row includes a position.
type reachedFunc func(want *tidemarkv1.Position) (bool, error)

// await blocks until all coverages include the barrier's position, or until enough reports that the requested row
// includes it already. A position of another partition than that of the requested workspace is waited for too, since it
// is a valid position of another workspace; but not where another instance holds that partition, as no answer of this
// one depends on it. The key is that of the row that enough reads.
func (s *Server) await(ctx context.Context, c *call, all []*coverage, key string, enough reachedFunc) error {
	b := c.barrier
	if b.position == nil {
		return nil
	}
	partition, offset := b.position.GetPartition(), b.position.GetOffset()
	if last := s.conf.Streams.Events.Partitions - 1; int(partition) > last {
		return badField(b.parameter, fmt.Sprintf("there is no partition %d: partitions are 0 to %d", partition, last))
	}
	ctx, cancel := context.WithTimeout(ctx, b.wait)
	defer cancel()
	defer s.progress.pollFaster()()
	exists := false // the offset is in the log
	if !s.held.holds(partition) {
		if err := s.progress.waitForEvent(ctx, c.term.Done(), partition, offset); err != nil {
			return waitError(ctx, b, err)
		}
		exists, all = true, slices.DeleteFunc(slices.Clone(all), s.isCopy)
	}
	for {
		row := s.files.rows.wait(key) // before the row is read, so that no change is missed
		done, changed, err := s.passed(b, all, enough)
		if err != nil || done {
			row.cancel()
			return err
		}
		if !exists {
			row.cancel()
			if err := s.progress.waitForEvent(ctx, c.term.Done(), partition, offset); err != nil {
				return waitError(ctx, b, err)
			}
			exists = true
			continue
		}
		select {
		case <-row.changed:
		case <-changed:
		case <-c.term.Done():
			err = errStopping
		case <-ctx.Done():
			err = ctx.Err()
		}
		row.cancel()
		if err != nil {
			return waitError(ctx, b, err)
		}
	}
}

// isCopy reports whether a coverage is that of a copy of a table.
func (s *Server) isCopy(c *coverage) bool {
	return c == &s.files.coverage || c == &s.workspaces.coverage
}

// passed reports whether the barrier's position is reached; if not, changed is closed when that may have changed.
func (s *Server) passed(b barrier, all []*coverage, enough reachedFunc) (
	done bool, changed <-chan struct{}, err error,
) {
	if enough != nil {
		if done, err = enough(b.position); err != nil || done {
			return done, nil, err
		}
	}
	for _, c := range all {
		f := c.frontiers[b.position.GetPartition()]
		changed = f.wait()
		if _, next := f.offsets(); next <= b.position.GetOffset() {
			return false, changed, nil
		}
	}
	return true, nil, nil
}

var errStopping = errors.New("stopping")

// waitError turns the reason why a wait ended into the answer.
func waitError(ctx context.Context, b barrier, err error) error {
	switch {
	case errors.Is(err, errBeyondEnd):
		return badField(b.parameter, fmt.Sprintf("position %s is beyond the end of the log: "+
			"use a position as the webhook endpoint answered it", b.position.Text()))
	case errors.Is(err, context.Canceled): // the client has left
		return err
	case ctx.Err() == nil && !errors.Is(err, errStopping):
		return err
	}
	detail := fmt.Sprintf("position %s was not reached within %s: try again, or raise wait (at most 60s)",
		b.position.Text(), b.wait)
	return problem.New(http.StatusServiceUnavailable, codeNotReached, detail).On(b.parameter).Retry(time.Second)
}

var errBeyondEnd = errors.New("beyond the end of the log")

// endConfirmedAfter is how long brokers must keep reporting that an offset is beyond the end. A stale leader that was
// paused reports an old end until it learns of the new leader.
const endConfirmedAfter = time.Second

// waitForEvent returns nil once the events topic is known to have the offset. It returns errBeyondEnd if a poll that
// began at least endConfirmedAfter after the call still reports an end that is not above the offset, errStopping once
// stopping is closed, and ctx's error if ctx ends first.
func (p *progress) waitForEvent(ctx context.Context, stopping <-chan struct{}, partition int32, offset int64) error {
	asked := time.Now()
	for {
		p.mu.Lock()
		last, polled := p.lastResponse[partition], p.polled
		exists := !last.IsZero() && offset < p.last.eventsEnd[partition]
		p.mu.Unlock()
		switch {
		case exists:
			return nil
		case !last.Before(asked.Add(endConfirmedAfter)):
			return errBeyondEnd
		}
		p.wake()
		select {
		case <-polled:
		case <-stopping:
			return errStopping
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changelogEndsBefore reports whether the files table is known to end before an offset. A poll that began before since
// may be older than the offset, or be answered by a stale leader.
func (p *progress) changelogEndsBefore(partition int32, offset int64, since time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.began.Before(since) || !p.last.known(int(partition)) {
		return false
	}
	return p.last.filesEnd[partition] < offset
}

// keyWaiters notifies requests of records of single keys: of rows, or of workspaces for changes of any of their files.
type keyWaiters struct {
	mu   sync.Mutex
	keys map[string]*nextRecord
}

// A nextRecord is the next record of a key, for all that wait for it.
type nextRecord struct {
	done    chan struct{}
	waiters int
}

// A keyWait waits for a record of one key; changed is closed when one was applied.
type keyWait struct {
	all     *keyWaiters
	key     string
	next    *nextRecord
	changed <-chan struct{}
}

// wait begins to wait, for nothing if the key is empty. The caller must call cancel.
func (r *keyWaiters) wait(key string) keyWait {
	if key == "" {
		return keyWait{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.keys[key]
	if c == nil {
		if r.keys == nil {
			r.keys = map[string]*nextRecord{}
		}
		c = &nextRecord{done: make(chan struct{})}
		r.keys[key] = c
	}
	c.waiters++
	return keyWait{all: r, key: key, next: c, changed: c.done}
}

func (w keyWait) cancel() {
	if w.all == nil {
		return
	}
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if w.next.waiters--; w.next.waiters == 0 && w.all.keys[w.key] == w.next {
		delete(w.all.keys, w.key)
	}
}

// notifyAll is for records that were applied all at once.
func (r *keyWaiters) notifyAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.keys {
		close(c.done)
	}
	clear(r.keys)
}

func (r *keyWaiters) notify(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.keys[key]; c != nil {
		close(c.done)
		delete(r.keys, key)
	}
}

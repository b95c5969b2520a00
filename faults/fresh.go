package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"
)

// fresh asks the query API, with at_least, for files whose events were just acknowledged: while something is broken an answer may be
// late or missing, but it may never lack the event.
type fresh struct {
	traffic *traffic
	url     string // empty: no role serves the API
	done    chan struct{}

	answers, failures int
	stale             []string
}

const freshEvery = 200 * time.Millisecond

func newFresh(r *run) *fresh {
	f := &fresh{traffic: r.traffic, done: make(chan struct{})}
	if r.serve != nil {
		f.url = r.serve.URL
	}
	return f
}

// run asks until ctx ends.
func (f *fresh) run(ctx context.Context) {
	defer close(f.done)
	client := &http.Client{Timeout: 15 * time.Second}
	for f.url != "" && rig.Sleep(ctx, freshEvery) == nil {
		acked := make(chan provider.Attempt, 1)
		f.traffic.fresh.Store(&acked)
		select {
		case a := <-acked:
			if file := fileOf(a.Delivery); file != "" {
				f.ask(ctx, client, target{a.Workspace, file}, a.Position, mayRepeat(a.Delivery))
			}
		case <-ctx.Done():
		}
	}
}

// ask requires a row that is no older than the position. An event that repeats its folder's effect does not change the row's position.
func (f *fresh) ask(ctx context.Context, client *http.Client, of target, position string, repeats bool) {
	status, file, err := getFile(ctx, client, f.url+of.path()+"?wait=5&at_least="+url.QueryEscape(position))
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || status >= 500:
		f.failures++
		return
	}
	f.answers++
	if status != http.StatusOK || file.WorkspaceID != of.scope || file.FileID != of.object || !repeats && older(file.Position, position) {
		f.stale = append(f.stale, fmt.Sprintf("%s: %d, %q at %q, asked for %q", of.path(), status, file.FileID, file.Position, position))
	}
}

// older compares two positions of one partition; one that cannot be read is older.
func older(a, b string) bool {
	offset := func(position string) int64 {
		_, text, _ := strings.Cut(position, ":")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	return offset(a) < offset(b)
}

// report waits for the end of run.
func (f *fresh) report(to *oracle.Report) {
	<-f.done
	if f.url == "" {
		return
	}
	const name = "answers without an event that at_least asked for"
	to.Check(name)
	for _, example := range f.stale {
		to.Violate(name, "%s", example)
	}
	if f.answers == 0 && f.failures > 0 {
		to.Violate(name, "no answer at all to %d questions", f.failures)
	}
	to.Fact("files asked for with at_least while faults hit", fmt.Sprintf("%d answers, %d without one", f.answers, f.failures))
}

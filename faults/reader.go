package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"
)

// A poller requests files from the query API while faults hit, and checks the answers.
type poller struct {
	url    string // empty: no role serves the API
	client *http.Client
	found  *oracle.Report // merged by report
	done   chan struct{}

	answers, failures int
}

func newPoller(r *run, timeout time.Duration, checks ...string) poller {
	p := poller{client: &http.Client{Timeout: timeout}, found: &oracle.Report{}, done: make(chan struct{})}
	if r.serve != nil {
		p.url = r.serve.URL
		for _, name := range checks {
			p.found.Check(name)
		}
	}
	return p
}

// An answered file has the compared fields of an answer; all are empty for a file that does not exist yet.
type answered struct {
	WorkspaceID string `json:"workspace_id"`
	FileID      string `json:"file_id"`
	Position    string
	Version     int64
}

// get requests a file; ok is false without an answer, and for 5xx.
func (p *poller) get(ctx context.Context, of target, query string) (status int, file answered, ok bool) {
	resp, err := p.request(ctx, p.url+of.path()+query)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(body, &file)
	}
	switch {
	case ctx.Err() != nil:
		return 0, file, false
	case err != nil || resp.StatusCode >= 500:
		p.failures++
		return 0, file, false
	}
	p.answers++
	return resp.StatusCode, file, true
}

func (p *poller) request(ctx context.Context, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return p.client.Do(req)
}

// report waits for the end of run.
func (p *poller) report(to *oracle.Report, check, fact string) {
	<-p.done
	if p.url == "" {
		return
	}
	to.Merge(p.found)
	if p.answers == 0 && p.failures > 0 {
		to.Violate(check, "no answer at all to %d requests", p.failures)
	}
	to.Fact(fact, fmt.Sprintf("%d answers, %d without one", p.answers, p.failures))
}

// A reader requests files that change often: no answer may be older than an earlier one, or of another file.
type reader struct {
	poller
	files []target
	seen  map[target]int64 // version
}

const (
	goingBack   = "versions seen going back over HTTP"
	anotherFile = "answers of another file over HTTP"
)

func newReader(r *run) *reader {
	return &reader{
		newPoller(r, 10*time.Second, goingBack, anotherFile), hottest(r.traffic.history, 50),
		map[target]int64{},
	}
}

// run requests files until ctx ends.
func (a *reader) run(ctx context.Context) {
	defer close(a.done)
	for i := 0; a.url != "" && len(a.files) > 0 && rig.Sleep(ctx, 50*time.Millisecond) == nil; i++ {
		of := a.files[i%len(a.files)]
		status, file, ok := a.get(ctx, of, "")
		if !ok {
			continue
		}
		if before := a.seen[of]; file.Version < before {
			a.found.Violate(goingBack, "%s: %d, version %d after %d", of.path(), status, file.Version, before)
		}
		if status == http.StatusOK && (file.WorkspaceID != of.scope || file.FileID != of.object) {
			a.found.Violate(anotherFile, "%s: %q/%q", of.path(), file.WorkspaceID, file.FileID)
		}
		a.seen[of] = file.Version
	}
}

func (a *reader) report(to *oracle.Report) {
	a.poller.report(to, goingBack, "files asked for over HTTP while faults hit")
	if a.url == "" {
		return
	}
	maps.DeleteFunc(a.seen, func(_ target, version int64) bool { return version == 0 })
	to.Fact("files that were there", fmt.Sprintf("%d of %d", len(a.seen), len(a.files)))
}

// fresh requests, with at_least, files whose events were just acknowledged: while something is broken an answer may
// be late or missing, but it may never lack the event.
type fresh struct {
	poller
	traffic *traffic
}

const lacksEvent = "answers without an event that at_least asked for"

func newFresh(r *run) *fresh { return &fresh{newPoller(r, 15*time.Second, lacksEvent), r.traffic} }

// run requests files until ctx ends.
func (f *fresh) run(ctx context.Context) {
	defer close(f.done)
	for f.url != "" && rig.Sleep(ctx, 200*time.Millisecond) == nil {
		acked := make(chan provider.Attempt, 1)
		f.traffic.fresh.Store(&acked)
		select {
		case a := <-acked:
			if file := fileOf(a.Delivery); file != "" {
				f.check(ctx, target{a.Workspace, file}, a.Position, mayRepeat(a.Delivery))
			}
		case <-ctx.Done():
		}
	}
}

// check requires a row that is no older than the position. An event that repeats its folder's effect does not change
// the row's position.
func (f *fresh) check(ctx context.Context, of target, position string, repeats bool) {
	status, file, ok := f.get(ctx, of, "?wait=5&at_least="+url.QueryEscape(position))
	right := status == http.StatusOK && file.WorkspaceID == of.scope && file.FileID == of.object
	if ok && (!right || !repeats && older(file.Position, position)) {
		f.found.Violate(lacksEvent, "%s: %d, %q at %q, asked for %q", of.path(), status, file.FileID, file.Position,
			position)
	}
}

func (f *fresh) report(to *oracle.Report) {
	f.poller.report(to, lacksEvent, "files asked for with at_least while faults hit")
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

// A target is a file to request.
type target struct{ scope, object string }

func (t target) path() string { return oracle.FilePath(t.scope, t.object) }

// hottest returns the files of most of the first deliveries of each workspace.
func hottest(h *gen.History, n int) []target {
	times := map[target]int{}
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries[:min(len(w.Deliveries), 500)] {
			if id := fileOf(d); id != "" {
				times[target{w.ID, id}]++
			}
		}
	}
	files := slices.SortedFunc(maps.Keys(times), func(a, b target) int {
		return cmp.Or(cmp.Compare(times[b], times[a]), cmp.Compare(a.path(), b.path()))
	})
	return files[:min(len(files), n)]
}

// fileOf returns the file that a delivery changes, if any.
func fileOf(d gen.Delivery) string {
	var e struct {
		Event, EventType string
		ObjectID         string `json:"object_id"`
		FileID           string
	}
	if d.Refused || json.Unmarshal(d.Body, &e) != nil ||
		!strings.Contains(cmp.Or(e.Event, e.EventType), "_storage_file_") {
		return ""
	}
	return cmp.Or(e.ObjectID, e.FileID)
}

// mayRepeat reports whether the provider may send the event for an entry in addition to its folder's event.
func mayRepeat(d gen.Delivery) bool {
	var e struct{ Event, EventType string }
	if json.Unmarshal(d.Body, &e) != nil {
		return false
	}
	_, what, _ := strings.Cut(cmp.Or(e.Event, e.EventType), "_storage_file_")
	return what == "moved" || what == "deleted" || what == "restored"
}

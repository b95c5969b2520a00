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
	"slices"
	"strings"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// A reader polls the query API for files that change often: no answer may be older than an earlier one, or of another file.
type reader struct {
	url   string // empty: no role serves the API
	files []target
	done  chan struct{}

	seen              map[target]int64 // version
	answers, failures int
	back, others      []string
}

// A target is a file to ask for.
type target struct{ scope, object string }

func (t target) path() string { return oracle.FilePath(t.scope, t.object) }

const (
	asked    = 50 // files
	askEvery = 50 * time.Millisecond
)

func newReader(r *run) *reader {
	a := &reader{done: make(chan struct{}), seen: map[target]int64{}}
	if r.serve != nil {
		a.url, a.files = r.serve.URL, hottest(r.traffic.history, asked)
	}
	return a
}

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
	if d.Refused || json.Unmarshal(d.Body, &e) != nil || !strings.Contains(cmp.Or(e.Event, e.EventType), "_storage_file_") {
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

// run asks until ctx ends.
func (a *reader) run(ctx context.Context) {
	defer close(a.done)
	client := &http.Client{Timeout: 10 * time.Second}
	for i := 0; len(a.files) > 0 && rig.Sleep(ctx, askEvery) == nil; i++ {
		a.ask(ctx, client, a.files[i%len(a.files)])
	}
}

func (a *reader) ask(ctx context.Context, client *http.Client, of target) {
	status, file, err := getFile(ctx, client, a.url+of.path())
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || status >= 500:
		a.failures++
		return
	}
	a.answers++
	if before := a.seen[of]; file.Version < before {
		a.back = append(a.back, fmt.Sprintf("%s: %d, version %d after %d", of.path(), status, file.Version, before))
	}
	if status == http.StatusOK && (file.WorkspaceID != of.scope || file.FileID != of.object) {
		a.others = append(a.others, fmt.Sprintf("%s: %q/%q", of.path(), file.WorkspaceID, file.FileID))
	}
	a.seen[of] = file.Version
}

// An answered file has the compared fields of an answer; all are empty for a file that does not exist yet.
type answered struct {
	WorkspaceID string `json:"workspace_id"`
	FileID      string `json:"file_id"`
	Position    string
	Version     int64
}

func getFile(ctx context.Context, client *http.Client, url string) (status int, file answered, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, file, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, file, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		return resp.StatusCode, file, err
	}
	err = json.Unmarshal(body, &file)
	return resp.StatusCode, file, err
}

// report waits for the end of run.
func (a *reader) report(to *oracle.Report) {
	<-a.done
	if a.url == "" {
		return
	}
	const back, others = "versions seen going back over HTTP", "answers of another file over HTTP"
	to.Check(back)
	for _, example := range a.back {
		to.Violate(back, "%s", example)
	}
	to.Check(others)
	for _, example := range a.others {
		to.Violate(others, "%s", example)
	}
	if a.answers == 0 && a.failures > 0 {
		to.Violate(back, "no answer at all to %d questions", a.failures)
	}
	to.Fact("files asked for over HTTP while faults hit", fmt.Sprintf("%d answers, %d without one, %d of %d files were there", a.answers, a.failures, a.there(), len(a.files)))
}

func (a *reader) there() (n int) {
	for _, version := range a.seen {
		if version > 0 {
			n++
		}
	}
	return n
}

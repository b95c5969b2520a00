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
)

// A reader asks the query API for files that change often, again and again: whatever breaks, no answer may be older than one
// that was given before.
type reader struct {
	url   string // empty: there is nobody to ask
	paths []string
	done  chan struct{}

	seen              map[string]int64 // version, by path
	answers, failures int
	back              []string
}

const (
	asked    = 50 // files
	askEvery = 50 * time.Millisecond
)

func newReader(r *run) *reader {
	a := &reader{done: make(chan struct{}), seen: map[string]int64{}}
	if r.serve != nil {
		a.url, a.paths = r.serve.url, hottest(r.traffic.history, asked)
	}
	return a
}

// hottest are the files that most of the first deliveries of each workspace are about.
func hottest(h *gen.History, n int) []string {
	times := map[string]int{}
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries[:min(len(w.Deliveries), 500)] {
			var e struct {
				Event, EventType string
				ObjectID         string `json:"object_id"`
				FileID           string
			}
			if d.Refused || json.Unmarshal(d.Body, &e) != nil {
				continue
			}
			if id := cmp.Or(e.ObjectID, e.FileID); id != "" && strings.Contains(cmp.Or(e.Event, e.EventType), "_storage_file_") {
				times[oracle.FilePath(w.ID, id)]++
			}
		}
	}
	paths := slices.SortedFunc(maps.Keys(times), func(a, b string) int { return cmp.Or(cmp.Compare(times[b], times[a]), cmp.Compare(a, b)) })
	return paths[:min(len(paths), n)]
}

// run asks until ctx ends.
func (a *reader) run(ctx context.Context) {
	defer close(a.done)
	client := &http.Client{Timeout: 10 * time.Second}
	for i := 0; len(a.paths) > 0 && sleep(ctx, askEvery) == nil; i++ {
		a.ask(ctx, client, a.paths[i%len(a.paths)])
	}
}

func (a *reader) ask(ctx context.Context, client *http.Client, path string) {
	status, version, err := a.version(ctx, client, path)
	switch {
	case ctx.Err() != nil:
		return
	case err != nil || status >= 500:
		a.failures++
		return
	}
	a.answers++
	if before := a.seen[path]; version < before {
		a.back = append(a.back, fmt.Sprintf("%s: %d, version %d after %d", path, status, version, before))
	}
	a.seen[path] = version
}

// version is 0 for a file that is not there yet.
func (a *reader) version(ctx context.Context, client *http.Client, path string) (status int, version int64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url+path, nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, 0, err
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
		return resp.StatusCode, 0, err
	}
	var file struct{ Version int64 }
	err = json.Unmarshal(body, &file)
	return resp.StatusCode, file.Version, err
}

// report waits for the end of run.
func (a *reader) report(to *oracle.Report) {
	<-a.done
	if a.url == "" {
		return
	}
	const name = "versions seen going back over HTTP"
	to.Check(name)
	for _, example := range a.back {
		to.Violate(name, "%s", example)
	}
	to.Fact("files asked for over HTTP while faults hit", fmt.Sprintf("%d answers, %d without one, %d of %d files were there", a.answers, a.failures, len(a.there()), len(a.paths)))
}

func (a *reader) there() (paths []string) {
	for path, version := range a.seen {
		if version > 0 {
			paths = append(paths, path)
		}
	}
	return paths
}

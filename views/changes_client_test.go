package views

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"net/url"
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A changesClient keeps a replica of a query's files by a listing or not, and the changes.
type changesClient struct {
	q        query
	files    map[string]replica
	listing  string // next_cursor
	cursor   string
	started  bool
	complete int64 // exclusive bound of the events that it was said to have
	fault    fault
}

type replica struct {
	Version int64
	Path    string
}

// A fault is an error that the test must find.
type fault int

const (
	none         fault = iota
	lateHandOver       // continues a listing where its last page is, not where its first page was
	ignoresDeletes
)

func (c *changesClient) values() url.Values {
	v := url.Values{"status": {c.q.status}, "kind": {c.q.kind}, "wait": {"0"}}
	if c.q.prefix != "" {
		v.Set("path_prefix", c.q.prefix)
	}
	return v
}

type changesAnswer struct {
	Files []struct {
		FileID string `json:"file_id"`
		replica
	}
	NextCursor    *string `json:"next_cursor"`
	ChangesCursor string  `json:"changes_cursor"`

	Changes []struct {
		Op     string
		FileID string `json:"file_id"`
		File   struct {
			FileID string `json:"file_id"`
			replica
		}
	}
	Cursor     string
	UpToDate   bool                 `json:"up_to_date"`
	CompleteTo *tidemarkv1.Position `json:"complete_to"`
}

// step sends one request. An instance that is behind refuses, and a workspace may not exist there yet.
func (w *world) step(c *changesClient, in *instance) (upToDate bool) {
	v := c.values()
	if !c.started {
		old := c.files
		*c = changesClient{q: c.q, fault: c.fault, files: map[string]replica{}, started: true}
		switch w.random.IntN(4) {
		case 0:
		case 1:
			maps.Copy(c.files, old)
			c.cursor = "diff"
		default:
			c.cursor = "list"
		}
	}
	if c.cursor == "diff" {
		w.stepDiff(c, in)
		return false
	}
	v.Set("limit", fmt.Sprint(1+w.random.IntN(5)))
	target := "/v1/workspaces/ws/changes?"
	if c.cursor == "list" {
		target = "/v1/workspaces/ws/files?"
		v.Set("cursor", c.listing)
	} else {
		v.Set("cursor", c.cursor)
	}
	response := in.get(target + v.Encode())
	if response.Code == 503 || response.Code == 404 && c.cursor == "" || response.Code == 404 && c.cursor == "list" {
		return false
	}
	var a changesAnswer
	if err := json.Unmarshal(response.Body.Bytes(), &a); err != nil || response.Code != 200 {
		w.t.Fatalf("%s%s: %d %s (%v)", target, v.Encode(), response.Code, response.Body, err)
	}
	if c.cursor == "list" {
		w.takeListing(c, in, a)
		return false
	}
	w.takeChanges(c, response, a)
	return a.UpToDate
}

// stepDiff resyncs the files that the client has, some with another version, as a cache may have them.
func (w *world) stepDiff(c *changesClient, in *instance) {
	var have []diffFile
	for _, id := range slices.Sorted(maps.Keys(c.files)) {
		have = append(have, diffFile{id, max(0, c.files[id].Version-int64(w.random.IntN(2)))})
	}
	body, err := json.Marshal(map[string]any{"files": have})
	if err != nil {
		w.t.Fatal(err)
	}
	response := in.post("/v1/workspaces/ws/changes/diff?"+c.values().Encode(), string(body))
	if response.Code == 503 || response.Code == 404 {
		return
	}
	var a diffAnswer
	if err := json.Unmarshal(response.Body.Bytes(), &a); err != nil || response.Code != 200 {
		w.t.Fatalf("%d %s (%v)", response.Code, response.Body, err)
	}
	for _, f := range append(a.Changed, a.New...) {
		c.files[f.FileID] = f.replica
	}
	for _, id := range a.Gone {
		delete(c.files, id)
	}
	c.cursor = a.Cursor
}

func (w *world) takeListing(c *changesClient, in *instance, a changesAnswer) {
	for _, f := range a.Files {
		c.files[f.FileID] = f.replica
	}
	if a.NextCursor != nil {
		c.listing = *a.NextCursor
		return
	}
	c.cursor = a.ChangesCursor
	if c.fault == lateHandOver {
		v := c.values()
		v.Set("cursor", "latest")
		if err := json.Unmarshal(in.get("/v1/workspaces/ws/changes?"+v.Encode()).Body.Bytes(), &a); err != nil {
			w.t.Fatal(err)
		}
		c.cursor = a.Cursor
	}
}

func (w *world) takeChanges(c *changesClient, response *httptest.ResponseRecorder, a changesAnswer) {
	for _, change := range a.Changes {
		switch {
		case change.Op == "upsert":
			c.files[change.File.FileID] = change.File.replica
		case c.fault != ignoresDeletes:
			delete(c.files, change.FileID)
		}
	}
	before, err1 := c.q.decodeChangesCursor(c.cursor)
	after, err2 := c.q.decodeChangesCursor(a.Cursor)
	if c.cursor == "" {
		before.nextEvent, err1 = unknown, nil
	}
	if err1 != nil || err2 != nil || after.next < before.next || after.nextEvent < before.nextEvent ||
		len(a.Changes) > 0 && after.next == before.next {
		w.t.Errorf("the cursor goes from %+v to %+v with %s", before, after, response.Body)
	}
	c.cursor = a.Cursor
	if a.CompleteTo != nil && !w.early {
		c.complete = a.CompleteTo.GetOffset() + 1
	}
}

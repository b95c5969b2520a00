package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/history"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func (p *past) usage(query string) (u usage) {
	p.t.Helper()
	w := p.get("/v1/workspaces/ws/usage?wait=0&" + query)
	if err := json.Unmarshal(w.Body.Bytes(), &u); err != nil || w.Code != 200 {
		p.t.Fatalf("%d %s", w.Code, w.Body)
	}
	return u
}

func TestUsage(t *testing.T) {
	p := newPast(t)
	now := time.Now().UnixMicro()
	for i, path := range []string{"/a/x", "/a/y", "/b/z", ""} {
		row := p.version(1, int64(i), path)
		row.FileId, row.ActorId, row.Size = fmt.Sprint("f", i), "u1", new(int64(10))
		p.change(nil, row, func(n *tidemarkv1.Notice) { n.At = now })
	}
	trashed := p.version(1, 9, "/a/t")
	trashed.FileId, trashed.Status = "t", isTrashed
	p.change(nil, trashed, func(n *tidemarkv1.Notice) { n.At = now })
	u := p.usage("by=folder,actor&window=1h")
	a, b, u1 := new("/a"), new("/b"), new("u1")
	want := map[string]ranked[fileTotal]{
		"folder": {Keys: []keyTotal[fileTotal]{
			{a, fileTotal{2, 20}}, {nil, fileTotal{1, 10}}, {b, fileTotal{1, 10}},
		}},
		"actor": {Keys: []keyTotal[fileTotal]{{u1, fileTotal{4, 40}}}},
	}
	if d := cmp.Diff(want, u.Totals.By); d != "" || u.Totals.fileTotal != (fileTotal{4, 40}) {
		t.Errorf("%+v %s", u.Totals.fileTotal, d)
	}
	if len(u.Activity.Windows) != 1 {
		t.Fatalf("%+v", u.Activity)
	}
	window := u.Activity.Windows[0]
	if window.activityTotal != (activityTotal{5, 4, 0, 0, 40, 0}) || u.Activity.Window != "1h" ||
		!window.Start.Equal(time.UnixMicro(now).Truncate(time.Hour)) {
		t.Errorf("%+v", u.Activity)
	}
	actors := []keyTotal[activityTotal]{{u1, activityTotal{5, 4, 0, 0, 40, 0}}}
	if d := cmp.Diff(actors, window.By["actor"].Keys); d != "" {
		t.Error(d)
	}
	// the totals change with the rows
	row := p.version(2, 10, "/c/x")
	row.FileId = "f0"
	p.change(nil, row)
	if got := p.usage("").Totals.fileTotal; got != (fileTotal{4, 230}) {
		t.Errorf("after a change: %+v", got)
	}
	for _, query := range []string{
		"by=", "by=size", "window=0h", "window=25h", "window=60m", "window=1.5h", "window=01h", "as_of=0:1",
	} {
		if w := p.get("/v1/workspaces/ws/usage?" + query); w.Code != 400 {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if w := p.get("/v1/workspaces/none/usage"); w.Code != 404 {
		t.Errorf("no such workspace: %d", w.Code)
	}
}

func TestTallyHasABoundOfKeys(t *testing.T) {
	counted := tally[fileTotal]{limit: 3}
	for i, key := range []string{"a", "b", "c", "d", "a", "e"} {
		counted.add(key, fileTotal{1, int64(i)})
	}
	room := 10
	got := counted.ranked(2, &room)
	want := ranked[fileTotal]{
		Keys:  []keyTotal[fileTotal]{{new("a"), fileTotal{2, 4}}, {new("b"), fileTotal{1, 1}}},
		Other: &fileTotal{3, 10},
	}
	if d := cmp.Diff(want, got); d != "" || room != 8 {
		t.Error(room, d)
	}
	room = 1
	if got := counted.ranked(3, &room); len(got.Keys) != 1 || got.Other.Files != 4 || room != 0 {
		t.Errorf("room for one name: %+v", got)
	}
}

// Requests at the same time count the files of a workspace once.
func TestUsageIsCountedOnce(t *testing.T) {
	p := newPast(t)
	p.change(nil, p.version(1, 0, "/a"))
	_, _, _, done := p.usages.get("ws", p.Server.files.generationOf(p.partition), 0)
	for range maxScans { // counting is refused
		p.scans <- struct{}{}
	}
	results := make(chan error, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.usageOf(ctx, "ws"); !errors.Is(err, context.Canceled) {
		t.Errorf("does not wait: %v", err)
	}
	for range cap(results) {
		go func() {
			totals, err := p.usageOf(t.Context(), "ws")
			if err == nil && totals.all.Files != 7 {
				err = fmt.Errorf("got %+v", totals)
			}
			results <- err
		}()
	}
	p.usages.put("ws", cachedUsage{p.Server.files.generationOf(p.partition), 100, fileTotals{all: fileTotal{Files: 7}}})
	done()
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	p.change(nil, p.version(2, 101, "/b"))
	p.usages.put("ws", cachedUsage{p.Server.files.generationOf(p.partition), -1, fileTotals{}})
	if _, err := p.usageOf(t.Context(), "ws"); err == nil {
		t.Error("totals of before the last row are answered")
	}
}

// A usage is one of maxScans answers, and ends with its client.
func TestUsageIsBounded(t *testing.T) {
	p := newPast(t)
	now := time.Now()
	p.change(nil, p.version(1, 0, "/a"), func(n *tidemarkv1.Notice) { n.At = now.UnixMicro() })
	p.usage("") // the totals of files are cached from here on
	for range maxScans {
		p.scans <- struct{}{}
	}
	if w := p.get("/v1/workspaces/ws/usage?wait=0"); code(t, w) != codeTooManyScans {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.history.Read(p.partition, func(h *history.Snapshot) error {
		_, err := readActivity(ctx, h, "ws", usageRequest{window: time.Hour}, now)
		return err
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("without a client: %v", err)
	}
}

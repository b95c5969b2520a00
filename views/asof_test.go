package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	rules "tidemark/file"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A past is a fixture with a history, and the partition of the workspace "ws".
type past struct {
	*fixture
	partition int32
	next      int64 // offset of the notify topic
}

func newPast(t *testing.T) *past {
	t.Helper()
	p := &past{fixture: newFixture(t), partition: kafka.Partition("ws", 4)}
	p.beginHistory()
	return p
}

// version returns a state of file "f" by the event at an offset.
func (p *past) version(version, offset int64, path string) *tidemarkv1.FileState {
	row := fileRow("ws", "f", path, isActive, version)
	row.Position, row.Size = &tidemarkv1.Position{Partition: p.partition, Offset: offset}, new(100*version)
	return row
}

// change writes a row, and the notice of its event.
func (p *past) change(before, after *tidemarkv1.FileState, edit ...func(*tidemarkv1.Notice)) {
	p.t.Helper()
	n := &tidemarkv1.Notice{
		WorkspaceId: "ws", FileId: after.FileId, EventId: "evt", Event: "workspace_storage_file_moved",
		Position: after.Position, At: after.Position.Offset * 1e6, Before: before, After: after,
		Version: &after.Version, ActorId: "u1",
	}
	for _, e := range edit {
		e(n)
	}
	value, err := codecs.Notice{}.Encode(n)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.history.Apply(&kgo.Record{
		Partition: p.partition, Offset: p.next, Value: value, Timestamp: time.Now(),
	}); err != nil {
		p.t.Fatal(err)
	}
	p.put(after)
	p.next++
	p.reach(after.Position.Offset + 1)
}

// reach polls brokers whose events topic has that many events, all of them folded.
func (p *past) reach(events int64) {
	i := p.partition
	p.now.filesCommit[i], p.now.eventsEnd[i], p.now.filesEnd[i] = events, events, p.files[i]
	p.now.notifyEnd[i], p.now.notifyCommit[i], p.now.workspacesEnd[i] = p.next, p.next, p.works[i]
	p.poll()
}

// moves gives file "f" the paths /a, /b and /c by the events 3, 5 and 9.
func (p *past) moves() {
	a, b, c := p.version(1, 3, "/a"), p.version(2, 5, "/b"), p.version(3, 9, "/c")
	p.change(nil, a)
	p.change(a, b)
	p.change(b, c, func(n *tidemarkv1.Notice) {
		n.Late, n.Cause = true, &tidemarkv1.Cause{Event: "folder_moved", EventId: "e8", Position: c.Position}
		n.Cause.Inherited = &tidemarkv1.Inherited{FolderId: "d"}
	})
}

func pathOf(body string) string {
	var f struct{ Path string }
	_ = json.Unmarshal([]byte(body), &f)
	return f.Path
}

func TestHistoryOfAFile(t *testing.T) {
	p := newPast(t)
	p.moves()
	w := p.get("/v1/workspaces/ws/files/f/history?limit=2")
	var got struct {
		Versions []struct {
			Version             int64
			Position, Event, At string
			EventID             string `json:"event_id"`
			ActorID             string `json:"actor_id"`
			Late                bool
			Cause               map[string]string
			Changed             map[string]map[string]any
			File                struct{ Path string }
		}
		NextCursor   string `json:"next_cursor"`
		CompleteFrom string `json:"complete_from"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || len(got.Versions) != 2 || got.NextCursor == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	v := got.Versions[0]
	want := map[string]map[string]any{"path": {"from": "/b", "to": "/c"}, "size": {"from": 200., "to": 300.}}
	if d := cmp.Diff(want, v.Changed); d != "" {
		t.Error(d)
	}
	cause := map[string]string{
		"event": "folder_moved", "event_id": "e8", "folder_id": "d", "position": fmt.Sprintf("%d:9", p.partition),
	}
	if d := cmp.Diff(cause, v.Cause); d != "" {
		t.Error(d)
	}
	if v.Version != 3 || !v.Late || v.File.Path != "/c" || v.EventID != "evt" || v.ActorID != "u1" ||
		v.At != "1970-01-01T00:00:09Z" || got.CompleteFrom != fmt.Sprintf("%d:0", p.partition) {
		t.Errorf("%s", w.Body)
	}
	w = p.get("/v1/workspaces/ws/files/f/history?limit=2&cursor=" + got.NextCursor)
	if !strings.Contains(w.Body.String(), `"path":{"from":null,"to":"/a"}`) ||
		!strings.Contains(w.Body.String(), `"next_cursor":null`) {
		t.Errorf("the second page: %s", w.Body)
	}
	for target, want := range map[string]int{
		"/v1/workspaces/ws/files/g/history":                               404,
		"/v1/workspaces/ws/files/f/history?limit=0":                       400,
		"/v1/workspaces/ws/files/f/history?cursor=x":                      400,
		"/v1/workspaces/ws1/files/f/history?cursor=" + got.NextCursor:     400,
		"/v1/workspaces/ws/files/f/history?as_of=" + v.Position:           400,
		"/v1/workspaces/ws/files/f/history?wait=0&at_least=" + v.Position: 200,
	} {
		if w := p.get(target); w.Code != want {
			t.Errorf("%s: %d %s, want %d", target, w.Code, w.Body, want)
		}
	}
}

// The history is 503 until it has the change that the file shows.
func TestHistoryIsBehind(t *testing.T) {
	p := newPast(t)
	p.moves()
	p.put(p.version(4, 11, "/d"))
	p.next++ // is in the topic
	p.reach(12)
	for _, target := range []string{
		"/files/f/history?wait=0", fmt.Sprintf("/files/f?wait=0&as_of=%d:10", p.partition),
	} {
		if w := p.get("/v1/workspaces/ws" + target); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	w := p.get(fmt.Sprintf("/v1/workspaces/ws/files/f?wait=0&as_of=%d:8", p.partition))
	if pathOf(w.Body.String()) != "/b" {
		t.Errorf("what it has: %d %s", w.Code, w.Body)
	}
	p.next-- // the notice is not even in the topic
	p.reach(12)
	ctx, cancel := context.WithCancel(t.Context())
	var polls sync.WaitGroup
	polls.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			p.poll()
		}
	})
	defer polls.Wait()
	defer cancel()
	if w := p.get("/v1/workspaces/ws/files/f/history?wait=1"); code(t, w) != codeNotReached {
		t.Errorf("without the newest change: %d %s", w.Code, w.Body)
	}
}

func TestAsOf(t *testing.T) {
	p := newPast(t)
	p.moves()
	for offset, want := range map[int]string{2: "", 3: "/a", 4: "/a", 5: "/b", 8: "/b", 9: "/c"} {
		at := fmt.Sprintf("%d:%d", p.partition, offset)
		w := p.get("/v1/workspaces/ws/files/f?wait=0&as_of=" + at)
		if got := pathOf(w.Body.String()); got != want || w.Header().Get(headerAsOf) != at ||
			(w.Code == 404) != (want == "") {
			t.Errorf("as of %s: %d %s %v", at, w.Code, w.Body, w.Header())
		}
	}
	at := fmt.Sprintf("/v1/workspaces/ws/files/f?as_of=%d:4", p.partition)
	if w := p.get(at, "If-None-Match", `"1"`); w.Code != http.StatusNotModified {
		t.Errorf("If-None-Match: %d", w.Code)
	}
	other := (p.partition + 1) % 4
	for query, want := range map[string]int{
		fmt.Sprintf("as_of=%d:4&at_least=%d:4", p.partition, p.partition): 400,
		fmt.Sprintf("as_of=%d:4", other):                                  400,
		"as_of=":                                                          400,
		"as_of=yesterday":                                                 400,
		"as_of=-1":                                                        400,
		"as_of=2999-01-01T00:00:00Z":                                      400,
		"as_of=1969-12-31T23:59:59.999Z":                                  400,
		fmt.Sprintf("as_of=%d:900&wait=0", p.partition):                   503,
	} {
		for _, path := range []string{"", "/files", "/files/f"} {
			if w := p.get("/v1/workspaces/ws" + path + "?" + query); w.Code != want {
				t.Errorf("%s?%s: %d %s", path, query, w.Code, w.Body)
			}
		}
	}
}

func TestAsOfATime(t *testing.T) {
	p := newPast(t)
	p.moves()
	next, start, err := int64(5), int64(0), error(nil)
	p.eventAfter = func(_ context.Context, partition int32, _ time.Time) (int64, int64, error) {
		if partition != p.partition {
			t.Errorf("partition %d", partition)
		}
		return next, start, err
	}
	get := func() (int, string) {
		p.eventTimes.known = nil
		w := p.get("/v1/workspaces/ws/files/f?as_of=2026-11-29T10:00:00.5%2B01:00&wait=0")
		return w.Code, pathOf(w.Body.String()) + " " + w.Header().Get(headerAsOf)
	}
	if status, got := get(); status != 200 || got != fmt.Sprintf("/a %d:4", p.partition) {
		t.Errorf("%d %s", status, got)
	}
	next = 0
	if status, _ := get(); status != 404 {
		t.Errorf("before the first event: %d", status)
	}
	next, start = 2, 2
	if status, _ := get(); status != 410 {
		t.Errorf("before the first event that is left: %d", status)
	}
	err = errors.New("no broker")
	if status, _ := get(); status != 503 {
		t.Errorf("without a broker: %d", status)
	}
}

// At the end of the log there may be markers of transactions, for which nothing is committed.
func TestTheLastEventAtATime(t *testing.T) {
	p := newPast(t)
	p.moves()
	p.progress.last.eventsEnd[p.partition], p.progress.last.eventsVisible[p.partition] = 12, 10
	for offset, want := range map[int64]int64{12: 10, 13: 13, 11: 11, 4: 4} {
		if got := p.progress.visible(p.partition, offset); got != want {
			t.Errorf("%d: %d, want %d", offset, got, want)
		}
	}
}

// All pages of a listing as of a time are of the position of the first.
func TestListingAsOfATime(t *testing.T) {
	p := newPast(t)
	for i, id := range []string{"a", "b", "c"} {
		row := p.version(1, int64(i), "/"+id)
		row.FileId = id
		p.change(nil, row)
	}
	next := int64(2)
	p.eventAfter = func(context.Context, int32, time.Time) (int64, int64, error) { return next, 0, nil }
	const listing = "/v1/workspaces/ws/files?limit=1&wait=0&as_of=2026-11-29T10:00:00Z"
	page, cursor := ids(t, p.get(listing))
	next, p.eventTimes.known = 3, nil
	rest, end := ids(t, p.get(listing+"&cursor="+cursor))
	if end != "" {
		rest2, last := ids(t, p.get(listing+"&cursor="+end))
		rest, end = rest+rest2, last
	}
	if page != "a" || rest != "b" || end != "" {
		t.Errorf("pages %q and %q, %q", page, rest, end)
	}
	for _, wrong := range []string{
		"/v1/workspaces/ws/files?cursor=" + cursor,
		"/v1/workspaces/ws/files?as_of=2026-11-29T10:00:01Z&cursor=" + cursor,
		"/v1/workspaces/ws/files?as_of=2026-11-29T10:00:00Z&status=all&cursor=" + cursor,
	} {
		if w := p.get(wrong); code(t, w) != codeBadCursor {
			t.Errorf("%s: %d %s", wrong, w.Code, w.Body)
		}
	}
}

// The notices of a workspace are not subtracted for a client that is gone.
func TestAsOfOfAWorkspaceEndsWithItsClient(t *testing.T) {
	p := newPast(t)
	var before *tidemarkv1.FileState
	var row *tidemarkv1.WorkspaceState
	for i := range int64(1001) {
		after := p.version(i+1, i, "/a")
		p.change(before, after, func(n *tidemarkv1.Notice) { row, _ = rules.Count(row, n, testLog) })
		before = after
	}
	p.putWorkspace(row)
	p.reach(1001)
	for _, gone := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		if gone {
			cancel()
		}
		target := fmt.Sprintf("/v1/workspaces/ws?wait=0&as_of=%d:0", p.partition)
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, target, http.NoBody))
		if answered := strings.Contains(w.Body.String(), `"files":1`); answered == gone {
			t.Errorf("gone: %v: %d %s", gone, w.Code, w.Body)
		}
		cancel()
	}
}

func TestWithoutHistory(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "f", "/f", isActive, 1))
	for _, path := range []string{
		"?as_of=0:1", "/files?as_of=0:1", "/files/f?as_of=0:1", "/files/f/history", "/usage",
	} {
		if w := f.get("/v1/workspaces/ws" + path); w.Code != http.StatusNotImplemented || code(t, w) != codeNoHistory {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

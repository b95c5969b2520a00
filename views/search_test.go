package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// An index answers each query in the same way, and remembers what was called.
type index struct {
	page    SearchPage
	err     error // of Query
	refresh error
	calls   []string
	last    SearchQuery
}

func (x *index) search() *Search {
	return &Search{
		Query: func(_ context.Context, q SearchQuery) (SearchPage, error) {
			x.calls, x.last = append(x.calls, "query"), q
			return x.page, x.err
		},
		Refresh: func(context.Context) error {
			x.calls = append(x.calls, "refresh")
			return x.refresh
		},
	}
}

func (x *index) config(c *Config) { c.Search = x.search() }

func searched(ids ...string) SearchPage {
	var p SearchPage
	for _, id := range ids {
		p.Files = append(p.Files, json.RawMessage(fmt.Sprintf(`{"workspace_id":"ws","file_id":%q}`, id)))
	}
	return p
}

func TestSearchPassesTheQueryAndAnswersAsAListing(t *testing.T) {
	x := &index{page: searched("b", "a")}
	x.page.Next = `{"opaque":["<é>"]}`
	f := newFixture(t, x.config)
	w := f.get("/v1/workspaces/w%2Fs/search?q=q3+report&path_prefix=/r&mime=text/plain&status=all&limit=2&cursor=c1")
	list, cursor := ids(t, w)
	if list != "b a" || cursor != x.page.Next || w.Header().Get(headerLag) != "0" ||
		w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("files %s, cursor %s, headers %v", list, cursor, w.Header())
	}
	if diff := cmp.Diff(SearchQuery{
		Workspace: "w/s", Q: "q3 report", PathPrefix: "/r", MIME: "text/plain", Status: "all", Limit: 2, Cursor: "c1",
	}, x.last); diff != "" {
		t.Errorf("query (-want +got):\n%s", diff)
	}
	x.page = searched("a")
	if w := f.get("/v1/workspaces/ws/search?q="); w.Body.String() !=
		`{"files":[{"workspace_id":"ws","file_id":"a"}],"next_cursor":null}` {
		t.Errorf("the last page: %s", w.Body)
	}
	if diff := cmp.Diff(SearchQuery{Workspace: "ws", Status: "active", Limit: 100}, x.last); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
	head := f.do("HEAD", "/v1/workspaces/ws/search")
	if head.Code != 200 || head.Header().Get("Content-Length") != "66" {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
	if diff := cmp.Diff([]string{"query", "query", "query"}, x.calls); diff != "" { // and no refresh
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestSearchProblems(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.7:9200: connection refused")
	for name, c := range map[string]struct {
		target, code string
		err          error
		status       int
	}{
		"unknown parameter":  {"ws/search?kind=all", codeBadField, nil, 400},
		"limit":              {"ws/search?limit=1001", codeBadField, nil, 400},
		"status":             {"ws/search?status=erased", codeBadField, nil, 400},
		"long query":         {"ws/search?q=" + strings.Repeat("x", maxQueryText+1), codeBadField, nil, 400},
		"cursor":             {"ws/search?cursor=c", codeBadCursor, fmt.Errorf("read it: %w", ErrSearchCursor), 400},
		"unreachable":        {"ws/search", codeSearchUnavailable, secret, 503},
		"too slow":           {"ws/search", codeSearchUnavailable, fmt.Errorf("q: %w", context.DeadlineExceeded), 503},
		"unknown workspace":  {"nope/search", codeUnknownWorkspace, nil, 404},
		"nothing found":      {"ws/search", "", nil, 200},
		"malformed at_least": {"ws/search?at_least=7", codeBadField, nil, 400},
	} {
		x := &index{err: c.err}
		f := newFixture(t, x.config)
		f.put(fileRow("ws", "a", "/a", isActive, 1))
		w := f.get("/v1/workspaces/" + c.target)
		if code(t, w) != c.code || w.Code != c.status || strings.Contains(w.Body.String(), "10.0.0.7") ||
			(w.Code == 503) != (w.Header().Get("Retry-After") != "") || w.Header().Get(headerLag) == "" {
			t.Errorf("%s: %d %s %v", name, w.Code, w.Body, w.Header())
		}
	}
	f := newFixture(t)
	w := f.get("/v1/workspaces/ws/search?q=x")
	if code(t, w) != codeNoSearch || w.Code != 501 || !strings.Contains(w.Body.String(), "--search-url") {
		t.Errorf("without an index: %d %s", w.Code, w.Body)
	}
	if w := f.do("POST", "/v1/workspaces/ws/search"); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
		t.Errorf("POST: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

// A request whose workspace is denied does not reach the index.
func TestSearchOfADeniedWorkspace(t *testing.T) {
	x := &index{page: searched("a")}
	f := newFixture(t, x.config, func(c *Config) {
		c.Authorize = func(_ *http.Request, workspace string) (bool, error) { return workspace == "mine", nil }
	})
	f.put(fileRow("theirs", "a", "/a", isActive, 1))
	if w := f.get("/v1/workspaces/theirs/search?q=a"); code(t, w) != codeUnknownWorkspace || len(x.calls) > 0 {
		t.Errorf("%d %s after %v", w.Code, w.Body, x.calls)
	}
	if w := f.get("/v1/workspaces/mine/search?q=a"); w.Code != 200 || x.last.Workspace != "mine" {
		t.Errorf("%d, for workspace %q", w.Code, x.last.Workspace)
	}
}

// At no step before the last is a query with at_least sent to the index: its answer would be stale.
func TestSearchAtLeastWaitsForTheSink(t *testing.T) {
	x := &index{page: searched("a")}
	f := newFixture(t, x.config)
	p := kafka.Partition("ws", 4)
	target := fmt.Sprintf("/v1/workspaces/ws/search?wait=10ms&at_least=%d:9", p)
	early := func(step string) {
		t.Helper()
		f.poll()
		if w := f.get(target); code(t, w) != codeNotReached || w.Header().Get("Retry-After") == "" || len(x.calls) > 0 {
			t.Errorf("%s: %d %s after %v", step, w.Code, w.Body, x.calls)
		}
	}
	f.now.eventsEnd[p] = 10
	early("not folded")
	f.now.filesEnd[p], f.now.indexEnd[p] = 0, 7
	f.now.searchCommit[p] = 7
	early("delivered, not committed by the files group: its index record may be behind")
	f.now.filesCommit[p], f.now.indexEnd[p] = 10, 8
	early("folded, not delivered")
	f.now.indexEnd[p], f.now.eventsEnd[p] = 20, 30 // goes on; the end as of the commit is enough
	early("folded, not delivered, more is coming")
	f.now.searchCommit[p] = 8
	f.poll()
	w := f.get(target)
	if list, _ := ids(t, w); list != "a" || cmp.Diff([]string{"refresh", "query"}, x.calls) != "" {
		t.Errorf("delivered: %s after %v", list, x.calls)
	}
	if w.Header().Get(headerLag) == "" {
		t.Error("no lag")
	}

	f.now.searchCommit[p] = 0 // the group was reset: the index may be a new one
	x.calls = nil
	early("reset")
	x.refresh, f.now.searchCommit[p] = errors.New("no shard"), 20
	f.poll()
	if w := f.get(target); code(t, w) != codeSearchUnavailable || cmp.Diff([]string{"refresh"}, x.calls) != "" {
		t.Errorf("not refreshed: %d %s after %v", w.Code, w.Body, x.calls)
	}
}

// The order of the wait and the commit does not matter.
func TestSearchAtLeastWakesUp(t *testing.T) {
	x := &index{page: searched("a")}
	f := newFixture(t, x.config)
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.indexEnd[p] = 1, 1, 1
	f.poll()
	answered := make(chan int)
	go func() { answered <- f.get(fmt.Sprintf("/v1/workspaces/ws/search?wait=20s&at_least=%d:0", p)).Code }()
	select {
	case status := <-answered:
		t.Fatalf("answered %d before the commit", status)
	case <-time.After(100 * time.Millisecond):
	}
	f.now.searchCommit[p] = 1
	f.poll()
	if status := <-answered; status != 200 {
		t.Errorf("answered %d", status)
	}
}

// The age of an answer includes the sink, and the time until the index shows what was delivered.
func TestSearchLag(t *testing.T) {
	const visibleAfter = 300 * time.Millisecond
	x := &index{page: searched("a")}
	f := newFixture(t, x.config, func(c *Config) { c.Search.VisibleAfter = visibleAfter })
	p := kafka.Partition("ws", 4)
	stale := func() bool {
		f.poll()
		return f.get("/v1/workspaces/ws/search").Header().Get(headerLag) != "0"
	}
	for begin := time.Now(); stale(); {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("nothing to index, and it lags")
		}
	}
	row := fileRow("ws", "a", "/a", isActive, 1)
	row.Position = &tidemarkv1.Position{Partition: p, Offset: 0}
	f.put(row)
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p], f.now.indexEnd[p] = 1, 1, 1, 1
	f.poll()
	time.Sleep(2 * time.Millisecond) // of age
	if !stale() {
		t.Error("no lag, with an event that is not indexed")
	}
	if w := f.get("/v1/workspaces/ws/files/a"); w.Header().Get(headerLag) != "0" {
		t.Errorf("the lag of a file is %s", w.Header().Get(headerLag))
	}
	f.now.searchCommit[p] = 1
	begin := time.Now()
	if !stale() {
		t.Error("no lag, with an event that is not visible yet")
	}
	w := f.get(fmt.Sprintf("/v1/workspaces/ws/search?at_least=%d:0", p))
	if w.Code != 200 || w.Header().Get(headerLag) != "0" {
		t.Errorf("after a refresh: %d, lag %s", w.Code, w.Header().Get(headerLag))
	}
	for stale() {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("visible, and it lags")
		}
	}
	if took := time.Since(begin); took < visibleAfter {
		t.Errorf("no lag after %s", took)
	}
	f.now.searchCommit[p] = 0 // the group was reset: the index may be a new one
	f.progress.timesDue = time.Time{}
	f.progress.poll(t.Context(), at{f, map[int64]time.Time{0: time.Now().Add(-time.Hour)}})
	if lag := f.get("/v1/workspaces/ws/search").Header().Get(headerLag); !strings.HasPrefix(lag, "3600") {
		t.Errorf("lag %s after the reset, want that of an event of an hour ago", lag)
	}
}

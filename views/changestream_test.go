package views

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tidemark/kafka"
	"tidemark/problem"
)

// An event is one server-sent event.
type sentEvent struct{ name, id, data string }

// A changeReader reads the events of a stream.
type changeReader struct {
	t     *testing.T
	lines *bufio.Scanner
	close func() error
}

func openStream(t *testing.T, url string, header ...string) *changeReader {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if h := response.Header; response.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" ||
		h.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", response.StatusCode, h)
	}
	return &changeReader{t: t, lines: bufio.NewScanner(response.Body), close: response.Body.Close}
}

// next returns the next event, an empty one at the end of the stream.
func (r *changeReader) next() (e sentEvent) {
	r.t.Helper()
	for r.lines.Scan() {
		name, value, _ := strings.Cut(r.lines.Text(), ": ")
		switch name {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data = value
		case "":
			return e
		}
	}
	return e
}

// want reads the next event, whose data must have a text.
func (r *changeReader) want(name, text string) sentEvent {
	r.t.Helper()
	e := r.next()
	if e.name != name || !strings.Contains(e.data, text) {
		r.t.Fatalf("event %+v, want %s with %q", e, name, text)
	}
	return e
}

func TestChangesStream(t *testing.T) {
	f := newFixture(t)
	f.heartbeat = 50 * time.Millisecond
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.put(fileRow("ws", "gone", "/gone", isTrashed, 1))
	f.put(fileRow("ws", "b", "/b", isActive, 1))
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p], f.now.filesCommit[p], f.now.filesEnd[p] = 7, 7, 3
	f.poll()
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	url := server.URL + changesOfWs
	all := openStream(t, url)
	first := all.want("change", `{"op":"upsert","version":1,"file":{`)
	all.want("change", `"file_id":"b"`)
	complete := `{"complete_to":"` + strconv.Itoa(int(p)) + `:6","expires_at":"20`
	beat := all.want("heartbeat", complete)
	if all.want("heartbeat", complete); beat.id == "" {
		t.Error("a heartbeat has no cursor")
	}
	f.put(fileRow("ws", "a", "/a", isTrashed, 2))
	live := all.next()
	for live.name == "heartbeat" {
		live = all.next()
	}
	if live.name != "change" || live.data != `{"op":"delete","file_id":"a","version":2}` {
		t.Fatalf("live: %+v", live)
	}
	// A browser repeats its URL, with the id of the last event.
	for id, want := range map[string]string{first.id: `"file_id":"b"`, beat.id: `"op":"delete"`} {
		resumed := openStream(t, url+"?cursor=latest", "Last-Event-ID", id)
		resumed.want("change", want)
	}
	if w := f.get(changesOfWs + "?cursor=" + live.id); w.Code != 200 || !strings.Contains(w.Body.String(), `"changes":[]`) {
		t.Errorf("a page after a stream: %d %s", w.Code, w.Body)
	}
	openStream(t, url+"?cursor=latest").want("heartbeat", complete)
	f.Stop()
	for e := all.next(); e.name != ""; e = all.next() {
		if e.name != "heartbeat" {
			t.Errorf("at the end: %+v", e)
		}
	}
}

// While nothing that is read is in the query, heartbeats have cursors that advance.
func TestHeartbeatsOfEmptyPages(t *testing.T) {
	f := newFixture(t)
	f.heartbeat = time.Nanosecond
	for i := range 2*maxScanned + 10 {
		f.put(fileRow("ws", fmt.Sprintf("f%05d", i), "", isTrashed, 1))
	}
	f.put(fileRow("ws", "last", "", isActive, 1))
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	all := openStream(t, server.URL+changesOfWs)
	first, second := all.want("heartbeat", `"up_to_date":false`), all.want("heartbeat", `"up_to_date":false`)
	all.want("change", `"file_id":"last"`)
	all.want("heartbeat", `"up_to_date":true`)
	at := func(e sentEvent) int64 {
		q := query{workspace: "ws", status: statusActive, kind: kindFile}
		cursor, err := q.decodeChangesCursor(e.id)
		if err != nil {
			t.Error(err)
		}
		return cursor.next
	}
	if at(first) != maxScanned || at(second) != 2*maxScanned {
		t.Errorf("cursors are at %d and %d", at(first), at(second))
	}
	resumed := openStream(t, server.URL+changesOfWs, "Last-Event-ID", second.id)
	resumed.want("change", `"file_id":"last"`)
}

// A browser does not show the body of a refusal, so a stream has an expired cursor as an event.
func TestStreamOfAnExpiredCursor(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	q := query{workspace: "ws", status: statusActive, kind: kindFile}
	old := q.encodeChangesCursor(changesCursor{topic: hashTopic(f.Server.files.topicID.Load()), issued: 1})
	r := openStream(t, server.URL+changesOfWs, "Last-Event-ID", old)
	if e := r.want("expired", `"resync":{"diff":"/v1/workspaces/ws/changes/diff","list":"/v1/workspaces/ws/files"}`); e.id != "" {
		t.Errorf("a cursor after an expired one: %+v", e)
	}
	if e := r.next(); e.name != "" {
		t.Errorf("after the end: %+v", e)
	}
	w := f.get(changesOfWs, "Accept", "text/event-stream", "Last-Event-ID", "x")
	if code(t, w) != codeBadCursor {
		t.Errorf("a bad cursor: %d %s", w.Code, w.Body)
	}
}

// The limit of staleness is for what is answered, not for when the request began.
func TestTooOldAfterWaiting(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxStaleness = time.Minute })
	f.heartbeat = 20 * time.Millisecond
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.now.filesEnd[f.partition("ws")] = 1
	f.poll()
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	_, a := changes(t, f.get(changesOfWs))
	r := openStream(t, server.URL+changesOfWs)
	r.want("change", `"file_id":"a"`)
	got := make(chan *httptest.ResponseRecorder, 1)
	go func() { got <- f.get(changesOfWs + "?wait=300ms&cursor=" + a.Cursor) }()
	time.Sleep(100 * time.Millisecond)
	f.progress.mu.Lock()
	for i := range f.progress.lastResponse {
		f.progress.lastResponse[i] = time.Now().Add(-time.Hour)
	}
	f.progress.mu.Unlock()
	if w := <-got; code(t, w) != codeStale {
		t.Errorf("a poll: %d %s", w.Code, w.Body)
	}
	for end := time.Now().Add(5 * time.Second); r.next().name != ""; {
		if time.Now().After(end) {
			t.Fatal("the stream goes on")
		}
	}
}

// A token that is revoked while a request waits gets no answer.
func TestALongPollIsAuthorizedAgain(t *testing.T) {
	var revoked atomic.Bool
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) { return !revoked.Load(), nil }
	})
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	_, a := changes(t, f.get(changesOfWs))
	got := make(chan *httptest.ResponseRecorder, 1)
	go func() { got <- f.get(changesOfWs + "?wait=10s&cursor=" + a.Cursor) }()
	time.Sleep(50 * time.Millisecond)
	revoked.Store(true)
	f.put(fileRow("ws", "secret", "/secret", isActive, 1))
	if w := <-got; code(t, w) != codeUnknownWorkspace || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An EventSource does not connect again after any status but 200.
func TestStreamsThatCannotBeAnsweredYet(t *testing.T) {
	refuse := false
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(*http.Request, string) (bool, error) {
			if refuse {
				return false, problem.New(http.StatusServiceUnavailable, "no_keys", "try again")
			}
			return true, nil
		}
	})
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	q := query{workspace: "ws", status: statusActive, kind: kindFile}
	topic := hashTopic(f.Server.files.topicID.Load())
	beyond := q.encodeChangesCursor(changesCursor{topic: topic, next: 9, copied: 9, issued: time.Now().Unix()})
	check := func(target string) {
		t.Helper()
		w := f.get(target, "Accept", "text/event-stream")
		if h := w.Header(); w.Code != 200 || w.Body.String() != "retry: 2000\n\n" || h.Get("Retry-After") != "" ||
			h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v %q", target, w.Code, h, w.Body)
		}
		if w := f.get(target, "Accept", "application/json"); code(t, w) == "" || w.Code != 503 {
			t.Errorf("%s as JSON: %d %s", target, w.Code, w.Body)
		}
	}
	check(changesOfWs + "?wait=0&cursor=" + beyond)
	check(changesOfWs + "?wait=0&at_least=2:99")
	f.Server.files.generation.Add(1)
	check(changesOfWs)
	f.Server.files.generation.Add(-1)
	refuse = true
	check(changesOfWs)
	check("/v1/workspaces/ws/notices")
	if w := f.get("/v1/workspaces/ws/files", "Accept", "text/event-stream"); w.Code != 503 {
		t.Errorf("a listing: %d %s", w.Code, w.Body)
	}
}

// A copy that is discarded ends its streams: a client goes on elsewhere, where it was.
func TestStreamEndsWithItsCopy(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	r := openStream(t, server.URL+changesOfWs)
	r.want("change", `"file_id":"a"`)
	r.want("heartbeat", "")
	f.Server.files.discard(t.Context())
	f.Server.files.changes.notify("ws")
	if e := r.next(); e.name != "" {
		t.Errorf("then %+v", e)
	}
	if n := f.answered("/v1/workspaces/{workspace}/changes", "500"); n != 0 {
		t.Error("counted as a fault")
	}
}

func TestLongPoll(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a/a", isActive, 1))
	_, a := changes(t, f.get(changesOfWs+"?path_prefix=/a&cursor=latest"))
	poll := func(wait string) <-chan *httptest.ResponseRecorder {
		got := make(chan *httptest.ResponseRecorder, 1)
		go func() { got <- f.get(changesOfWs + "?path_prefix=/a&wait=" + wait + "&cursor=" + a.Cursor) }()
		return got
	}
	got := poll("20s")
	f.put(fileRow("ws1", "a", "/a", isActive, 1))
	select {
	case w := <-got:
		t.Fatalf("answered without a change: %s", w.Body)
	case <-time.After(100 * time.Millisecond):
	}
	f.put(fileRow("ws", "b", "/a/b", isActive, 1))
	list, next := changes(t, <-got)
	if list != "+b/1" {
		t.Errorf("woke with %q", list)
	}
	before := a
	a = next
	f.put(fileRow("ws1", "z", "/z", isActive, 1)) // may be in another partition
	f.put(fileRow("ws", "b", "/a/b", isActive, 1))
	begin := time.Now()
	if list, _ = changes(t, <-poll("10s")); list != "+b/1" || time.Since(begin) > 5*time.Second {
		t.Errorf("there is something: %q after %s", list, time.Since(begin))
	}
	_, a = changes(t, f.get(changesOfWs+"?path_prefix=/a&cursor="+a.Cursor))
	begin = time.Now()
	list, next = changes(t, <-poll("200ms"))
	if took := time.Since(begin); list != "" || !next.UpToDate || took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("nothing comes: %q after %s", list, took)
	}
	if before.Cursor == next.Cursor {
		t.Error("the cursor does not advance")
	}
	got = poll("60s")
	time.Sleep(50 * time.Millisecond)
	f.Stop()
	if list, _ = changes(t, <-got); list != "" {
		t.Errorf("when stopped: %q", list)
	}
	if n := len(f.Server.files.changes.keys); n > 0 {
		t.Errorf("%d waiters are left", n)
	}
}

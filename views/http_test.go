package views

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func TestProblems(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	f.put(fileRow("ws", "erased", "", isErased, 3))
	f.now.eventsEnd[0] = 5
	f.poll()
	ofOther := query{workspace: "other", status: statusActive, kind: kindFile}
	other := ofOther.encodeListCursor(listCursor{tail: []byte("a")})
	for _, c := range []struct {
		target, code string
		status       int
	}{
		{"/v1/workspaces/nope", codeUnknownWorkspace, 404},
		{"/v1/workspaces/nope/files", codeUnknownWorkspace, 404},
		{"/v1/workspaces/ws/files/nope", codeUnknownFile, 404},
		{"/v1/workspaces/ws/files/erased", codeUnknownFile, 404},
		{"/v1/workspaces/ws/files/%FF%00", codeUnknownFile, 404},
		{"/v1/workspaces/ws/files?status=trashed", "", 200},
		{"/v1/workspaces/ws/files/", codeUnknownPath, 404},
		{"/v1/workspaces//files", codeUnknownPath, 404},
		{"/v1/workspaces/ws/change", codeUnknownPath, 404},
		{"/", codeUnknownPath, 404},
		{"/v1/workspaces/ws/files?limit=0", codeBadField, 400},
		{"/v1/workspaces/ws/files?limit=1001", codeBadField, 400},
		{"/v1/workspaces/ws/files?limit=", codeBadField, 400},
		{"/v1/workspaces/ws/files?limit=%2B5", codeBadField, 400},
		{"/v1/workspaces/ws/files?limit=5&limit=5", codeBadField, 400},
		{"/v1/workspaces/ws/files?status=erased", codeBadField, 400},
		{"/v1/workspaces/ws/files?prefix=/a", codeBadField, 400},
		{"/v1/workspaces/ws/files?status=%zz", codeBadField, 400},
		{"/v1/workspaces/ws/files?cursor=AAAA", codeBadCursor, 400},
		{"/v1/workspaces/ws/files?cursor=" + other, codeBadCursor, 400},
		{"/v1/workspaces/ws?at_least=", codeBadField, 400},
		{"/v1/workspaces/ws?at_least=7", codeBadField, 400},
		{"/v1/workspaces/ws?at_least=0:01", codeBadField, 400},
		{"/v1/workspaces/ws?at_least=0:-1", codeBadField, 400},
		{"/v1/workspaces/ws?at_least=4:0", codeBadField, 400},
		{"/v1/workspaces/ws/files?wait=61", codeBadField, 400},
		{"/v1/workspaces/ws/files?wait=-1s", codeBadField, 400},
		{"/v1/workspaces/ws/files?wait=1m", codeBadField, 400},
		{"/v1/workspaces/ws/files/a?at_least=0:4&wait=10ms", codeNotReached, 503},
		{"/v1/workspaces/ws?at_least=0:4&wait=0", codeNotReached, 503},
		{"/v1/status?at_least=0:4&wait=10ms", codeNotReached, 503},
	} {
		w := f.get(c.target)
		if got := code(t, w); w.Code != c.status || got != c.code {
			t.Errorf("%s: %d %s, want %d %s", c.target, w.Code, got, c.status, c.code)
		}
		if w.Header().Get(headerLag) == "" {
			t.Errorf("%s: no %s", c.target, headerLag)
		}
		if w.Code == 503 && w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.target)
		}
	}
}

func TestMethods(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "TRACE", "X"} {
		w := f.do(method, "/v1/workspaces/ws/files/a")
		if w.Header().Get("Allow") != "GET, HEAD, OPTIONS" || code(t, w) != codeMethod || w.Code != 405 {
			t.Errorf("%s: %d, Allow %q", method, w.Code, w.Header().Get("Allow"))
		}
	}
	get, head := f.get("/v1/workspaces/ws/files/a"), f.do("HEAD", "/v1/workspaces/ws/files/a")
	if head.Code != 200 || head.Header().Get("Content-Length") != get.Header().Get("Content-Length") {
		t.Errorf("HEAD: %d, length %s", head.Code, head.Header().Get("Content-Length"))
	}
}

func TestETag(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	w := f.get("/v1/workspaces/ws/files/a")
	if w.Code != 200 || w.Header().Get("ETag") != `"3"` {
		t.Fatalf("%d, ETag %s", w.Code, w.Header().Get("ETag"))
	}
	for header, want := range map[string]int{
		`"3"`: 304, `W/"3"`: 304, `"1", "3"`: 304, `*`: 304, `"2"`: 200, `3`: 200, ``: 200,
	} {
		w := f.get("/v1/workspaces/ws/files/a", "If-None-Match", header)
		if w.Code != want || want == 304 && (w.Body.Len() > 0 || w.Header().Get("ETag") != `"3"`) {
			t.Errorf("If-None-Match %s: %d, %d bytes", header, w.Code, w.Body.Len())
		}
	}
}

func TestIDsWithSlashesAndDots(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct{ workspace, id, target string }{
		{"..", "..", "/v1/workspaces/../files/.."},
		{"a/b", "c/d", "/v1/workspaces/a%2Fb/files/c%2Fd"},
		{"%2F", "%", "/v1/workspaces/%252F/files/%25"},
		{"_x", "_y", "/v1/workspaces/_x/files/_y"},
		{".", "é", "/v1/workspaces/./files/%C3%A9"},
		{"a b", "a+b", "/v1/workspaces/a%20b/files/a+b"},
	} {
		f.put(fileRow(c.workspace, c.id, "/p", isActive, 3))
		if w := f.get(c.target); w.Code != 200 || !strings.Contains(w.Body.String(), `"file_id"`) {
			t.Errorf("%s: %d %s", c.target, w.Code, w.Body)
		}
	}
	if w := f.get("/v1/workspaces/a/b/files/c/d"); w.Code != 404 {
		t.Errorf("unescaped: %d", w.Code)
	}
}

func TestRecovering(t *testing.T) {
	f := newFixture(t)
	f.workspaces.generation.Add(1)
	for _, target := range []string{"/v1/workspaces/ws", "/v1/workspaces/ws/files", "/v1/workspaces/ws/files/a"} {
		if w := f.get(target); code(t, w) != codeRecovering || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	var status statusReport
	if w := f.get("/v1/status"); json.Unmarshal(w.Body.Bytes(), &status) != nil || status.Ready || status.Reason == "" {
		t.Errorf("status: %s", w.Body)
	}
}

func TestStatus(t *testing.T) {
	counted := false
	f := newFixture(t, func(c *Config) {
		c.Duplicates = func() int64 { return 3 }
		c.DeadLettered = func() (int64, bool) { return 2, counted }
	})
	f.now.eventsEnd[1], f.now.filesCommit[1] = 5, 4 // and nothing is counted
	f.poll()
	if w := f.get("/v1/status"); strings.Contains(w.Body.String(), "dead_lettered") {
		t.Errorf("status before the dead letters were counted: %s", w.Body)
	}
	counted = true
	w := f.get("/v1/status")
	var s statusReport
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	if !s.Ready || len(s.Partitions) != 4 || *s.Duplicates != 3 || *s.DeadLettered != 2 {
		t.Errorf("status: %s", w.Body)
	}
	if p := s.Partitions[1]; p.LagRecords != 1 || p.Position != "1:3" || !p.Ready {
		t.Errorf("partition 1: %+v", p)
	}
	if p := s.Partitions[0]; p.LagRecords != 0 || p.Position != "" || p.LagSeconds != 0 {
		t.Errorf("partition 0: %+v", p)
	}
}

// A file is answered the moment its row bears the position, long before anything is committed.
func TestAtLeastWakesOnTheRow(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p] = 9
	f.poll()
	target := "/v1/workspaces/ws/files/a?wait=20s&at_least=" + (&tidemarkv1.Position{Partition: p, Offset: 8}).Text()
	got := make(chan int, 1)
	go func() { got <- f.get(target).Code }()
	for f.progress.waiters.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	early := fileRow("ws", "a", "/a", isActive, 3)
	early.Position = &tidemarkv1.Position{Partition: p, Offset: 7}
	f.put(early)
	select {
	case c := <-got:
		t.Fatalf("answered %d with a row of an earlier position", c)
	case <-time.After(50 * time.Millisecond):
	}
	late := fileRow("ws", "a", "/a", isActive, 4)
	late.Position = &tidemarkv1.Position{Partition: p, Offset: 8}
	f.put(late)
	select {
	case c := <-got:
		if c != 200 {
			t.Errorf("answered %d", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("the row did not wake the request that waits for it")
	}
}

// A row of a recreated log bears offsets that say nothing about this one.
func TestAtLeastIsNotFooledByAnotherLog(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p] = 9
	f.poll()
	row := fileRow("ws", "a", "/a", isActive, 4)
	row.Position, row.LogId = &tidemarkv1.Position{Partition: p, Offset: 1000}, "an older log"
	f.put(row)
	w := f.get("/v1/workspaces/ws/files/a?wait=50ms&at_least=" + (&tidemarkv1.Position{Partition: p, Offset: 8}).Text())
	if code(t, w) != codeNotReached {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// Nor does one of another partition.
	row.Version, row.LogId = 5, testLog
	f.put(row)
	other := &tidemarkv1.Position{Partition: (p + 1) % 4, Offset: 8}
	f.now.eventsEnd[other.GetPartition()] = 9
	f.poll()
	w = f.get("/v1/workspaces/ws/files/a?wait=50ms&at_least=" + other.Text())
	if code(t, w) != codeNotReached {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAtLeastOfARecordWithoutARow(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	p := kafka.Partition("ws", 4)
	f.now.eventsEnd[p] = 1
	f.poll()
	at := "at_least=" + (&tidemarkv1.Position{Partition: p, Offset: 0}).Text()
	got := make(chan int, 1)
	go func() { got <- f.get("/v1/workspaces/ws/files?wait=20s&" + at).Code }()
	for f.progress.waiters.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	f.now.filesCommit[p], f.now.filesEnd[p], f.now.notifyEnd[p] = 1, 1, 1
	f.poll()
	select {
	case c := <-got:
		if c != 200 {
			t.Errorf("answered %d", c)
		}
	case <-time.After(5 * time.Second):
		t.Error("the commit did not wake the request that waits")
	}
	if w := f.get("/v1/workspaces/ws?wait=10ms&" + at); code(t, w) != codeNotReached {
		t.Errorf("the workspaces table does not hold it yet: %d", w.Code)
	}
}

// Whether an offset is beyond the end is decided by polls that begin after the request. A stale leader that was
// paused reports an old end at first.
func TestAtLeastBeyondTheEnd(t *testing.T) {
	for name, wakes := range map[string]bool{"beyond": false, "old end": true} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			stop := make(chan struct{})
			defer close(stop)
			var polls atomic.Int64
			go func() {
				for begin := time.Now(); ; {
					select {
					case <-f.progress.wakeup:
						time.Sleep(10 * time.Millisecond)
						if wakes && time.Since(begin) > endConfirmedAfter/2 {
							f.now.eventsEnd[0] = 1
						}
						polls.Add(1)
						f.poll()
					case <-stop:
						return
					}
				}
			}()
			w := f.get("/v1/workspaces/ws/files?wait=2&at_least=0:0")
			want := codeBadField
			if wakes {
				want = codeNotReached // the view does not hold it yet
			}
			if code(t, w) != want || polls.Load() == 0 {
				t.Errorf("%d %s after %d polls, wanted %s", w.Code, w.Body, polls.Load(), want)
			}
		})
	}
}

func TestStoppingEndsWaits(t *testing.T) {
	for name, position := range map[string]string{"for the event": "0:0", "for word from the brokers": "0:7"} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.now.eventsEnd[0] = 1
			f.poll()
			got := make(chan int, 1)
			go func() { got <- f.get("/v1/workspaces/ws/files?wait=60&at_least=" + position).Code }()
			for f.progress.waiters.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
			f.Stop()
			f.Stop() // as Run does when it ends later
			select {
			case c := <-got:
				if c != http.StatusServiceUnavailable {
					t.Errorf("answered %d", c)
				}
			case <-time.After(5 * time.Second):
				t.Error("a wait outlives the server")
			}
		})
	}
}

// A refused parameter is answered with those there are, and no empty list where there are none.
func TestUnknownParameter(t *testing.T) {
	f := newFixture(t)
	for target, says := range map[string]string{
		"/openapi.json?x=1":         `"detail":"there are no parameters here: leave them out"`,
		"/v1/status?x=1":            "there are: at_least, wait\"",
		"/v1/workspaces/w/files?x=": "there are: path_prefix, status, kind, limit, cursor, as_of, at_least, wait\"",
	} {
		if w := f.get(target); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), says) {
			t.Errorf("%s: %d %s, want %s", target, w.Code, w.Body, says)
		}
	}
}

// The document names every route and parameter there is, and no other.
func TestOpenAPIIsTrue(t *testing.T) {
	f := newFixture(t)
	w := f.get("/openapi.json")
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]struct{ Parameters []map[string]string }
		Components struct {
			Parameters map[string]struct {
				Name, In string
				Schema   struct{ Pattern string }
			}
			Schemas map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || doc.OpenAPI != "3.1.0" {
		t.Fatalf("not OpenAPI 3.1: %v", err)
	}
	routes := map[string]string{} // the parameters of a path and method
	for _, r := range f.routeList() {
		for _, method := range r.methods {
			routes[r.template+" "+strings.ToLower(method)] = strings.Join(r.parameters, " ")
		}
	}
	if err := f.Handler().(*mux.Router).Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		if template := r.GetName(); len(doc.Paths[template]) == 0 {
			t.Errorf("%s is not documented", template)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for path, operations := range doc.Paths {
		for method, operation := range operations {
			var names []string
			for _, ref := range operation.Parameters {
				p := doc.Components.Parameters[strings.TrimPrefix(ref["$ref"], "#/components/parameters/")]
				if p.In == "query" {
					names = append(names, p.Name)
				}
			}
			if want, ok := routes[path+" "+method]; !ok || strings.Join(names, " ") != want {
				t.Errorf("%s %s documents %v, and takes %s", method, path, names, want)
			}
			delete(routes, path+" "+method)
		}
	}
	if len(routes) > 0 {
		t.Errorf("not documented: %v", routes)
	}
	if got := doc.Components.Parameters["Wait"].Schema.Pattern; got != waitForm.String() {
		t.Errorf("the document's form of wait is %s", got)
	}
}

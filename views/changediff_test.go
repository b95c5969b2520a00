package views

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func (f *fixture) post(target, body string) *httptest.ResponseRecorder {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, target, strings.NewReader(body)))
	return w
}

type diffAnswer struct {
	Changed, New []struct {
		FileID string `json:"file_id"`
		replica
	}
	Gone   []string
	Cursor string
}

// diff returns "changed; gone; new".
func (f *fixture) diff(query, body string) (string, diffAnswer) {
	f.t.Helper()
	w := f.post("/v1/workspaces/ws/changes/diff"+query, body)
	var a diffAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		f.t.Fatalf("%d %s (%v)", w.Code, w.Body, err)
	}
	var changed, added []string
	for _, c := range a.Changed {
		changed = append(changed, c.FileID)
	}
	for _, c := range a.New {
		added = append(added, c.FileID)
	}
	return strings.Join(changed, " ") + "; " + strings.Join(a.Gone, " ") + "; " + strings.Join(added, " "), a
}

func TestDiff(t *testing.T) {
	f := newFixture(t)
	for _, row := range []*tidemarkv1.FileState{
		fileRow("ws", "a", "/d/a", isActive, 1),
		fileRow("ws", "b", "/e/b", isActive, 2),
		fileRow("ws", "c<", "/d/c", isTrashed, 3),
		fileRow("ws", "d", "/d/d", isErased, 4),
		fileRow("ws", "e", "/d/e", isActive, 5),
		fileRow("ws1", "f", "/d/f", isActive, 1),
	} {
		f.put(row)
	}
	const same = `{"id":"e","version":5},{"id":"a","version":1},{"id":"b","version":2}`
	for _, c := range []struct{ query, body, want string }{
		{"", `{"files":[` + same + `]}`, "; ; "},
		{"", `{"files":[]}`, "; ; a b e"},
		{"", `{}`, "; ; a b e"},
		{"", `{"files":[{"id":"b","version":1},{"id":"a"}]}`, "a b; ; e"},
		{"", `{"files":[{"id":"c<","version":3},{"id":"d","version":4},{"id":"0"},{"id":"z"},` + same + `]}`, "; 0 c< d z; "},
		{"?status=all", `{"files":[{"id":"c<","version":3},` + same + `]}`, "; ; "},
		{"?status=trashed", `{"files":[` + same + `]}`, "; a b e; c<"},
		{"?path_prefix=/d/", `{"files":[` + same + `]}`, "; b; "},
		{"?path_prefix=/d/", `{"files":[{"id":"b","version":1}]}`, "; b; a e"},
		{"?kind=folder", `{"files":[]}`, "; ; "},
		{"", `{"files":[{"id":"b"}],"after":"a"}`, "b; ; e"},
		{"", `{"files":[],"after":"a","through":"b"}`, "; ; b"},
		{"", `{"files":[{"id":"aa"}],"after":"a","through":"az"}`, "; aa; "},
		{"", `{"files":[],"through":"a"}`, "; ; a"},
	} {
		if got, _ := f.diff(c.query, c.body); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.query, c.body, got, c.want)
		}
	}
	w := f.post("/v1/workspaces/ws/changes/diff", `{}`)
	list := f.get("/v1/workspaces/ws/files")
	for _, body := range []string{w.Body.String(), list.Body.String()} {
		var a struct {
			ExpiresAt time.Time `json:"expires_at"`
		}
		err := json.Unmarshal([]byte(body), &a)
		if err != nil || time.Until(a.ExpiresAt) < defaultCursorLifetime-time.Minute {
			t.Errorf("expires at %v (%v): %s", a.ExpiresAt, err, body)
		}
	}
	_, a := f.diff("?path_prefix=/d/", `{}`)
	f.put(fileRow("ws", "g", "/d/g", isActive, 1))
	if got, _ := changes(t, f.get(changesOfWs+"?path_prefix=/d/&cursor="+a.Cursor)); got != "+g/1" {
		t.Errorf("after the diff: %q", got)
	}
}

func TestDiffRefuses(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/d/a", isActive, 1))
	many := `{"files":[` + strings.Repeat(`{"id":"a"},`, maxDiffFiles) + `{"id":"b"}]}`
	for _, c := range []struct {
		body, code, says string
		status           int
	}{
		{`{"files":[{"id":"a","version":1},{"id":"a","version":2}]}`, codeBadField, `\"a\" once`, 400},
		{`{"files":[{"id":"a"},{"id":""}]}`, codeBadField, "files[1]", 400},
		{`{"files":[{"id":"a","version":-1}]}`, codeBadField, "files[0]", 400},
		{`{"files":[{"id":7}]}`, codeBadField, "files[0]", 400},
		{`{"files":[{"id":"a","v":1}]}`, codeBadField, `\"v\"`, 400},
		{`{"files":{}}`, codeBadField, "array", 400},
		{`{"file":[]}`, codeBadField, `\"file\"`, 400},
		{`{"files":[]} x`, codeBadField, "invalid character", 400},
		{`{"files":[]}{}`, codeBadField, "something after", 400},
		{``, codeBadField, "EOF", 400},
		{`{"files":[{"id":"a"}],"after":"a"}`, codeBadField, `not after \"a\"`, 400},
		{`{"files":[{"id":"c"}],"through":"b"}`, codeBadField, `up to \"b\"`, 400},
		{`null`, codeBadField, "it is null", 400},
		{`{"after":"b","through":"b"}`, codeBadField, "greater than after", 400},
		{many, codeTooLarge, "100000 files", 413},
		{`{"files":[{"id":"` + strings.Repeat("x", maxDiffBytes), codeTooLarge, "16 MiB", 413},
	} {
		w := f.post("/v1/workspaces/ws/changes/diff", c.body)
		if got := code(t, w); got != c.code || w.Code != c.status || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%.60s: %d %s, want %s with %s", c.body, w.Code, w.Body, c.code, c.says)
		}
	}
	if w := f.post("/v1/workspaces/nope/changes/diff", `{}`); code(t, w) != codeUnknownWorkspace {
		t.Errorf("unknown: %d %s", w.Code, w.Body)
	}
	w := f.get("/v1/workspaces/ws/changes/diff")
	if code(t, w) != codeMethod || w.Header().Get("Allow") != "POST, OPTIONS" {
		t.Errorf("GET: %d %s", w.Code, w.Body)
	}
}

// A diff is read in parts: more entries than one has, and files that changed in between.
func TestDiffInParts(t *testing.T) {
	f := newFixture(t)
	const files = 2*diffEntries + 5
	var same []string
	for i := range files {
		id := fmt.Sprintf("f%06d", i)
		f.put(fileRow("ws", id, "/"+id, []tidemarkv1.Status{isActive, isTrashed}[i%2], 1))
		if i%4 == 0 {
			same = append(same, fmt.Sprintf(`{"id":"%s","version":%d}`, id, 1-i%8/4))
		}
	}
	_, a := f.diff("?status=all", `{"files":[`+strings.Join(same, ",")+`]}`)
	if len(a.Changed) != (files+3)/8 || len(a.New) != files-len(same) || len(a.Gone) != 0 {
		t.Errorf("%d changed, %d new, %d gone", len(a.Changed), len(a.New), len(a.Gone))
	}
}

// Each diff keeps its request in memory, so there is a limit to how many are answered.
func TestDiffsAtTheSameTime(t *testing.T) {
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	const target = "/v1/workspaces/ws/changes/diff"
	var bodies []*io.PipeWriter
	done := make(chan int)
	for range maxDiffs {
		body, writer := io.Pipe()
		bodies = append(bodies, writer)
		go func() {
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, target, body))
			done <- w.Code
		}()
		if _, err := writer.Write([]byte("{")); err != nil { // returns once the handler reads
			t.Fatal(err)
		}
	}
	if w := f.post(target, `{}`); code(t, w) != codeTooManyDiffs || w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("one more: %d %s", w.Code, w.Body)
	}
	for i, end := range []string{"}", "}", "!", "}"} {
		if _, err := bodies[i].Write([]byte(end)); err != nil {
			t.Fatal(err)
		}
		bodies[i].Close()
		if status := <-done; (status == 200) != (end == "}") {
			t.Errorf("the answer after %q is %d", end, status)
		}
	}
	for range maxDiffs + 1 {
		if w := f.post(target, `{}`); w.Code != 200 {
			t.Errorf("then: %d %s", w.Code, w.Body)
		}
	}
}

// A diff that ends before its last part is not taken for a whole one.
func TestDiffIsCutWithItsTerm(t *testing.T) {
	f := newFixture(t)
	for i := range 12_000 {
		f.put(fileRow("ws", strings.Repeat("f", 200)+strconv.Itoa(i), "/"+strings.Repeat("p", 1000), isActive, 1))
	}
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	response, err := client.Post(server.URL+"/v1/workspaces/ws/changes/diff", jsonType, strings.NewReader(`{"files":[]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	time.Sleep(100 * time.Millisecond) // it fills the buffers of the connection
	f.Stop()
	all, err := io.ReadAll(response.Body)
	if err == nil && !json.Valid(all) {
		t.Errorf("%s, and %d bytes that are no JSON, without an error", response.Status, len(all))
	}
}

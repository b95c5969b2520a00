package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An api answers like the query API, and remembers what it was asked.
func api(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) (url string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.RequestURI)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

const aFile = `{"workspace_id":"123","file_id":"2abc","name":"q3.pdf","size":18233,"incomplete":false,"version":3,"position":"7:1234","deleted_at":null}`

func TestGetPrintsEveryForm(t *testing.T) {
	url, asked := api(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(aFile)) })

	table := succeed(t, "get", "123", "2abc", "--api-url", url)
	if !strings.HasPrefix(table, "workspace_id  123\n") || !strings.Contains(table, "\nsize          18233\n") {
		t.Errorf("table:\n%s", table)
	}
	var got, want any
	if err := json.Unmarshal([]byte(succeed(t, "get", "123", "2abc", "--api-url", url, "-o", "json")),
		&got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(aFile), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("json (-want +got):\n%s", diff)
	}
	const wantYAML = `workspace_id: "123"
file_id: 2abc
name: q3.pdf
size: 18233
incomplete: false
version: 3
position: 7:1234
deleted_at: null
`
	if diff := cmp.Diff(wantYAML, succeed(t, "get", "123", "2abc", "--api-url", url, "-o", "yaml")); diff != "" {
		t.Errorf("yaml (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(
		[]string{
			"/v1/workspaces/123/files/2abc", "/v1/workspaces/123/files/2abc",
			"/v1/workspaces/123/files/2abc",
		}, *asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestIdsAndPositionsReachTheAPIAsTheyAre(t *testing.T) {
	url, asked := api(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(aFile)) })
	succeed(t, "get", "..", "a/b%2F?c", "--api-url", url+"/", "--at-least", "7:12", "--wait", "2s")
	if want := "/v1/workspaces/%2E%2E/files/a%2Fb%252F%3Fc?at_least=7%3A12&wait=2000ms"; (*asked)[0] != want {
		t.Errorf("asked %s, want %s", (*asked)[0], want)
	}
}

func TestARefusalSaysWhatTheServerSaid(t *testing.T) {
	url, _ := api(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "2")
		w.WriteHeader(503)
		w.Write([]byte(`{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"the view is recovering","code":"recovering"}`))
	})
	out, errs, code := tidemark(t, "get", "1", "2", "--api-url", url)
	const want = "tidemark: 503 Service Unavailable, recovering: the view is recovering (try again in 2 s)\n"
	if out != "" || errs != want || code != exitFailed {
		t.Errorf("exit %d, out %q, err %q; want exit 1, err %q", code, out, errs, want)
	}
	if _, errs, code = tidemark(t, "get", "1", "2", "--api-url", "http://127.0.0.1:1"); code != exitFailed ||
		!strings.Contains(errs, "connection refused") {
		t.Errorf("nobody listens: exit %d, %q", code, errs)
	}
	if _, _, code = tidemark(t, "get", "1", "", "--api-url", url); code != exitUsage {
		t.Errorf("an empty id: exit %d, want %d", code, exitUsage)
	}
}

// pages answers a listing of n files, as many at a time as asked for.
func pages(t *testing.T, n int) func(http.ResponseWriter, *http.Request) {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request) {
		var from, limit int
		if c := r.FormValue("cursor"); c != "" {
			if _, err := fmt.Sscanf(c, "c%d", &from); err != nil {
				t.Errorf("cursor %q: %v", c, err)
			}
		}
		if _, err := fmt.Sscan(r.FormValue("limit"), &limit); err != nil || limit > pageSize {
			t.Errorf("limit %q", r.FormValue("limit"))
		}
		to := min(from+limit, n)
		var p struct {
			Files []map[string]any `json:"files"`
			Next  *string          `json:"next_cursor"`
		}
		for i := from; i < to; i++ {
			p.Files = append(p.Files,
				map[string]any{
					"file_id": fmt.Sprintf("f%d", i), "path": fmt.Sprintf("/p/\x1b[31m%d", i),
					"status": "active", "version": 1,
				})
		}
		if to < n {
			next := fmt.Sprintf("c%d", to)
			p.Next = &next
		}
		if err := json.NewEncoder(w).Encode(p); err != nil {
			t.Error(err)
		}
	}
}

func TestLsFollowsTheCursor(t *testing.T) {
	url, asked := api(t, pages(t, 2500))
	table := succeed(t, "ls", "123", "--api-url", url)
	if lines := strings.Count(table, "\n"); lines != 2501 || len(*asked) != 3 {
		t.Errorf("%d lines after %d questions, want a head and 2500 files after 3", lines, len(*asked))
	}
	if strings.Contains(table, "\x1b") {
		t.Error("a path's escape sequence reaches the terminal")
	}
	var all struct {
		Files []json.RawMessage `json:"files"`
		Next  *string           `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(succeed(t, "ls", "123", "--api-url", url, "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Files) != 2500 || all.Next != nil {
		t.Errorf("json: %d files, next cursor %v; want all 2500 and none", len(all.Files), all.Next)
	}
}

func TestSearchAsksForWordsAndStopsAtTheLimit(t *testing.T) {
	url, asked := api(t, pages(t, 250))
	out, errs, code := tidemark(t, "search", "a/b", "rep q3", "--api-url", url, "--mime", "text/plain",
		"--path-prefix", "/p/", "--at-least", "7:12", "--wait", "2s")
	if code != exitOK || strings.Count(out, "\n") != 101 || !strings.Contains(errs, "--cursor c100") {
		t.Errorf("exit %d, %d lines, %q", code, strings.Count(out, "\n"), errs)
	}
	succeed(t, "search", "a/b", "", "--api-url", url, "--limit", "0", "--cursor", "c100")
	want := []string{
		"/v1/workspaces/a%2Fb/search?at_least=7%3A12&limit=100&mime=text%2Fplain&path_prefix=%2Fp%2F&q=rep+q3&wait=2000ms",
		"/v1/workspaces/a%2Fb/search?cursor=c100&limit=1000&q=",
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	if _, errs, code := tidemark(t, "search", "", "q", "--api-url", url); code != exitUsage {
		t.Errorf("no workspace: exit %d, %s", code, errs)
	}
}

func TestLsStopsAtTheLimitAndSaysHowToGoOn(t *testing.T) {
	url, asked := api(t, pages(t, 2500))
	out, errs, code := tidemark(t, "ls", "123", "--api-url", url, "--limit", "1200", "--path-prefix", "/p/",
		"--status", "all")
	if code != exitOK || strings.Count(out, "\n") != 1201 || !strings.Contains(errs, "--cursor c1200") {
		t.Errorf("exit %d, %d lines, %q", code, strings.Count(out, "\n"), errs)
	}
	want := []string{
		"/v1/workspaces/123/files?limit=1000&path_prefix=%2Fp%2F&status=all",
		"/v1/workspaces/123/files?cursor=c1000&limit=200&path_prefix=%2Fp%2F&status=all",
	}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	rest := succeed(t, "ls", "123", "--api-url", url, "--cursor", "c1200")
	if strings.Count(rest, "\n") != 1301 {
		t.Errorf("the rest has %d lines, want 1301", strings.Count(rest, "\n"))
	}
	if empty := succeed(t, "ls", "123", "--api-url", url, "--cursor", "c2500", "-o", "json"); !strings.Contains(empty, `"files": []`) {
		t.Errorf("an empty listing: %s", empty)
	}
}

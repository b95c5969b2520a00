package views

import (
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/auth"
	"tidemark/problem"
)

// deadLettersForTest answers with what it was asked, or with a problem.
func deadLettersForTest(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	switch body, _ := io.ReadAll(r.Body); {
	case r.Method == http.MethodPost:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Location", "/v1/dlq/jobs/x-1")
		w.WriteHeader(http.StatusAccepted)
		w.Write(body)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case strings.HasSuffix(r.URL.Path, "/busy"):
		problem.New(http.StatusServiceUnavailable, "busy", "later").Retry(2 * time.Second).Write(w)
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"asked":%q%s}`, r.RequestURI, strings.Repeat(" ", minCompressed))
	}
}

// What the handler of the dead letters answers is answered as every other resource: also to HEAD, compressed, counted
// by its route.
func TestDeadLetters(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.DeadLetters = http.HandlerFunc(deadLettersForTest) })
	for target, route := range map[string]string{
		"/v1/dlq": "/v1/dlq",
		"/v1/dlq?each=true&reason=a&reason=b&sink=s&sink=t&entry=1:5&entry=1:6&limit=5": "/v1/dlq",
		"/v1/dlq/fastio-index%2F7:1234@search":                                          "/v1/dlq/{entry}",
		"/v1/dlq/..":                                                                    "/v1/dlq/{entry}",
		"/v1/dlq/jobs":                                                                  "/v1/dlq/jobs",
		"/v1/dlq/jobs/%2e%2e":                                                           "/v1/dlq/jobs/{job}",
	} {
		before := f.answered(route, "200")
		w := f.get(target)
		if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"asked":"`+target+`"`) ||
			w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %s", target, w.Code, w.Header(), w.Body)
		}
		head := f.do(http.MethodHead, target)
		if head.Code != 200 || head.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
			t.Errorf("HEAD %s: %d %v", target, head.Code, head.Header())
		}
		zipped := f.do(http.MethodGet, target, "Accept-Encoding", "gzip")
		if zipped.Header().Get("Content-Encoding") != "gzip" || zipped.Body.Len() >= w.Body.Len() {
			t.Errorf("%s compressed: %v", target, zipped.Header())
		}
		if n := f.answered(route, "200") - before; n != 3 {
			t.Errorf("%s is counted %g times, want 3", target, n)
		}
	}
	for target, want := range map[string]int{
		"/v1/dlq?x=1": 400, "/v1/dlq?each=true&each=false": 400, "/v1/dlq/jobs?x=1": 400, "/v1/dlq/1:5?each=true": 400,
		"/v1/dlq/": 404, "/v1/dlq/a/b": 404, "/v1/dlq/jobs/": 404,
	} {
		if w := f.get(target); w.Code != want {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}
	if w := f.get("/v1/dlq/busy"); w.Code != 503 || w.Header().Get("Retry-After") != "2" ||
		w.Header().Get("Content-Type") != "application/problem+json" || code(t, w) != "busy" {
		t.Errorf("a problem: %d %v %s", w.Code, w.Header(), w.Body)
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/dlq/jobs", strings.NewReader("the body")))
	if w.Code != 202 || w.Header().Get("Location") != "/v1/dlq/jobs/x-1" || w.Body.String() != "the body" {
		t.Errorf("POST: %d %v %s", w.Code, w.Header(), w.Body)
	}
	w = f.do(http.MethodDelete, "/v1/dlq/jobs/x-1")
	if w.Code != 204 || w.Header().Get("Content-Type") != "" || w.Body.Len() > 0 {
		t.Errorf("DELETE: %d %v %s", w.Code, w.Header(), w.Body)
	}
	for target, want := range map[string]string{
		"/v1/dlq": "GET, HEAD, OPTIONS", "/v1/dlq/1:5": "GET, HEAD, OPTIONS",
		"/v1/dlq/jobs": "GET, HEAD, POST, OPTIONS", "/v1/dlq/jobs/x-1": "GET, HEAD, DELETE, OPTIONS",
	} {
		if w := f.do(http.MethodPut, target); code(t, w) != codeMethod || w.Header().Get("Allow") != want {
			t.Errorf("PUT %s: %d, Allow %q, want %q", target, w.Code, w.Header().Get("Allow"), want)
		}
	}

	f = newFixture(t)
	if w := f.get("/v1/dlq"); w.Code != 501 || code(t, w) != codeNoDeadLetters {
		t.Errorf("without a handler: %d %s", w.Code, w.Body)
	}
}

// Reading or changing dead letters needs the right admin for all workspaces. A cookie has it for pages of the same
// origin only.
func TestWhoMayUseDeadLetters(t *testing.T) {
	tokens := map[string]string{}
	var list strings.Builder
	for name, scope := range map[string]string{
		"reader": `["*"], rights: [read]`, "mine": `[mine], rights: [read, admin]`, "admin": `["*"], rights: [admin]`,
	} {
		tokens[name] = auth.NewToken()
		sum := sha256.Sum256([]byte(tokens[name]))
		fmt.Fprintf(&list, "- {workspaces: %s, name: %s, sha256: %x}\n", scope, name, sum)
	}
	path := filepath.Join(t.TempDir(), "tokens.yml")
	if err := os.WriteFile(path, []byte(list.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewTokens(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, func(c *Config) {
		guard := auth.NewGuard(verifier, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		c.Authorize, c.AuthorizeAdmin = guard.Authorize, guard.AuthorizeAdmin
		c.DeadLetters = http.HandlerFunc(deadLettersForTest)
	})
	cookie := "tidemark_token=" + tokens["admin"]
	for _, c := range []struct {
		method, target string
		headers        []string
		status         int
		code           string
	}{
		{"GET", "/v1/dlq", nil, 401, "no_token"},
		{"GET", "/v1/dlq", []string{"Authorization", "Bearer " + tokens["reader"]}, 403, "missing_right"},
		{"GET", "/v1/dlq", []string{"Authorization", "Bearer " + tokens["mine"]}, 403, "missing_right"},
		{"GET", "/v1/dlq", []string{"Authorization", "Bearer " + tokens["admin"]}, 200, ""},
		{"POST", "/v1/dlq/jobs", []string{"Authorization", "Bearer " + tokens["mine"]}, 403, "missing_right"},
		{"POST", "/v1/dlq/jobs", []string{"Authorization", "Bearer " + tokens["admin"]}, 202, ""},
		{"DELETE", "/v1/dlq/jobs/x", []string{"Authorization", "Bearer " + tokens["reader"]}, 403, "missing_right"},
		{"GET", "/v1/dlq", []string{"Cookie", cookie}, 200, ""},
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Origin", "http://example.com"}, 202, ""}, // its own host
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Origin", "http://example.com:81"}, 401, "bad_token"},
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 401, "bad_token"},
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 401, "bad_token"},
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-site"}, 401, "bad_token"},
		{"DELETE", "/v1/dlq/jobs/x", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 401, "bad_token"},
		{"POST", "/v1/dlq/jobs", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, 202, ""},
	} {
		w := f.do(c.method, c.target, c.headers...)
		if w.Code != c.status || c.code != "" && code(t, w) != c.code {
			t.Errorf("%s %s %q: %d %s, want %d %s", c.method, c.target, c.headers, w.Code, w.Body, c.status, c.code)
		}
	}
}

// A request that reads the dead letters ends when the server stops.
func TestDeadLettersEndWithTheServer(t *testing.T) {
	asked := make(chan struct{})
	f := newFixture(t, func(c *Config) {
		c.DeadLetters = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		})
	})
	answered := make(chan struct{})
	go func() {
		f.get("/v1/dlq")
		close(answered)
	}()
	<-asked
	f.Stop()
	select {
	case <-answered:
	case <-time.After(5 * time.Second):
		t.Error("the request goes on")
	}
}

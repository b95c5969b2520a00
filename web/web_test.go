package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

func do(t *testing.T, method, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	handler, err := Handler(func(h http.Header) bool { return h.Get("Accept-Encoding") == "gzip" })
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, request)
	return w
}

func TestFiles(t *testing.T) {
	for path, contentType := range map[string]string{
		"/":           "text/html; charset=utf-8",
		"/index.html": "text/html; charset=utf-8",
		"/page.js":    "text/javascript; charset=utf-8",
		"/style.css":  "text/css; charset=utf-8",
		"/icon.svg":   "image/svg+xml",
	} {
		w := do(t, "GET", path)
		h := w.Header()
		if w.Code != 200 || w.Body.Len() == 0 || h.Get("Content-Type") != contentType ||
			h.Get("Content-Security-Policy") != policy || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d, %d bytes, %v", path, w.Code, w.Body.Len(), h)
		}
		head := do(t, "HEAD", path)
		if head.Code != 200 || head.Body.Len() > 0 || head.Header().Get("Content-Length") != h.Get("Content-Length") {
			t.Errorf("HEAD %s: %d, %d bytes, %v", path, head.Code, head.Body.Len(), head.Header())
		}
		for _, tag := range []string{h.Get("ETag"), "W/" + h.Get("ETag"), `"x", ` + h.Get("ETag")} {
			w := do(t, "GET", path, "If-None-Match", tag)
			if w.Code != 304 || w.Body.Len() > 0 || w.Header().Get("Content-Encoding") != "" {
				t.Errorf("%s, If-None-Match %s: %d %v", path, tag, w.Code, w.Header())
			}
		}
		if w := do(t, "OPTIONS", path); w.Code != 204 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("OPTIONS %s: %d", path, w.Code)
		}
		if w := do(t, "POST", path); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/build", "/page", "/../web.go", "/src/main.tsx", "/index.html/", "/workspaces/123"} {
		if w := do(t, "GET", path); w.Code != 404 || !strings.Contains(w.Body.String(), `"unknown_path"`) {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestCompressed(t *testing.T) {
	for accepted, compressed := range map[string]bool{
		"gzip": true, "": false, "br": false,
	} {
		w := do(t, "GET", "/page.js", "Accept-Encoding", accepted)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != compressed {
			t.Errorf("Accept-Encoding %q: compressed %v, want %v", accepted, got, compressed)
		}
		body := io.Reader(w.Body)
		if compressed {
			var err error
			if body, err = gzip.NewReader(w.Body); err != nil {
				t.Fatal(err)
			}
		}
		plain, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		if want := do(t, "GET", "/page.js").Body.String(); string(plain) != want {
			t.Errorf("Accept-Encoding %q: %d bytes, want %d", accepted, len(plain), len(want))
		}
	}
}

const maxSize = 100_000 // bytes, compressed

func TestSize(t *testing.T) {
	total := 0
	for _, path := range []string{"/", "/page.js", "/style.css", "/icon.svg"} {
		total += do(t, "GET", path, "Accept-Encoding", "gzip").Body.Len()
	}
	if t.Logf("%d bytes compressed", total); total > maxSize {
		t.Errorf("the page has %d bytes compressed, and at most %d are allowed", total, maxSize)
	}
}

// The policy refuses scripts and styles in the document, so there must be none; and no address of another host.
func TestDocument(t *testing.T) {
	body := do(t, http.MethodGet, "/").Body.String()
	for _, refused := range []string{`<style`, `style=`, `<script>`, `\son\w+=`, `(src|href)="(https?:)?//`} {
		if found := regexp.MustCompile(refused).FindString(body); found != "" {
			t.Errorf("the document has %q", found)
		}
	}
}

// A lock file with addresses would fetch from one registry only.
func TestLockFileHasNoHost(t *testing.T) {
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`"resolved"|registry\.`).Find(lock); found != nil {
		t.Errorf("package-lock.json has %s: add it with `npm install --omit-lockfile-registry-resolved`", found)
	}
}

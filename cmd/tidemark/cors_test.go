package main

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestCORS(t *testing.T) {
	asked := 0
	api := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		w.Header().Set("ETag", `"3"`)
		w.Header().Add("Vary", "Accept")
	})
	handler := corsFlags{CORSOrigin: []string{"https://app.example", "http://127.0.0.1:3000"}}.crossOrigin(api)
	send := func(handler http.Handler, method, path string, header ...string) http.Header {
		r := httptest.NewRequest(method, path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if method == http.MethodOptions && w.Code != http.StatusNoContent {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
		return w.Header()
	}
	for origin, allowed := range map[string]bool{
		"https://app.example": true, "http://127.0.0.1:3000": true, "http://app.example": false, "null": false,
		"https://app.example.evil": false, "https://app.example:8443": false, "http://127.0.0.1:3001": false,
		"https://evil.example": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		asked = 0
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			for _, headers := range []string{"authorization", "content-type", "last-event-id", "if-none-match"} {
				h := send(handler, "OPTIONS", "/v1/workspaces/secret", "Origin", origin,
					"Access-Control-Request-Method", method, "Access-Control-Request-Headers", headers)
				if h.Get("Access-Control-Allow-Origin") != want || h.Get("Access-Control-Allow-Credentials") != "" ||
					allowed && (h.Get("Access-Control-Allow-Headers") != headers ||
						h.Get("Access-Control-Allow-Methods") != method) {
					t.Errorf("preflight of %s from %s: %v", method, origin, h)
				}
			}
		}
		if asked > 0 {
			t.Errorf("a preflight reached the API")
		}
		h := send(handler, "GET", "/v1/workspaces/secret", "Origin", origin)
		exposed := strings.ToLower(h.Get("Access-Control-Expose-Headers"))
		all := "etag, tidemark-lag-seconds, tidemark-as-of, retry-after, location, www-authenticate"
		if h.Get("Access-Control-Allow-Origin") != want || asked != 1 || allowed && exposed != all {
			t.Errorf("GET from %s: %v", origin, h)
		}
		if vary := h.Values("Vary"); !slices.Contains(vary, "Origin") || !slices.Contains(vary, "Accept") {
			t.Errorf("GET from %s: Vary %q", origin, vary)
		}
	}
	h := send(handler, "OPTIONS", "/", "Origin", "https://app.example", "Access-Control-Request-Method", "PUT")
	if h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("PUT is allowed: %v", h)
	}
	h = send(corsFlags{}.crossOrigin(api), "GET", "/", "Origin", "https://app.example")
	if h.Get("Access-Control-Allow-Origin") != "" || slices.Contains(h.Values("Vary"), "Origin") {
		t.Errorf("without --cors-origin: %v", h)
	}
}

func TestOriginsAreExact(t *testing.T) {
	for _, origin := range []string{
		"*", "https://*.example", "app.example", "https://app.example/", "https://app.example/x", "null",
		"ftp://app.example", "https://App.example", "https://me@app.example", "https://app.example?", "https://",
	} {
		for _, role := range []string{"serve", "dev"} {
			_, errs, code := tidemark(t, role, "--data", t.TempDir(), "--api-addr", "127.0.0.1:0",
				"--cors-origin="+origin)
			if code != exitUsage || !strings.Contains(errs, "--cors-origin") {
				t.Errorf("%s %q: exit %d, %s", role, origin, code, errs)
			}
		}
	}
	for _, origin := range []string{"https://app.example", "http://localhost:3000", "http://[::1]:3000"} {
		if err := (corsFlags{CORSOrigin: []string{origin}}).checkOrigins(); err != nil {
			t.Error(err)
		}
	}
}

package auth

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// known verifies the tokens of a map.
type known map[string]*Identity

func (k known) Verify(_ context.Context, token string) (*Identity, error) {
	if id := k[token]; id != nil {
		return id, nil
	}
	return nil, badToken("the token is not valid")
}

var people = known{
	"reader":  {"reader", []string{"mine"}, []Right{Read}},
	"admin":   {"admin", []string{"*"}, []Right{Read, Admin}},
	"limited": {"limited", []string{"mine"}, []Right{Read, Admin}},
	"none":    {"none", []string{"*"}, nil},
}

func newGuard(t *testing.T, v Verifier) (*Guard, *bytes.Buffer, *prometheus.Registry) {
	t.Helper()
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	return NewGuard(v, slog.New(slog.NewTextHandler(&log, nil)), registry), &log, registry
}

func TestAuthorize(t *testing.T) {
	g, _, _ := newGuard(t, people)
	for _, c := range []struct {
		authorization []string
		workspace     string
		allowed       bool
		code, header  string
	}{
		{[]string{"Bearer reader"}, "mine", true, "", ""},
		{[]string{"bearer reader"}, "", true, "", ""},
		{[]string{"Bearer reader"}, "theirs", false, "", ""},
		{[]string{"Bearer reader"}, "*", false, "", ""},
		{[]string{"Bearer admin"}, "theirs", true, "", ""},
		{[]string{"Bearer none"}, "theirs", false, codeMissingRight, `error="insufficient_scope", scope="read"`},
		{nil, "mine", false, codeNoToken, `Bearer realm="tidemark"`},
		{[]string{"Bearer wrong"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{""}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Basic cmVhZGVy"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"reader"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer reader, Bearer admin"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer re;ader"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer \x00"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer reader", "Bearer reader"}, "mine", false, codeBadToken, `error="invalid_token"`},
		{[]string{"Bearer " + strings.Repeat("x", maxToken+1)}, "mine", false, codeBadToken, `error="invalid_token"`},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Authorization"] = c.authorization
		allowed, err := g.Authorize(r, c.workspace)
		if allowed != c.allowed || (err != nil) != (c.code != "") {
			t.Errorf("%.30q for %s: %v, %v", c.authorization, c.workspace, allowed, err)
		}
		if err == nil {
			continue
		}
		wantCode(t, err, c.code, "")
		if got := asProblem(err).Header().Get(challenge); !strings.Contains(got, c.header) ||
			c.code == codeNoToken && strings.Contains(got, "error") {
			t.Errorf("%.30q: %s %q", c.authorization, challenge, got)
		}
	}
}

func TestAdminHandler(t *testing.T) {
	open := []string{"/metrics", "/healthz"}
	served := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	g, log, registry := newGuard(t, people)
	h := g.AdminHandler(served, open...)
	ask := func(h http.Handler, method, path, token string) *httptest.ResponseRecorder {
		r, w := httptest.NewRequest(method, "http://x"+path, nil), httptest.NewRecorder()
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		r.AddCookie(&http.Cookie{Name: cookieName, Value: "admin"}) // which counts for nothing
		h.ServeHTTP(w, r)
		return w
	}
	for _, path := range []string{
		"/dlq", "/dlq/replay", "/", "/metrics/", "//metrics", "/metrics/../dlq", "/debug/pprof",
		"/%6detrics/x", "/healthz%2f", "/METRICS",
	} {
		for token, want := range map[string]int{
			"": 401, "wrong": 401, "reader": 403, "limited": 403, "none": 403, "admin": 418,
		} {
			for _, method := range []string{"GET", "POST", "HEAD", "X"} {
				w := ask(h, method, path, token)
				if challenged := w.Header().Get(challenge) != ""; w.Code != want || challenged == (want == 418) {
					t.Errorf("%s %s with %q: %d, want %d", method, path, token, w.Code, want)
				}
			}
		}
	}
	for _, path := range open {
		for _, token := range []string{"", "wrong", "reader"} {
			if w := ask(h, "GET", path, token); w.Code != http.StatusTeapot {
				t.Errorf("%s with %q: %d", path, token, w.Code)
			}
		}
	}
	if text := log.String(); !strings.Contains(text, "subject=admin method=POST path=/dlq/replay") ||
		strings.Contains(text, "method=GET") || strings.Contains(text, "Bearer") {
		t.Errorf("the log of changes is\n%s", text)
	}
	var denied dto.Metric
	if err := g.decisions.WithLabelValues(string(missingRight)).Write(&denied); err != nil {
		t.Fatal(err)
	}
	if n := denied.GetCounter().GetValue(); n != 10*3*4 {
		t.Errorf("%g missing rights are counted", n)
	}
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || len(families[0].GetMetric()) != 6 {
		t.Errorf("metrics %v, %v", families, err)
	}
	closed, _, _ := newGuard(t, Closed("set --auth"))
	h = closed.AdminHandler(served, open...)
	if w := ask(h, "GET", "/dlq", "admin"); w.Code != 401 || !strings.Contains(w.Body.String(), "set --auth") {
		t.Errorf("closed: %d %s", w.Code, w.Body)
	}
	if w := ask(h, "GET", "/metrics", ""); w.Code != http.StatusTeapot {
		t.Errorf("closed, open path: %d", w.Code)
	}
}

// The cookie is the token. It is set from the header only, and changes nothing from another origin.
func TestSession(t *testing.T) {
	g, _, _ := newGuard(t, people)
	session := func(method, token string, header ...string) (int, http.Header, []*http.Cookie) {
		r, w := httptest.NewRequest(method, "http://x/v1/session", nil), httptest.NewRecorder()
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		g.SessionHandler().ServeHTTP(w, r)
		return w.Code, w.Header(), (&http.Response{Header: w.Header()}).Cookies()
	}
	status, header, cookies := session("POST", "reader", "Origin", "https://x")
	if status != 204 || len(cookies) != 1 || !cookies[0].HttpOnly || !cookies[0].Secure ||
		cookies[0].SameSite != http.SameSiteStrictMode || cookies[0].Path != "/v1" || cookies[0].MaxAge != 12*3600 ||
		header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", status, header)
	}
	if _, _, c := session("POST", "reader", "Origin", "http://x"); c[0].Secure {
		t.Error("the cookie of a page without TLS would not be sent")
	}
	for token, want := range map[string]int{"": 401, strings.Repeat("x", maxCookie+1): 400} {
		status, header, c := session("POST", token, "Cookie", cookieName+"=reader")
		if status != want || len(c) > 0 || (header.Get(challenge) != "") != (want == 401) {
			t.Errorf("%.10q: %d %v", token, status, header)
		}
	}
	_, _, c := session("DELETE", "")
	if len(c) != 1 || c[0].MaxAge >= 0 || c[0].Value != "" || c[0].Path != "/v1" {
		t.Errorf("DELETE: %v", c)
	}
	use := func(method string, header ...string) (bool, error) {
		r := httptest.NewRequest(method, "http://x/v1/workspaces/mine", nil)
		r.AddCookie(cookies[0])
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return g.Authorize(r, "mine")
	}
	if ok, err := use("GET"); !ok || err != nil {
		t.Error("GET", ok, err)
	}
	if ok, err := use("POST", "Origin", "http://x"); !ok || err != nil {
		t.Error("POST of the same origin", ok, err)
	}
	for _, header := range [][]string{
		{"Origin", "http://x:9999"}, {"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Site", "cross-site"},
	} {
		_, err := use("POST", header...)
		wantCode(t, err, codeBadToken, "")
	}
	_, err := use("GET", "Authorization", "Bearer wrong")
	wantCode(t, err, codeBadToken, "") // and the cookie does not help
	_, err = use("GET", "Cookie", cookieName+"=reader; "+cookieName+"=admin")
	wantCode(t, err, codeBadToken, "")
}

func TestAnUnexpectedErrorIsNoProblemOfTheClient(t *testing.T) {
	if p := asProblem(errors.New("secret detail")); p.Status != 500 || strings.Contains(p.Error(), "secret detail") {
		t.Error(p)
	}
}

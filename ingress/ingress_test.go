package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"tidemark/problem"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// noon is the time of every test that does not say otherwise.
var noon = time.Date(2026, 9, 25, 12, 0, 0, 123456000, time.UTC)

const (
	minimal  = `{"event":"workspace_storage_file_added","workspace_id":"123","event_id":"evt1"}`
	anyKey   = "an-unbound-secret-of-32-bytes-xx"
	otherKey = "another-secret-for-the-rotation-"
	boundKey = "the-secret-of-workspace-123-only"
)

// A record is what a memoryLog was given.
type record struct {
	key     string
	value   []byte
	headers map[string][]byte
}

// A memoryLog is a Producer that keeps what is appended. When hold is set it acknowledges nothing until release.
type memoryLog struct {
	mu      sync.Mutex
	hold    bool
	err     error // what appends fail with
	records []record
	held    []func()
	closed  bool
}

func (l *memoryLog) TryProduce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	headers := map[string][]byte{}
	for _, h := range r.Headers {
		headers[h.Key] = h.Value
	}
	l.mu.Lock()
	r.Offset = int64(len(l.records))
	l.records = append(l.records, record{string(r.Key), bytes.Clone(r.Value), headers})
	err := l.err
	settle := func() { promise(r, err) }
	if l.hold {
		l.held = append(l.held, settle)
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	settle()
}

func (l *memoryLog) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *memoryLog) set(hold bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold, l.err = hold, err
}

// release acknowledges what is held back, and holds back no longer.
func (l *memoryLog) release() {
	l.mu.Lock()
	l.hold = false
	l.mu.Unlock()
	l.acknowledge()
}

// acknowledge acknowledges what is held back.
func (l *memoryLog) acknowledge() {
	l.mu.Lock()
	held := l.held
	l.held = nil
	l.mu.Unlock()
	for _, settle := range held {
		settle()
	}
}

func (l *memoryLog) all() []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]record(nil), l.records...)
}

func secretsOf(tb testing.TB, scheme Scheme, lines ...string) []Secret {
	tb.Helper()
	var secrets []Secret
	for _, line := range lines {
		secret, err := parseLine(scheme, line)
		if err != nil {
			tb.Fatalf("secret %q: %v", line, err)
		}
		secrets = append(secrets, secret)
	}
	return secrets
}

func schemeOf(tb testing.TB, name string) Scheme {
	tb.Helper()
	scheme, err := ParseScheme(name, "")
	if err != nil {
		tb.Fatal(err)
	}
	return scheme
}

// newTestServer returns a server on a memory log, at noon, with the secret anyKey; tweak may change its settings.
func newTestServer(tb testing.TB, tweak func(*Config)) (*Server, *memoryLog) {
	tb.Helper()
	events := &memoryLog{}
	c := Config{
		Secrets: secretsOf(tb, Scheme{}, anyKey), Topic: "fastio-events", Partitions: 1, Producer: events,
		Check:   func(context.Context) error { return nil },
		Now:     func() time.Time { return noon },
		Metrics: prometheus.NewRegistry(),
	}
	if tweak != nil {
		tweak(&c)
	}
	s, err := New(c)
	if err != nil {
		tb.Fatal(err)
	}
	return s, events
}

// post makes a signed request; the scheme and secret are the defaults of newTestServer.
func post(tb testing.TB, body string) *http.Request {
	tb.Helper()
	r := httptest.NewRequest(http.MethodPost, Path, strings.NewReader(body))
	maps.Copy(r.Header, Sign(Scheme{}, secretsOf(tb, Scheme{}, anyKey)[0], []byte(body), "", noon))
	return r
}

func serve(s *Server, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// refused checks that the answer is a whole problem of that status, code and field.
func refused(tb testing.TB, w *httptest.ResponseRecorder, status int, code, field string) {
	tb.Helper()
	var p problem.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		tb.Fatalf("status %d, body %q is no problem: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Code != code || p.Field != field {
		tb.Fatalf("got %d %q on %q (%s), want %d %q on %q", w.Code, p.Code, p.Field, p.Detail, status, code, field)
	}
	if p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Status != status || p.Detail == "" {
		tb.Errorf("problem %+v is not whole", p)
	}
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		tb.Errorf("Content-Type %q", got)
	}
	if retry := w.Header().Get("Retry-After"); (retry != "") != (status == 429 || status == 503) {
		tb.Errorf("Retry-After %q on a %d", retry, status)
	}
}

func took(tb testing.TB, w *httptest.ResponseRecorder, eventID, position string) {
	tb.Helper()
	var got struct {
		EventID  string `json:"event_id"`
		Position string `json:"position"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		tb.Fatalf("got %d %q (%v), want 200", w.Code, w.Body, err)
	}
	if got.EventID != eventID || got.Position != position {
		tb.Fatalf("got %+v, want %s at %s", got, eventID, position)
	}
}

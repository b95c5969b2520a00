package ingress

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// The recipe's request, word for word, with the form type that curl -d gives it.
func TestRecipe(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	r := post(t, minimal)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	took(t, serve(s, r), "evt1", "0:0")

	records := events.all()
	if len(records) != 1 || records[0].key != "123" {
		t.Fatalf("records %+v", records)
	}
	var value map[string]any
	if err := json.Unmarshal(records[0].value, &value); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"event": "workspace_storage_file_added", "workspace_id": "123", "event_id": "evt1",
		"received_at": "2026-09-25T12:00:00.123456Z", "partition_key": "123",
	}
	if fmt.Sprint(value) != fmt.Sprint(want) {
		t.Errorf("value %v, want %v", value, want)
	}
}

func TestBothShapes(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	took(t, serve(s, post(t, `{"eventType":"e","workspaceId":"w","eventId":"1","fileId":"f","mine":[1.0e2]}`)), "1", "0:0")
	took(t, serve(s, post(t, `{"event":"e","workspace_id":"w","event_id":"2\u00e9","object_id":"f"}`)), "2é", "0:1")
	value := string(events.all()[0].value)
	for _, part := range []string{`"mine":[1.0e2]`, `"workspaceId":"w"`, `"workspace_id":"w"`, `"event":"e"`, `"event_id":"1"`} {
		if !strings.Contains(value, part) {
			t.Errorf("%s is not in %s", part, value)
		}
	}
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(t, nil)
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post"} {
		w := serve(s, httptest.NewRequest(method, Path, strings.NewReader(strings.Repeat("x", maxBody+1))))
		refused(t, w, http.StatusMethodNotAllowed, "method_not_allowed", "")
		if allow := w.Header().Get("Allow"); allow != "POST" {
			t.Errorf("%s: Allow %q", method, allow)
		}
	}
	for _, path := range []string{
		"/", "/webhook", Path + "/", Path + "/x", "/" + Path, "/webhook/../webhook/fastio",
		"/Webhook/Fastio", "/healthz", "/metrics",
	} {
		r := post(t, minimal)
		r.URL.Path = path
		refused(t, serve(s, r), http.StatusNotFound, "not_found", "")
	}
}

// Each request breaks all rules from its own on: the answer shows which is checked first.
func TestOrderOfChecks(t *testing.T) {
	t.Parallel()
	const bound = "456=" + boundKey
	s, events := newTestServer(t, func(c *Config) {
		c.Secrets = secretsOf(t, Scheme{}, anyKey, bound)
		c.Rate, c.Burst = 0.001, 1
	})
	took(t, serve(s, post(t, minimal)), "evt1", "0:0") // the bucket of 123 is empty now
	before := len(events.all())
	large := strings.Repeat("x", maxBody+1)
	tests := []struct {
		name, method, encoding, body string
		signer                       string // empty: a wrong signature
		status                       int
		code, field                  string
	}{
		{"method", "PUT", "gzip", large, "", 405, "method_not_allowed", ""},
		{"size", "POST", "gzip", large, "", 413, "body_too_large", ""},
		{"encoding", "POST", "gzip", "{", "", 415, "content_encoding", ""},
		{"signature", "POST", "", "{", "", 401, "signature_mismatch", ""},
		{"json", "POST", "", `{"workspace_id":"123"`, bound, 400, "not_json", ""},
		{"field", "POST", "", `{"workspace_id":"123","event":"e"}`, bound, 400, "missing_field", "event_id"},
		{"binding", "POST", "", minimal, bound, 403, "workspace_not_allowed", "workspace_id"},
		{"rate", "POST", "", minimal, anyKey, 429, "rate_limited", ""},
	}
	for _, test := range tests {
		r := httptest.NewRequest(test.method, Path, strings.NewReader(test.body))
		r.ContentLength = -1 // chunked: the body has to be read to be measured
		if test.encoding != "" {
			r.Header.Set("Content-Encoding", test.encoding)
		}
		r.Header.Set("Fastio-Signature", "sha256="+strings.Repeat("0", 64))
		if test.signer != "" {
			maps.Copy(r.Header, Sign(Scheme{}, secretsOf(t, Scheme{}, test.signer)[0], []byte(test.body), "", noon))
		}
		t.Run(test.name, func(t *testing.T) { refused(t, serve(s, r), test.status, test.code, test.field) })
	}
	if after := len(events.all()); after != before {
		t.Errorf("%d refused events reached the log", after-before)
	}
}

func TestSizeCap(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	whole := minimal[:len(minimal)-1] + `,"pad":"` + strings.Repeat("x", maxBody-len(minimal)-9) + `"}`
	if len(whole) != maxBody {
		t.Fatalf("body of %d bytes", len(whole))
	}
	for i, length := range []int64{int64(len(whole)), -1, 0, 100} { // as announced, chunked, and two lies
		r := post(t, whole)
		r.ContentLength = length
		took(t, serve(s, r), "evt1", fmt.Sprintf("0:%d", i))
		r = post(t, whole+" ")
		if r.ContentLength = length; length == int64(len(whole)) {
			r.ContentLength++
		}
		refused(t, serve(s, r), http.StatusRequestEntityTooLarge, "body_too_large", "")
	}
	r := post(t, minimal)
	r.ContentLength = maxBody + 1 // refused by its word, before a byte is read
	refused(t, serve(s, r), http.StatusRequestEntityTooLarge, "body_too_large", "")
	if n := len(events.all()); n != 4 {
		t.Errorf("%d records", n)
	}
	if count, size := s.large.usage(); count != 0 || size != 0 {
		t.Errorf("%d large bodies, %d bytes not released", count, size)
	}
}

func TestContentEncoding(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(t, nil)
	for _, fine := range [][]string{nil, {""}, {"identity"}, {"Identity, identity"}} {
		r := post(t, minimal)
		r.Header["Content-Encoding"] = fine
		if w := serve(s, r); w.Code != 200 {
			t.Errorf("%q: %d", fine, w.Code)
		}
	}
	for _, bad := range [][]string{{"gzip"}, {"identity", "br"}, {"identity, deflate"}, {"nonsense"}} {
		r := post(t, minimal)
		r.Header["Content-Encoding"] = bad
		refused(t, serve(s, r), http.StatusUnsupportedMediaType, "content_encoding", "")
	}
}

// A body that ends early or is waited for in vain.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	for _, test := range []struct {
		err    error
		status int
		code   string
	}{
		{io.ErrUnexpectedEOF, 400, "body_incomplete"},
		{errors.New("connection reset"), 400, "body_incomplete"},
		{timeoutError{}, 408, "body_timeout"},
	} {
		r := post(t, minimal)
		r.Body = io.NopCloser(io.MultiReader(strings.NewReader(minimal), iotest.ErrReader(test.err)))
		refused(t, serve(s, r), test.status, test.code, "")
	}
	if len(events.all()) != 0 {
		t.Error("half an event reached the log")
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// Slow senders of large bodies fill their own gate; ordinary events pass by.
func TestLargeBodiesAreBounded(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(t, nil)
	for s.large.acquire(maxBody) == nil {
	}
	large := minimal[:len(minimal)-1] + `,"pad":"` + strings.Repeat("x", freeBody) + `"}`
	refused(t, serve(s, post(t, large)), http.StatusServiceUnavailable, "busy", "")
	unread := post(t, large) // which says how large it is: nothing of it is read
	unread.Body = io.NopCloser(iotest.ErrReader(errors.New("read")))
	refused(t, serve(s, unread), http.StatusServiceUnavailable, "busy", "")
	took(t, serve(s, post(t, minimal)), "evt1", "0:0")
	s.large.release(maxBody)
	took(t, serve(s, post(t, large)), "evt1", "0:1")
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	now := noon
	s, _ := newTestServer(t, func(c *Config) {
		c.Rate, c.Burst = 0.5, 2
		c.Now = func() time.Time { return now }
	})
	other := strings.ReplaceAll(minimal, `"123"`, `"124"`)
	for range 2 {
		if w := serve(s, post(t, minimal)); w.Code != 200 {
			t.Fatalf("within the burst: %d", w.Code)
		}
	}
	for range 3 { // being refused costs nothing
		w := serve(s, post(t, minimal))
		refused(t, w, http.StatusTooManyRequests, "rate_limited", "")
		if got := w.Header().Get("Retry-After"); got != "2" {
			t.Errorf("Retry-After %q", got)
		}
	}
	if w := serve(s, post(t, other)); w.Code != 200 {
		t.Errorf("another workspace: %d", w.Code)
	}
	now = now.Add(2 * time.Second)
	if w := serve(s, post(t, minimal)); w.Code != 200 {
		t.Errorf("after Retry-After: %d", w.Code)
	}
}

func TestLimiterForgets(t *testing.T) {
	t.Parallel()
	l := newLimiter(1, 2)
	l.max = 100
	for i := range 1000 {
		l.take(strconv.Itoa(i), noon)
	}
	if len(l.buckets) != 100 || l.recent.Len() != 100 {
		t.Errorf("%d buckets, %d in the list, want 100", len(l.buckets), l.recent.Len())
	}
	l.take("999", noon)
	if q := l.take("999", noon); q.wait == 0 {
		t.Error("the bucket used last was dropped")
	}
	l.take("new", noon.Add(2*time.Second))
	if len(l.buckets) != 1 {
		t.Errorf("%d buckets, want only the one that is not full", len(l.buckets))
	}
	if q := (*limiter)(nil).take("x", noon); q.wait != 0 {
		t.Error("no limiter limits")
	}
}

// A body that is something else than JSON in UTF-8 is named as what it is, with what to send.
func TestOtherFormsAreNamed(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	var wide []byte
	for _, c := range []byte(minimal) {
		wide = append(wide, c, 0)
	}
	for body, says := range map[string]string{
		string(wide): "send it in UTF-8", "\xff\xfe" + string(wide): "send it in UTF-8",
		"\ufeff" + minimal:                  "send UTF-8 without one",
		"payload=" + minimal:                "send the JSON object alone",
		"event=e&event_id=1&workspace_id=w": "send the JSON object alone",
	} {
		w := serve(s, post(t, body))
		refused(t, w, http.StatusBadRequest, "not_json", "")
		if !strings.Contains(w.Body.String(), says) {
			t.Errorf("%.20q: %s, want %q", body, w.Body, says)
		}
	}
	if len(events.all()) != 0 {
		t.Error("a refused event reached the log")
	}
}

// A name with half a pair of surrogates is taken, and reaches the log as it was sent.
func TestLoneSurrogateIsTaken(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	took(t, serve(s, post(t, `{"event":"e","workspace_id":"w","event_id":"1","name":"a\ud83d.txt"}`)), "1", "0:0")
	if value := string(events.all()[0].value); !strings.Contains(value, `"name":"a\ud83d.txt"`) {
		t.Error(value)
	}
	refused(t, serve(s, post(t, `{"event":"e","workspace_id":"w","event_id":"\ud83d"}`)), http.StatusBadRequest, "bad_field", "event_id")
}

// What the answer never holds: the body or the secret.
func TestRefusalsRepeatNothing(t *testing.T) {
	t.Parallel()
	s, _ := newTestServer(t, nil)
	const mark = "do-not-repeat-me"
	for _, r := range []*http.Request{
		post(t, `{"event":"`+mark+`","workspace_id":7}`),
		post(t, mark),
		httptest.NewRequest("POST", Path+"/"+mark, bytes.NewReader(nil)),
	} {
		w := serve(s, r)
		if w.Code < 400 || strings.Contains(w.Body.String(), mark) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

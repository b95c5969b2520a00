package deadletters_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// ask sends a request and returns status and body of the answer, which must be JSON of the kind that goes with the
// status.
func ask(t *testing.T, h http.Handler, method, path, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var answer map[string]any
	if w.Code == http.StatusNoContent && w.Body.Len() == 0 {
		return w.Code, nil
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s %s: %d %s: %v", method, path, w.Code, w.Body, err)
	}
	want := "application/json"
	if w.Code >= 400 {
		want = "application/problem+json"
	}
	if got := w.Header().Get("Content-Type"); got != want {
		t.Errorf("%s %s: %d with Content-Type %q", method, path, w.Code, got)
	}
	return w.Code, answer
}

func TestOverHTTP(t *testing.T) {
	b := newBench(t)
	b.put(t,
		b.dead(1, 5, "w", event("a", "f", 1), "wrong_partition", 10),
		b.dead(1, 6, "w", event("b", "f", 1), "wrong_partition", 11),
		b.dead(2, 7, "v", `no event`, "not_json", 12),
	)
	show := func(r *kgo.Record) any { return string(r.Value) }
	h := deadletters.NewHandler(b.queue, show, slog.New(slog.DiscardHandler))

	if status, answer := ask(t, h, "GET", "/dlq", ""); status != 200 || answer["entries"] != 3.0 ||
		!strings.Contains(fmt.Sprint(answer["reasons"]), "reason:wrong_partition records:2") {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := ask(t, h, "GET", "/dlq?each=true&workspace_id=w&limit=1", ""); status != 200 ||
		answer["total"] != 2.0 || len(answer["entries"].([]any)) != 1 {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := ask(t, h, "GET", "/dlq/2:7", ""); status != 200 || answer["record"] != "no event" {
		t.Errorf("%d %v", status, answer)
	}
	for _, test := range []struct {
		method, path, body string
		headers            []string
		status             int
		code               string
	}{
		{"GET", "/dlq/2:8", "", nil, 404, "not_found"},
		{"GET", "/dlq/first", "", nil, 400, "bad_field"},
		{"GET", "/dlq?wrong=1", "", nil, 400, "bad_field"},
		{"GET", "/dlq?since=yesterday", "", nil, 400, "bad_field"},
		{"POST", "/dlq", "{}", nil, 405, "method_not_allowed"},
		{"DELETE", "/dlq/2:7", "", nil, 405, "method_not_allowed"},
		{"GET", "/dlq/replay", "", nil, 405, "method_not_allowed"},
		{"PUT", "/dlq/drop", "{}", nil, 405, "method_not_allowed"},
		{"GET", "/dlq?limit=5", "", nil, 400, "bad_field"},
		{"GET", "/dlq?cursor=0:99", "", nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"Dry_Run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"dry_run":true,"dry_run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"reasons":["` + strings.Repeat("x", 1<<20) + `"]}`, nil, 413, "body_too_large"},
		{"POST", "/dlq/drop", `{"dry_run":false}`, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"}, // what a foreign page can send
		{"POST", "/dlq/drop", `{"dryrun":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{} {}`, nil, 400, "bad_field"},
		{"POST", "/dlq/replay", `{"rate":-1}`, nil, 400, "bad_field"},
		{"POST", "/dlq/replay", `{"entries":["x"]}`, nil, 400, "bad_field"},
		{"POST", "/dlq/replay", `{"entries":["7:99"],"dry_run":false}`, nil, 404, "not_found"},
		{"POST", "/dlq/drop", `{"entries":[],"dry_run":false}`, nil, 400, "bad_field"}, // a client's empty list is not all
		{"POST", "/dlq/drop", `{"reasons":[],"dry_run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"workspace_id":"","dry_run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"entries":null,"dry_run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `{"workspace_id": null ,"dry_run":false}`, nil, 400, "bad_field"},
		{"POST", "/dlq/drop", `null`, nil, 400, "bad_field"},
		{"GET", "/dlq?workspace_id=", "", nil, 400, "bad_field"},
		{"GET", "/dlq?each=true&cursor=0:99", "", nil, 400, "bad_cursor"},
		{"GET", "/dlq?each=1", "", nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{}`, nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{"action":"delete"}`, nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{"action":"drop","entries":[]}`, nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{"action":"drop","rate":-1}`, nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{"action":"drop","x":1}`, nil, 400, "bad_field"},
		{"POST", "/dlq/jobs", `{"action":"drop"}`, []string{"Content-Type", "text/plain"}, 415, "unsupported_media_type"},
		{"POST", "/dlq/jobs", `{"action":"drop"}`, nil, 503, "stopping"}, // Run does not run
		{"POST", "/dlq/replay", `{"action":"drop"}`, nil, 400, "bad_field"},
		{"GET", "/dlq/jobs?x=1", "", nil, 400, "bad_field"},
		{"GET", "/dlq/jobs/1", "", nil, 404, "unknown_job"},
		{"PUT", "/dlq/jobs", "{}", nil, 405, "method_not_allowed"},
		{"POST", "/dlq/jobs/1", "{}", nil, 405, "method_not_allowed"},
	} {
		if status, answer := ask(t, h, test.method, test.path, test.body, test.headers...); status != test.status ||
			answer["code"] != test.code || answer["detail"] == "" {
			t.Errorf("%s %s %s: %d %v", test.method, test.path, test.body, status, answer)
		} else if _, found := answer["result"]; found && test.method == "GET" {
			t.Errorf("%s %s: a result of nothing: %v", test.method, test.path, answer)
		}
	}

	// Nothing is done unless the body says so.
	for _, path := range []string{"/dlq/replay", "/dlq/drop"} {
		if status, answer := ask(t, h, "POST", path, `{"workspace_id":"w"}`); status != 200 || answer["dry_run"] != true || answer["done"] != 2.0 {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
	if status, answer := ask(t, h, "GET", "/dlq", ""); status != 200 || answer["entries"] != 3.0 {
		t.Errorf("after dry runs: %d %v", status, answer)
	}
	if status, answer := ask(t, h, "POST", "/dlq/replay", `{"dry_run":false,"rate":1000}`); status != 200 || answer["done"] != 2.0 || answer["left"] != 1.0 {
		t.Errorf("%d %v", status, answer)
	}
	b.await(t, b.s.Events, 2)
	if status, answer := ask(t, h, "POST", "/dlq/drop", `{"dry_run":false,"reasons":["not_json"]}`); status != 200 || answer["done"] != 1.0 {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := ask(t, h, "GET", "/dlq?resolved=true&each=true", ""); status != 200 ||
		answer["total"] != 3.0 ||
		strings.Count(fmt.Sprint(answer), "resolved:replayed") != 2 ||
		strings.Count(fmt.Sprint(answer), "resolved:dropped") != 1 {
		t.Errorf("%d %v", status, answer)
	}
	if status, answer := ask(t, h, "GET", "/dlq", ""); status != 200 || answer["entries"] != 0.0 {
		t.Errorf("%d %v", status, answer)
	}
}

func TestWithoutBrokers(t *testing.T) {
	b := newBench(t)
	h := deadletters.NewHandler(deadletters.New(kafka.Config{Brokers: []string{"127.0.0.1:1"}}, b.s), nil,
		slog.New(slog.DiscardHandler))
	if status, answer := ask(t, h, "GET", "/dlq", ""); status != 503 || answer["code"] != "brokers_away" {
		t.Errorf("%d %v", status, answer)
	}
}

func TestPagesOverHTTP(t *testing.T) {
	b := newBench(t)
	for i := range 5 {
		// later ones failed before
		b.put(t, b.dead(1, int64(5+i), "w", event(fmt.Sprint("e", i), "f", 1), "wrong_partition", 20-i))
	}
	b.put(t, b.dead(2, 7, "v", `no event`, "not_json", 18))
	h := deadletters.NewHandler(b.queue, nil, slog.New(slog.DiscardHandler))
	var listed []string
	for cursor, pages := "", 0; ; pages++ {
		status, answer := ask(t, h, "GET", "/dlq?each=true&limit=2"+cursor, "")
		if status != 200 || pages > 3 {
			t.Fatalf("page %d: %d %v", pages, status, answer)
		}
		if want := 6.0 - 3*min(1, float64(pages)); answer["total"] != want {
			t.Errorf("page %d: total %v, want %v", pages, answer["total"], want)
		}
		for _, e := range answer["entries"].([]any) {
			listed = append(listed, e.(map[string]any)["entry"].(string))
		}
		if answer["next_cursor"] == nil {
			break
		}
		cursor = "&cursor=" + answer["next_cursor"].(string)
		if pages == 0 { // both that were listed, and one that was not: no page may shift
			if status, answer := ask(t, h, "POST", "/dlq/drop", `{"dry_run":false,"entries":["2:7","1:5","1:7"]}`); status != 200 || answer["done"] != 3.0 {
				t.Fatalf("%d %v", status, answer)
			}
		}
	}
	if got := strings.Join(listed, " "); got != "2:7 1:5 1:6 1:8 1:9" {
		t.Errorf("listed %s", got)
	}
}

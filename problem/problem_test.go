package problem_test

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/problem"
)

func TestWrite(t *testing.T) {
	for name, c := range map[string]struct {
		p      *problem.Problem
		want   string
		header map[string]string
	}{
		"all of it": {
			problem.New(429, "rate_limited", "send <less>").On("workspace_id").With("Allow",
				"POST").Retry(1200 * time.Millisecond),
			`{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"send <less>","code":"rate_limited","field":"workspace_id"}`,
			map[string]string{"Allow": "POST", "Retry-After": "2"},
		},
		"retry is at least a second": {
			problem.New(503, "busy", "wait").Retry(0),
			`{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"wait","code":"busy"}`,
			map[string]string{"Retry-After": "1"},
		},
		"partial result": {
			problem.New(500, "internal", "failed").Partial([]int{1}),
			`{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"failed","code":"internal","result":[1]}`,
			nil,
		},
		"a result that cannot be encoded": {
			problem.New(500, "internal", "failed").Partial(math.Inf(1)),
			`{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"failed (its result cannot be shown: json: ` +
				`unsupported value: +Inf)","code":"internal"}`,
			nil,
		},
	} {
		w := httptest.NewRecorder()
		c.p.Write(w)
		if got := w.Body.String(); w.Code != c.p.Status || got != c.want+"\n" || !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: %d\n%s", name, w.Code, cmp.Diff(c.want+"\n", got))
		}
		for header, want := range c.header {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: %s is %q, want %q", name, header, got, want)
			}
		}
		if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: Content-Type %q", name, got)
		}
	}
}

package ingress

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		rate  float64
		burst int
		want  string
	}{
		{100, 200, `"workspace";q=200;w=2`},
		{0.5, 2, `"workspace";q=2;w=4`},
		{3, 10, `"workspace";q=10;w=4`}, // rounded so that nobody who keeps to it is refused
		{100, 1, `"workspace";q=100;w=1`},
		{1e-30, 1, `"workspace";q=1;w=999999999999999`},
	} {
		if got := policy(test.rate, test.burst); got != test.want {
			t.Errorf("%v a second, %d at once: %s, want %s", test.rate, test.burst, got, test.want)
		}
	}
}

// What the fields say is true: a sender that keeps to them is never refused, and one that does not is.
func TestRateLimitFields(t *testing.T) {
	t.Parallel()
	now := noon
	s, events := newTestServer(t, func(c *Config) {
		c.Rate, c.Burst = 2, 3
		c.Now = func() time.Time { return now }
	})
	says := func(h http.Header, want string) {
		t.Helper()
		if got := h.Get("RateLimit"); got != want {
			t.Errorf("RateLimit %s, want %s", got, want)
		}
		if got := h.Get("RateLimit-Policy"); got != `"workspace";q=3;w=2` {
			t.Errorf("RateLimit-Policy %s", got)
		}
	}
	for _, left := range []int{2, 1, 0} {
		w := serve(s, post(t, minimal))
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		says(w.Header(), fmt.Sprintf(`"workspace";r=%d;t=1`, left))
	}
	w := serve(s, post(t, minimal))
	refused(t, w, http.StatusTooManyRequests, "rate_limited", "")
	says(w.Header(), `"workspace";r=0;t=1`)
	if w.Header().Get("Retry-After") != "1" { // not before the end of the window that t tells of
		t.Errorf("Retry-After %s", w.Header().Get("Retry-After"))
	}
	now = now.Add(time.Second)
	says(serve(s, post(t, minimal)).Header(), `"workspace";r=1;t=1`)

	events.set(false, errClosed) // a refusal for another reason tells it as well
	w = serve(s, post(t, minimal))
	refused(t, w, http.StatusServiceUnavailable, "log_unavailable", "")
	says(w.Header(), `"workspace";r=0;t=1`)

	// A request without a valid signature learns nothing about the workspace.
	r := post(t, minimal)
	r.Header.Del("Fastio-Signature")
	for _, r := range []*http.Request{r, post(t, `{"workspace_id":"123"}`)} {
		w := serve(s, r)
		if h := w.Header(); w.Code < 400 || h.Get("RateLimit") != "" || h.Get("RateLimit-Policy") != "" {
			t.Errorf("%d %v", w.Code, h)
		}
	}
	unlimited, _ := newTestServer(t, nil)
	if h := serve(unlimited, post(t, minimal)).Header(); len(h["Ratelimit"])+len(h["Ratelimit-Policy"]) != 0 {
		t.Errorf("no limit is set, but the answer tells of one: %v", h)
	}
}

// A sender that waits for Retry-After is never refused, and sends at the allowed rate.
func TestObeyingTheFields(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, _ := newTestServer(t, func(c *Config) { c.Rate, c.Burst, c.Now = 5, 10, time.Now })
		begin, sent := time.Now(), 0
		for time.Since(begin) < time.Minute {
			w := serve(s, post(t, minimal))
			if w.Code != http.StatusOK {
				t.Fatalf("refused after %v and %d events: %s", time.Since(begin), sent, w.Header().Get("RateLimit"))
			}
			sent++
			_, rest, _ := strings.Cut(w.Header().Get("RateLimit"), ";r=")
			left, wait, _ := strings.Cut(rest, ";t=")
			if left != "0" {
				continue
			}
			seconds, err := strconv.Atoi(wait)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(seconds) * time.Second)
		}
		if sent < 5*60 {
			t.Errorf("%d events in a minute at 5 a second", sent)
		}
	})
}

// Requests overtake each other between the clock and the bucket: that gives nobody more tokens.
func TestABucketIsNotSetBack(t *testing.T) {
	t.Parallel()
	l := newLimiter(100, 10)
	begin, taken := time.Unix(1_800_000_000, 0), 0
	const millis = 1000
	for ms := range millis {
		for _, late := range []int{0, 20} {
			if l.take("w", begin.Add(time.Duration(ms-late)*time.Millisecond)).wait == 0 {
				taken++
			}
		}
	}
	if want := 10 + 100*millis/1000; taken > want {
		t.Errorf("%d tokens in a second, want %d", taken, want)
	}
}

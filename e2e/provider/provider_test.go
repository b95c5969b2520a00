package provider

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tidemark/e2e/gen"

	"golang.org/x/time/rate"
)

// A receiver that fails often must still get every event, in order, with a signature over the bytes it reads.
func TestRetriesUntilOKInOrder(t *testing.T) {
	h := gen.New(gen.Config{Seed: 3, Events: 800, Base: time.Unix(1_800_000_000, 0)})
	workspace := map[string]int{}
	for i, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			workspace[string(d.Body)] = i
		}
	}
	var mu sync.Mutex
	calls := 0
	got := make([][]string, len(h.Workspaces))
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		calls++
		switch {
		case r.Header.Get("Fastio-Signature") != Sign("s", body):
			w.WriteHeader(http.StatusUnauthorized)
		case calls%7 == 0:
			w.WriteHeader(http.StatusServiceUnavailable)
		case calls%11 == 0:
			panic(http.ErrAbortHandler) // the connection is reset
		default:
			ws := workspace[string(body)]
			got[ws] = append(got[ws], string(body))
			fmt.Fprintf(w, `{"position":"1:%d"}`, calls)
		}
	}))
	defer receiver.Close()

	s := Sender{
		URL: func() string { return receiver.URL }, Secret: "s", Pace: rate.NewLimiter(rate.Inf, 0),
		Timeout: time.Second, Client: receiver.Client(),
	}
	notes, err := s.Run(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range h.Workspaces {
		k := 0
		for n, d := range w.Deliveries {
			note := notes[i][n]
			if d.Forged {
				if note.Outcome == OK {
					t.Errorf("forged %s: %+v", d.EventID, note)
				}
				continue
			}
			if note.Outcome != OK || note.Position == "" || k >= len(got[i]) || got[i][k] != string(d.Body) {
				t.Fatalf("workspace %q: delivery %d (%s) is not the %d-th received", w.ID, n, d.EventID, k)
			}
			k++
		}
	}
	if s.Retries.Load() == 0 {
		t.Error("nothing was retried: the receiver did not fail")
	}
	if s.Resolved() != h.Deliveries() {
		t.Errorf("%d of %d deliveries resolved", s.Resolved(), h.Deliveries())
	}
}

// Told that it is enough, a sender finishes what it has begun, and its notes end there.
func TestEnoughEndsBetweenDeliveries(t *testing.T) {
	h := gen.New(gen.Config{Seed: 3, Events: 800, Base: time.Unix(1_800_000_000, 0)})
	var calls atomic.Int64
	s := Sender{
		Secret: "s", Pace: rate.NewLimiter(rate.Inf, 0), Timeout: time.Second, Even: true,
		Enough: make(chan struct{}),
	}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := calls.Add(1)
		if n == 100 {
			close(s.Enough)
		}
		fmt.Fprintf(w, `{"position":"1:%d"}`, n)
	}))
	defer receiver.Close()
	s.URL, s.Client = func() string { return receiver.URL }, receiver.Client()
	notes, err := s.Run(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	noted := 0
	for _, all := range notes {
		noted += len(all)
		for _, n := range all {
			if n.Outcome != OK {
				t.Errorf("%s was begun and not finished: %+v", n.EventID, n)
			}
		}
	}
	if noted != int(calls.Load()) || noted < 100 || noted > 100+len(h.Workspaces) {
		t.Errorf("%d noted of %d requests, it was enough after 100", noted, calls.Load())
	}
}

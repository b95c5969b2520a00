package sinks_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

// The sink of docs/new-sink.md on the loop: what its destination refuses is a dead letter, what it delays comes again,
// and all else once, in order.
func TestNewSink(t *testing.T) {
	b := newBench(t)
	b.put(t, 2, values(0, 10)...)
	var got inbox
	delayed := map[string]bool{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, err := io.ReadAll(r.Body)
		position := fmt.Sprintf("%s/2:%s", b.s.Index.Name, value[3:])
		switch again := delayed[string(value)]; { // one request at a time: one partition
		case err != nil || r.Header.Get("Idempotency-Key") != position:
			t.Errorf("key %q of %s, want %s: %v", r.Header.Get("Idempotency-Key"), value, position, err)
		case string(value) == "v003":
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, "no such field")
		case string(value) == "v005" && !again:
			delayed[string(value)] = true
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		case string(value) == "v007" && !again:
			delayed[string(value)] = true
			w.WriteHeader(http.StatusBadGateway)
		default:
			got.add(&sinks.Record{Value: value})
		}
	}))
	t.Cleanup(server.Close)
	sink := &poster{url: server.URL}
	stop := run(t, b.loop(t, sinks.Config{}, sink.Deliver).Run)
	b.records(t, 9, 1, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := append(values(0, 3), values(4, 10)...)
	if diff := cmp.Diff(want, got.all()); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	dead := []string{fmt.Sprintf("v003 %s@test sink_rejected %q", b.s.Index.Name,
		"422 Unprocessable Entity: no such field")}
	if diff := cmp.Diff(dead, b.dead(t)); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
	if len(delayed) != 2 {
		t.Errorf("delayed: %v", delayed)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// A diary notes what happened, in order.
type diary struct {
	mu      sync.Mutex
	entries []string
}

func (d *diary) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, what)
}

// patient runs until it is told to leave.
func (d *diary) patient(name string) service {
	return service{name: name, run: func(ctx context.Context) error {
		<-ctx.Done()
		d.note(name)
		return ctx.Err()
	}}
}

func TestServicesLeaveOneAfterTheOther(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := runServices(ctx, func() { d.note("drain") }, d.patient("http"), d.patient("files"), d.patient("views"))
	if want := []string{"drain", "http", "files", "views"}; err != nil || !slices.Equal(d.entries, want) {
		t.Errorf("%v, %v; want %v and no error", d.entries, err, want)
	}
}

func TestAFailureEndsTheOthersInOrder(t *testing.T) {
	broken := errors.New("broken")
	for _, end := range []error{broken, nil} {
		var d diary
		failing := service{name: "files", run: func(context.Context) error { return end }}
		err := runServices(t.Context(), func() { d.note("drain") }, d.patient("http"), failing, d.patient("views"))
		want := "files: broken"
		if end == nil {
			want = "files: ended unexpectedly"
		}
		if fmt.Sprint(err) != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if want := []string{"drain", "http", "views"}; !slices.Equal(d.entries, want) {
			t.Errorf("%v, want %v", d.entries, want)
		}
	}
}

func TestAFailureWhileDrainingIsReported(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	bad := service{name: "ingress", run: func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("event lost")
	}}
	if err := runServices(ctx, func() {}, bad); fmt.Sprint(err) != "ingress: event lost" {
		t.Errorf("error %v", err)
	}
}

// A load balancer takes a while to notice that an instance drains. Until then requests are answered, with Connection:
// close.
func TestRequestsAreAnsweredDuringTheDrainDelay(t *testing.T) {
	h, err := newHost(t.Context(), slog.New(slog.DiscardHandler), adminFlags{AdminAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	h.gate = newStartGate(func(context.Context) error { return nil }, h.log)
	h.readiness.Add("api", func() error { return nil })
	h.delay = 500 * time.Millisecond
	l, err := listen(t.Context(), "--api-addr", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	ctx, stop := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		left <- h.run(ctx, service{name: "api", run: func(ctx context.Context) error {
			return serveHTTP(ctx, l, httpServer(h.closeConnections(hello), h.log), h.log)
		}})
	}()
	ask := func(addr net.Addr, path string) (status int, closes bool) {
		resp, err := http.Get("http://" + addr.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.Close
	}
	if status, closes := ask(l.Addr(), "/"); status != http.StatusNoContent || closes {
		t.Errorf("before: %d, closes %t", status, closes)
	}
	stop()
	for status := 0; status != http.StatusServiceUnavailable; time.Sleep(time.Millisecond) {
		status, _ = ask(h.admin.Addr(), "/readyz")
	}
	if status, closes := ask(l.Addr(), "/"); status != http.StatusNoContent || !closes {
		t.Errorf("while draining: %d, closes %t", status, closes)
	}
	if err := <-left; err != nil {
		t.Error(err)
	}
	if resp, err := http.Get("http://" + l.Addr().String()); err == nil {
		resp.Body.Close()
		t.Error("answers after it has stopped")
	}
}

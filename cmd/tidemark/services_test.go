package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
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
			want = "files: ended although nobody stopped it"
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

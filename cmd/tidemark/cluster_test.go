package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestClusterWaitsForBrokersThatAreAway(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	c := newCluster(func(context.Context) error {
		if away.Load() {
			return context.DeadlineExceeded
		}
		return nil
	}, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(c.gate(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the role") })))
	defer server.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	begun := make(chan struct{})
	go c.then(func(context.Context) error { close(begun); return nil })(ctx)

	for c.Ready() == nil || !strings.Contains(c.Ready().Error(), "waiting for the brokers") {
		select {
		case <-begun:
			t.Fatal("a role began before the cluster was found fit")
		default:
		}
	}
	response, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" {
		t.Errorf("while waiting: %s, Retry-After %q", response.Status, response.Header.Get("Retry-After"))
	}

	away.Store(false)
	<-begun
	if err := c.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if response, err = http.Get(server.URL); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); string(body) != "the role" {
		t.Errorf("once fit: %q, %v", body, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestClusterRefusesWhatWaitingDoesNotMend(t *testing.T) {
	wrong := errors.New("topic fastio-events: partitions is 3, want 32")
	c := newCluster(func(context.Context) error { return wrong }, slog.New(slog.DiscardHandler))
	if err := c.run(t.Context()); !errors.Is(err, wrong) {
		t.Errorf("ended with %v, want %v", err, wrong)
	}
}

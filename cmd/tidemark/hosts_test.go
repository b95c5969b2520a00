package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/auth"
)

// Without tokens only known names are answered: any other may be that of a web site that has it resolve to this host.
func TestHostNames(t *testing.T) {
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	status := func(handler http.Handler, host string) (int, string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/status", nil)
		r.Host = host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	flags := hostFlags{AllowedHost: []string{"Tidemark.internal", "other.internal:8080"}}
	open := flags.allowHosts(nil, "node-1:8080", next, "serve-0:8080")
	for host, want := range map[string]int{
		"127.0.0.1:8080": 200, "127.0.0.1": 200, "[::1]:8080": 200, "[::1]": 200, "10.1.2.3:8080": 200,
		"[fe80::1%25eth0]:8080": 200, "localhost": 200, "LocalHost:8080": 200, "localhost.:8080": 200,
		"tidemark.internal": 200, "tidemark.internal:1": 200, "other.internal:9": 200, "node-1:8080": 200, "serve-0:8080": 200,
		"evil.example": 421, "evil.example:8080": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example:8080": 421,
		"evil.localhost": 421, "tidemark.internal.evil.example": 421, "a:b:c": 421, "x": 421,
	} {
		got, body := status(open, host)
		if got != want || got == 421 && !strings.Contains(body, "--allowed-host") {
			t.Errorf("%s: %d %s, want %d", host, got, body, want)
		}
	}
	guard := auth.NewGuard(auth.Closed("x"), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if got, _ := status(hostFlags{}.allowHosts(guard, "127.0.0.1:8080", next), "evil.example"); got != 200 {
		t.Errorf("with tokens: %d", got)
	}
}

// The dead letters are only for known names; probes and Prometheus use names of their own.
func TestHostNamesOfTheAdminAddress(t *testing.T) {
	h, err := newHost(context.Background(), slog.New(slog.DiscardHandler), adminFlags{AdminAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer h.admin.Close()
	h.dlq = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for path, want := range map[string]int{
		"/dlq": 421, "/dlq/replay": 421, "/healthz": 200, "/readyz": 200, "/metrics": 200,
	} {
		for host, want := range map[string]int{"evil.example": want, "localhost": 200} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = host
			w := httptest.NewRecorder()
			if h.adminHandler().ServeHTTP(w, r); w.Code != want {
				t.Errorf("%s of %s: %d, want %d", path, host, w.Code, want)
			}
		}
	}
}

// dev on IPv6: it counts as loopback, and what it prints can be pasted.
func TestDevOnIPv6(t *testing.T) {
	if l, err := listen(t.Context(), "--api-addr", "[::1]:0"); err != nil {
		t.Skipf("this host has no IPv6: %v", err)
	} else if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	d := startDev(t, data, "six", "--ingress-addr", "[::1]:0", "--api-addr", "[::1]:0", "--admin-addr", "[::1]:0",
		"--cors-origin", "http://[::1]:3000")
	for _, url := range []string{d.webhooks, d.api, d.admin} {
		if !strings.HasPrefix(url, "http://[::1]:") {
			t.Errorf("dev says %s", url)
		}
	}
	at := d.send(t, data, "--workspace", "ws", "--file", "f")
	if out := succeed(t, "get", "ws", "f", "--at-least", at, "--api-url", d.api); !strings.Contains(out, "active") {
		t.Errorf("get: %s", out)
	}
	if status, body := ask(t, "GET", d.admin+"/dlq", ""); status != 200 {
		t.Errorf("/dlq: %d %s", status, body)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.api+"/v1/workspaces/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "http://[::1]:3000")
	for host, want := range map[string]int{"": 200, "evil.example": 421} {
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want || want == 200 &&
			response.Header.Get("Access-Control-Allow-Origin") != "http://[::1]:3000" {
			t.Errorf("Host %q: %d %v", host, response.StatusCode, response.Header)
		}
	}
	d.stop(t)
}

package main

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidemark/devbroker"
	"tidemark/file"
	"tidemark/ingress"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The flag bounds the role's own listener.
func TestMaxConnectionsBoundsTheIngress(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	h, err := newHost(t.Context(), slog.New(slog.DiscardHandler), adminFlags{AdminAddr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	config := kafka.Config{Brokers: brokers}
	secrets, err := ingress.ParseSecrets(ingress.Scheme{}, "an-unbound-secret-of-32-bytes-xx")
	if err != nil {
		t.Fatal(err)
	}
	flags := ingestFlags{IngressAddr: "127.0.0.1:0", MaxConnections: 1}
	h.await(config, streams, streams.IngestRole())
	role, err := flags.ingress(t.Context(), h, ingress.Scheme{}, secrets)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() { left <- role.run(ctx) }()
	answered := func(within time.Duration) (net.Conn, bool) {
		conn, err := net.Dial("tcp", role.addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return conn, false
		}
		return conn, answer.Body.Close() == nil
	}
	first, ok := answered(10 * time.Second)
	if !ok {
		t.Fatal("the first connection was not answered")
	}
	second, ok := answered(200 * time.Millisecond)
	if ok {
		t.Error("a second connection was answered")
	}
	first.Close()
	second.Close()
	third, ok := answered(10 * time.Second)
	if !ok {
		t.Error("not answered when there is room")
	}
	third.Close()
	stop()
	if err := <-left; err != nil {
		t.Error(err)
	}
}

// What is wrong with an alias is said before anything is made, with the names that there are.
func TestBadAliasesAreUsageErrors(t *testing.T) {
	for _, role := range []string{"ingest", "dev"} {
		data := filepath.Join(t.TempDir(), "data")
		args := []string{
			role, "--brokers", "127.0.0.1:1", "--admin-addr", "127.0.0.1:0", "--event-aliases",
			"guide,x=y",
		}
		if role == "dev" {
			args = append(args, "--data", data)
		} else {
			t.Setenv(secretsVariable, unbound)
		}
		_, errs, code := tidemark(t, args...)
		if code != exitUsage || !strings.Contains(errs, "--event-aliases") ||
			!strings.Contains(errs, "workspace_storage_file_added") {
			t.Errorf("%s: exit %d\n%s", role, code, errs)
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("%s created its data directory", role)
		}
	}
}

// Every name that an alias may stand for has a meaning.
func TestAliasesStandForWhatHasAMeaning(t *testing.T) {
	for _, name := range ingress.KnownEvents() {
		if strings.Contains(name, "_file_") &&
			!file.Touches(&tidemarkv1.Event{Event: name, WorkspaceId: "w", EventId: "e", FileId: "f"}) {
			t.Errorf("%s has no meaning for a file", name)
		}
	}
}

func TestBadBoundsAreUsageErrors(t *testing.T) {
	t.Setenv(secretsVariable, "an-unbound-secret-of-32-bytes-xx")
	for _, flag := range []string{"--max-connections", "--max-in-flight", "--workspace-rate", "--workspace-burst"} {
		if _, errs, code := tidemark(t, "ingest", "--brokers", "127.0.0.1:1", "--admin-addr", "127.0.0.1:0",
			"--ingress-addr", "127.0.0.1:0", flag+"=-1"); code != exitUsage {
			t.Errorf("%s=-1: exit %d\n%s", flag, code, errs)
		}
	}
	for _, args := range [][]string{
		{"ingest", "--workspace-rate=NaN"}, {"replay", "--rate=Inf"}, {"replay", "--rate=-1"}, {"replay", "--group="}, {"dlq", "replay", "--rate=NaN"}, {"doctor", "--watch=0s"},
	} {
		if _, errs, code := tidemark(t, append(args, "--brokers", "127.0.0.1:1")...); code != exitUsage {
			t.Errorf("%q: exit %d\n%s", args, code, errs)
		}
	}
}

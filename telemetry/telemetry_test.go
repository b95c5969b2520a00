package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoggerWritesTheGivenFormat(t *testing.T) {
	for _, test := range []struct {
		format string
		want   string
	}{
		{"json", `{"level":"WARN","msg":"a message","topic":"t"}`},
		{"auto", `{"level":"WARN","msg":"a message","topic":"t"}`}, // a buffer is no terminal
		{"text", `level=WARN msg="a message" topic=t`},
	} {
		var buf bytes.Buffer
		log := NewLogger(&buf, test.format, slog.LevelWarn)
		log.Info("below the level")
		log.Warn("a message", "topic", "t")
		if got := withoutTime(buf.String()); got != test.want {
			t.Errorf("%s: got %q, want %q", test.format, got, test.want)
		}
	}
}

// withoutTime removes the time, with which a log line begins in both formats.
func withoutTime(line string) string {
	line = strings.TrimSpace(line)
	if rest, isJSON := strings.CutPrefix(line, `{"time":`); isJSON {
		_, rest, _ = strings.Cut(rest, ",")
		return "{" + rest
	}
	_, rest, _ := strings.Cut(line, " ")
	return rest
}

func TestReadyzNamesEveryCheckThatFails(t *testing.T) {
	notReady := errors.New("recovering 3 of 32 partitions")
	var readiness Readiness
	readiness.Add("ingress", func() error { return nil })
	readiness.Add("files", func() error { return notReady })
	registry := NewRegistry(ReadBuild())
	registry.MustRegister(&readiness)
	server := httptest.NewServer(AdminHandler(registry, &readiness))
	defer server.Close()

	check := func(wantStatus int, want map[string]any) {
		t.Helper()
		reasons, _ := want["reasons"].(map[string]any)
		_, metrics := get(t, server.URL+"/metrics")
		for _, name := range []string{"ingress", "files"} {
			ready := 1
			if reasons[name] != nil {
				ready = 0
			}
			if line := fmt.Sprintf("tidemark_ready{check=%q} %d\n", name, ready); !strings.Contains(metrics, line) {
				t.Errorf("/metrics has no %s", line)
			}
		}
		status, body := get(t, server.URL+"/readyz")
		var got map[string]any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("body %q: %v", body, err)
		}
		if diff := cmp.Diff(want, got); status != wantStatus || diff != "" {
			t.Errorf("status %d, want %d; body (-want +got):\n%s", status, wantStatus, diff)
		}
	}
	check(503, map[string]any{"ready": false, "reasons": map[string]any{"files": notReady.Error()}})
	notReady = nil
	check(200, map[string]any{"ready": true})
	readiness.Add("files", func() error { return errors.New("replaced") })
	check(503, map[string]any{"ready": false, "reasons": map[string]any{"files": "replaced"}})
	readiness.Drain()
	check(503, map[string]any{
		"ready":   false,
		"reasons": map[string]any{"files": errDraining.Error(), "ingress": errDraining.Error()},
	})

	if status, _ := get(t, server.URL+"/healthz"); status != 200 {
		t.Errorf("/healthz while draining: %d, want 200: a restart would not help", status)
	}
}

func TestMetricsShowBuildProcessAndRuntime(t *testing.T) {
	server := httptest.NewServer(AdminHandler(NewRegistry(Build{Version: "v1.2.3"}), &Readiness{}))
	defer server.Close()
	status, body := get(t, server.URL+"/metrics")
	if status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	for _, want := range []string{`version="v1.2.3"`, "tidemark_build_info{", "go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

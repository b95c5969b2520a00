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
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/doctor"
	"tidemark/topology"
)

func TestGateWaitsForUnreachableBrokers(t *testing.T) {
	var unreachable atomic.Bool
	unreachable.Store(true)
	c := newStartGate(func(context.Context) error {
		if unreachable.Load() {
			return context.DeadlineExceeded
		}
		return nil
	}, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(
		c.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "the role") })))
	defer server.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx) }()
	begun := make(chan struct{})
	go c.then(func(context.Context) error { close(begun); return nil })(ctx)

	for c.Ready() == nil || !strings.Contains(c.Ready().Error(), "waiting for the brokers") {
		select {
		case <-begun:
			t.Fatal("a role began before the gate opened")
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

	for target, want := range map[string]int{ // only streams: nobody may take an event for accepted
		"GET /v1/workspaces/w/changes": 200, "GET /v1/workspaces/w/notices": 200, "GET /v1/workspaces/w/files": 503,
		"POST /webhooks/changes": 503, "POST /v1/workspaces/w/changes": 503,
	} {
		method, path, _ := strings.Cut(target, " ")
		r, recorder := httptest.NewRequest(method, path, nil), httptest.NewRecorder()
		r.Header.Set("Accept", "text/event-stream")
		c.handler(nil).ServeHTTP(recorder, r)
		if recorder.Code != want || want == 200 && recorder.Body.String() != "retry: 2000\n\n" {
			t.Errorf("%s for an event stream: %d %s", target, recorder.Code, recorder.Body)
		}
	}

	unreachable.Store(false)
	<-begun
	if err := c.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if response, err = http.Get(server.URL); err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); string(body) != "the role" {
		t.Errorf("once open: %q, %v", body, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestGateFailsOnWrongTopics(t *testing.T) {
	wrong := errors.New("topic fastio-events: partitions is 3, want 32")
	c := newStartGate(func(context.Context) error { return wrong }, slog.New(slog.DiscardHandler))
	if err := c.run(t.Context()); !errors.Is(err, wrong) {
		t.Errorf("ended with %v, want %v", err, wrong)
	}
}

// Somebody adds partitions to a topic while all roles run, and then starts them again.
func TestRolesNameATopicWithMorePartitions(t *testing.T) {
	for name, roles := range map[string][]string{
		"events":      {"ingest", "process", "serve", "dev"},
		"files-table": {"process", "serve", "dev"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(secretsVariable, unbound)
			brokers := devbroker.ForTest(t)
			streams := streamsForTest(t, brokers)
			topic, _ := streams.Find(name)
			running := map[string]*runningRole{}
			for _, role := range roles {
				running[role] = startRole(t, role, brokers, streams)
			}
			for role, r := range running {
				if ready, said := r.becomes(t, http.StatusOK, ""); !ready {
					t.Fatalf("%s: %s\n%s", role, said, r.log.String())
				}
			}
			addPartitions(t, brokers, topic.Name, 8)
			want := "topic " + topic.Name + ": partitions is 8, want 3"
			for role, r := range running {
				if named, said := r.becomes(t, http.StatusServiceUnavailable, want); !named {
					t.Errorf("/readyz of %s does not say %q: %s", role, want, said)
				}
				for end := time.Now().Add(10 * time.Second); time.Now().Before(end) &&
					!strings.Contains(r.log.String(), want); {
					time.Sleep(100 * time.Millisecond) // the ingress asks by itself, too, and may hear of it first
				}
				if !strings.Contains(r.log.String(), want) {
					t.Errorf("the log of %s does not say %q:\n%s", role, want, r.log.String())
				}
				r.stop()
			}
			for _, role := range roles {
				r := startRole(t, role, brokers, streams)
				if code := <-r.code; code != exitFailed || !strings.Contains(r.log.String(), want) {
					t.Errorf("%s started again: exit %d\n%s", role, code, r.log.String())
				}
			}
			d := examine(t, exitFailed, strings.Join(brokers, ","), streams)
			d.says(t, "topics", doctor.Failure, want)
			d.advises(t, "topics", "tidemark topics repartition")
		})
	}
}

func addPartitions(t *testing.T, brokers []string, topic string, n int) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	answers, err := kadm.NewClient(client).UpdatePartitions(t.Context(), n, topic)
	if err != nil || answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
}

// A runningRole is a command in this process.
type runningRole struct {
	admin string
	log   *lockedBuffer
	code  chan int
	stop  func() // more than once does no harm
}

func startRole(t *testing.T, role string, brokers []string, streams topology.Streams) *runningRole {
	t.Helper()
	r := &runningRole{admin: freeAddr(t), log: &lockedBuffer{}, code: make(chan int, 1)}
	args := []string{
		role, "--brokers", strings.Join(brokers, ","), "--topic-prefix", prefixOf(streams), "--partitions", "3",
		"--replication", "1", "--min-insync", "1",
		"--admin-addr", r.admin,
	}
	if role == "ingest" || role == "dev" {
		args = append(args, "--ingress-addr", "127.0.0.1:0")
	}
	if role == "serve" || role == "dev" {
		args = append(args, "--api-addr", "127.0.0.1:0")
	}
	if role != "ingest" {
		args = append(args, "--data", t.TempDir())
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.code <- run(ctx, args, console{out: io.Discard, err: r.log})
	}()
	r.stop = func() { cancel(); <-ended }
	t.Cleanup(r.stop)
	return r
}

// becomes waits until readiness answers so, and returns what it said last.
func (r *runningRole) becomes(t *testing.T, status int, text string) (so bool, said string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		answer, err := http.Get("http://" + r.admin + "/readyz")
		if err != nil {
			said = err.Error()
			continue
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if said = string(body); err == nil && answer.StatusCode == status && strings.Contains(said, text) {
			return true, said
		}
	}
	return false, said
}

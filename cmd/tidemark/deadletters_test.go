package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/auth"
	"tidemark/deadletters"
	"tidemark/kafka"
)

// A jobClient uses /v1/dlq as an operator's script does.
type jobClient struct {
	api, token string
}

type jobAnswer struct {
	Job, State, Error, Code string
	Selected, Done          int
	Results                 []deadletters.Outcome
}

// send sends a request and returns the status, and the body into answer.
func (c *jobClient) send(t *testing.T, method, path, body string, answer any) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.api+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, answer); err != nil && response.StatusCode != http.StatusNoContent {
		t.Fatalf("%s %s: %s %s: %v", method, path, response.Status, data, err)
	}
	return response.StatusCode
}

// run starts a job and returns it once ok.
func (c *jobClient) run(t *testing.T, body string, ok func(jobAnswer) bool) (job jobAnswer) {
	t.Helper()
	if status := c.send(t, "POST", "/v1/dlq/jobs", body, &job); status != http.StatusAccepted {
		t.Fatalf("%s: %d %+v", body, status, job)
	}
	path := "/v1/dlq/jobs/" + job.Job
	for end := time.Now().Add(30 * time.Second); !ok(job); time.Sleep(20 * time.Millisecond) {
		if job = (jobAnswer{}); c.send(t, "GET", path, "", &job) != http.StatusOK || time.Now().After(end) {
			t.Fatalf("%s: %+v", body, job)
		}
	}
	return job
}

func hasEnded(job jobAnswer) bool { return job.State != "running" }

// awaitEntries waits until n dead letters are open.
func (c *jobClient) awaitEntries(t *testing.T, n int) {
	t.Helper()
	var list struct{ Entries int }
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if status := c.send(t, "GET", "/v1/dlq", "", &list); status == http.StatusOK && list.Entries == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d dead letters, want %d", list.Entries, n)
		}
	}
}

// misplace puts an event of each file into a partition that is not its workspace's, as a foreign producer may.
func misplace(t *testing.T, broker, topic string, files ...string) {
	t.Helper()
	client, err := kafka.NewProducer(kafka.Config{Brokers: []string{broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, file := range files {
		r := &kgo.Record{
			Topic: topic, Partition: (kafka.Partition("w", 4) + 1) % 4, Key: []byte("w"),
			Value: fmt.Appendf(nil, `{"event":"workspace_storage_file_added","event_id":"e-%[1]s","workspace_id":"w",`+
				`"object_id":%[1]q,"received_at":%[2]q}`, file, time.Now().UTC().Format(time.RFC3339)),
		}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// A dead letter is listed, tried and replayed over the query API, and its event is folded. SIGTERM during a replay
// loses nothing: the next process does the rest.
func TestReplayOverTheQueryAPI(t *testing.T) {
	admin, reader, data := auth.NewToken(), auth.NewToken(), t.TempDir()
	tokens := tokensFile(t, map[string]string{
		admin: `workspaces: ["*"], rights: [read, admin]`, reader: `workspaces: ["*"], rights: [read]`,
	})
	start := func() (*devProcess, *jobClient) {
		d := startDev(t, data, "redrive", "--auth", "tokens", "--tokens-file", tokens, "--log-level", "info",
			"--archive-url", "none")
		return d, &jobClient{d.api, admin}
	}
	d, c := start()
	misplace(t, d.brokers, "redrive-events", "f")
	c.awaitEntries(t, 1)
	for path, method := range map[string]string{"/v1/dlq": "GET", "/v1/dlq/1:0": "GET", "/v1/dlq/jobs": "POST"} {
		var refused jobAnswer
		if status := (&jobClient{d.api, reader}).send(t, method, path, `{"action":"drop"}`, &refused); status != 403 ||
			refused.Code != "missing_right" {
			t.Errorf("%s %s without the right: %d %+v", method, path, status, refused)
		}
	}
	trial := c.run(t, `{"action":"replay","reasons":["wrong_partition"]}`, hasEnded)
	if trial.State != "done" || len(trial.Results) != 1 || trial.Results[0].Result != "would_replay" {
		t.Fatalf("dry run: %+v", trial)
	}
	entry := trial.Results[0].Entry
	var shown struct {
		Entry  struct{ Reason string }
		Record struct{ Key string }
	}
	if status := c.send(t, "GET", "/v1/dlq/"+entry, "", &shown); status != 200 ||
		shown.Entry.Reason != "wrong_partition" || shown.Record.Key != "w" {
		t.Errorf("%s: %d %+v", entry, status, shown)
	}
	job := c.run(t, fmt.Sprintf(`{"action":"replay","entries":[%q],"dry_run":false}`, entry), hasEnded)
	if job.State != "done" || len(job.Results) != 1 || job.Results[0].Result != "replayed" {
		t.Fatalf("replay: %+v", job)
	}
	folded := func(file, position string) {
		t.Helper()
		var state struct{ Status string }
		path := "/v1/workspaces/w/files/" + file + "?wait=20s&at_least=" + position
		if status := c.send(t, "GET", path, "", &state); status != 200 || state.Status != "active" {
			t.Errorf("%s after its replay: %d %+v", file, status, state)
		}
	}
	folded("f", job.Results[0].ReplayedTo)
	c.awaitEntries(t, 0)

	files := []string{"a", "b", "c", "d", "e"}
	misplace(t, d.brokers, "redrive-events", files...)
	c.awaitEntries(t, len(files))
	slow := c.run(t, `{"action":"replay","dry_run":false,"rate":1}`, func(job jobAnswer) bool { return job.Done > 0 })
	d.stop(t)
	if log := d.log.String(); !strings.Contains(log, `"state":"canceled"`) || strings.Contains(log, admin) {
		t.Errorf("the log of the first process:\n%s", log)
	}
	d, c = start()
	var gone jobAnswer
	if status := c.send(t, "GET", "/v1/dlq/jobs/"+slow.Job, "", &gone); status != 404 || gone.Code != "unknown_job" {
		t.Errorf("a job of the process before: %d %+v", status, gone)
	}
	rest := c.run(t, `{"action":"replay","dry_run":false}`, hasEnded)
	if rest.State != "done" || rest.Done == 0 || rest.Done == len(files) {
		t.Errorf("the rest: %+v", rest)
	}
	for _, file := range files {
		folded(file, rest.Results[len(rest.Results)-1].ReplayedTo)
	}
	c.awaitEntries(t, 0)
	d.stop(t)
}

// The ACLs of serve-dead-letters are enough for it, those of serve are not. Without the flag nothing is served.
func TestTheACLsOfServeDeadLettersSuffice(t *testing.T) {
	streams, addr := guardedTopics(t)
	root := kafka.Config{
		Brokers: []string{addr}, SASL: kafka.SASLConfig{Mechanism: "PLAIN", User: "root", Password: "root"},
	}
	deadForTest(t, root, streams)
	client, err := kafka.NewProducer(root)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	rejected := &kgo.Record{
		Topic: streams.Index.Name, Partition: 1, Offset: 3, Key: []byte("w/f"), Value: []byte(`{"id":"w/f","version":1}`),
	}
	if err := client.ProduceSync(t.Context(), deadletters.NewRecord(streams.DLQ.Name, rejected, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Message: "shorten the path", Sink: "search",
	})).FirstErr(); err != nil {
		t.Fatal(err)
	}

	t.Setenv(passwordVariable, "serve")
	_, errs, code := tidemark(t, as("serve", addr, "serve", "--dead-letters", "--data", t.TempDir(), "--api-addr",
		"127.0.0.1:0", "--admin-addr", "127.0.0.1:0")...)
	if code != exitFailed || !strings.Contains(errs, "topic fastio-sink-retry: this user may not describe it") {
		t.Errorf("as serve: exit %d\n%s", code, errs)
	}
	begin := func(user string, flags ...string) (c *jobClient, end func()) {
		t.Helper()
		t.Setenv(passwordVariable, user)
		ctx, stop := context.WithCancel(t.Context())
		api, admin, left := freeAddr(t), freeAddr(t), make(chan int, 1)
		var log bytes.Buffer
		go func() {
			args := as(user, addr, "serve", "--data", t.TempDir(), "--api-addr", api, "--admin-addr", admin)
			left <- run(ctx, append(args, flags...), console{out: &log, err: &log})
		}()
		awaitReadyz(ctx, admin)
		return &jobClient{api: "http://" + api}, func() {
			stop()
			if code := <-left; code != exitOK {
				t.Errorf("exit %d\n%s", code, &log)
			}
		}
	}
	c, end := begin("serve-dead-letters", "--dead-letters")
	job := c.run(t, `{"action":"replay","dry_run":false}`, hasEnded)
	results := fmt.Sprint(job.Results)
	if job.State != "done" || job.Done != 3 || !strings.Contains(results, "1:5 replayed") ||
		!strings.Contains(results, "fastio-index/1:3@search replayed") || !strings.Contains(results, "1:6 skipped") {
		t.Errorf("%+v", job)
	}
	if job = c.run(t, `{"action":"drop","dry_run":false}`, hasEnded); job.State != "done" || job.Done != 1 {
		t.Errorf("%+v", job)
	}
	c.awaitEntries(t, 0)
	end()

	c, end = begin("serve")
	for method, path := range map[string]string{"GET": "/v1/dlq", "POST": "/v1/dlq/jobs", "DELETE": "/v1/dlq/jobs/x"} {
		var answer jobAnswer
		if status := c.send(t, method, path, "", &answer); status != 501 ||
			answer.Code != "dead_letters_not_configured" {
			t.Errorf("%s without --dead-letters: %d %+v", method, status, answer)
		}
	}
	end()
}

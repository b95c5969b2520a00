package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"
	"tidemark/kafka"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"
)

const token = "tmk_e2e-token-of-forty-characters-0123456789"

// An api is tidemark dev with tokens and some events, and what a client of its document needs.
type api struct {
	dir, url, webhooks        string
	document                  string // a file
	workspace, file, position string
	broker, entry, job        string // a dead letter, and a job of this instance
}

// TestOpenAPI: the document that the server has is true. schemathesis compares it with the answers, and clients that
// are generated from it work.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	a := startAPI(t)
	t.Run("schemathesis", func(t *testing.T) {
		defer a.sendOn(t)()
		begin := time.Now()
		out, err := a.schemathesis(t, a.document)
		t.Logf("%s\n%s", time.Since(begin).Round(time.Second), lastLines(out, 25))
		if err != nil {
			t.Errorf("schemathesis: %v\n%s", err, out)
		}
	})
	t.Run("a false document is found", func(t *testing.T) {
		for name, lie := range map[string][2]string{
			"response_schema_conformance":  {`"workspace_id": {` + "\n" + `      "type": "string"`, `"workspace_id": {"type": "integer"`},
			"status_code_conformance":      {`"404": {`, `"499": {`},
			"response_headers_conformance": {`"const": "no-cache"`, `"const": "no-store, private"`},
		} {
			data, err := os.ReadFile(a.document)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(data, []byte(lie[0])) {
				t.Fatalf("the document has no %s", lie[0])
			}
			path := filepath.Join(a.dir, name+".json")
			data = bytes.ReplaceAll(data, []byte(lie[0]), []byte(lie[1]))
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := a.schemathesis(t, path, "--checks", name, "--max-examples", "5", "--max-failures", "1",
				"--include-method", "GET", "--include-path-regex", "^/v1/workspaces/.workspace.$")
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 { //nolint:errorlint // as Run returns it
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	})
	t.Run("python client", func(t *testing.T) { a.pythonClient(t) })
	t.Run("go client", func(t *testing.T) { a.goClient(t) })
}

func startAPI(t *testing.T) *api {
	t.Helper()
	a := &api{dir: artifacts(t)}
	tokens := filepath.Join(a.dir, "tokens.yml")
	entry := fmt.Appendf(nil, `- {name: e2e, sha256: %x, workspaces: ["*"], rights: [read, admin]}`, sha256.Sum256([]byte(token)))
	if err := os.WriteFile(tokens, entry, 0o600); err != nil {
		t.Fatal(err)
	}
	ingress := rig.FreeAddr()
	a.broker = rig.FreeAddr()
	dev := rig.New(build(t), a.dir, "dev", "dev", "--partitions", "4", "--kafka-addr", a.broker, "--ingress-addr",
		ingress, "--archive-url", "none", "--auth", "tokens", "--tokens-file", tokens).Store().Listen("--api-addr")
	dev.Env = []string{"TIDEMARK_WEBHOOK_SECRETS=" + secret}
	t.Cleanup(dev.Close)
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.AwaitReady(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}
	a.url, a.webhooks = dev.URL, "http://"+ingress
	send(t, a.webhooks, plain(300))
	a.document = filepath.Join(a.dir, "openapi.json")
	if err := os.WriteFile(a.document, a.get(t, "/openapi.json"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.pick(t)
	a.deadLetters(t)
	return a
}

// deadLetters lets 30 events become dead letters, and starts a job that changes nothing.
func (a *api) deadLetters(t *testing.T) {
	t.Helper()
	client, err := kafka.NewProducer(kafka.Config{Brokers: []string{a.broker}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 30 {
		r := &kgo.Record{Topic: "fastio-events", Key: []byte("w"), Value: fmt.Appendf(nil, "no event %d", i)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = rig.Until(t.Context(), time.Minute, func() (bool, error) {
		var page struct {
			Entries []struct{ Entry string }
		}
		if err := json.Unmarshal(a.get(t, "/v1/dlq?each=true"), &page); err != nil || len(page.Entries) < 30 {
			return false, err
		}
		a.entry = page.Entries[0].Entry
		return true, nil
	})
	if err != nil {
		t.Fatalf("no dead letters: %v", err)
	}
	var job struct{ Job string }
	body := a.request(t, http.MethodPost, "/v1/dlq/jobs", `{"action":"replay"}`, http.StatusAccepted)
	if err := json.Unmarshal(body, &job); err != nil {
		t.Fatal(err)
	}
	a.job = job.Job
}

// pick chooses a workspace with several files, once their events are in the answers.
func (a *api) pick(t *testing.T) {
	t.Helper()
	_, err := rig.Until(t.Context(), time.Minute, func() (bool, error) {
		var list struct {
			Workspaces []struct {
				WorkspaceID string `json:"workspace_id"`
				Files       int
				Position    string
			}
		}
		if err := json.Unmarshal(a.get(t, "/v1/workspaces?limit=1000"), &list); err != nil {
			return false, err
		}
		for _, w := range list.Workspaces {
			if w.Files > 5 && !strings.ContainsAny(w.WorkspaceID, "/%. ") {
				a.workspace, a.position = w.WorkspaceID, w.Position
			}
		}
		return a.workspace != "", nil
	})
	if err != nil {
		t.Fatalf("no workspace has files: %v", err)
	}
	var page struct {
		Files []struct {
			FileID string `json:"file_id"`
		}
	}
	if err := json.Unmarshal(a.get(t, "/v1/workspaces/"+a.workspace+"/files?at_least="+a.position), &page); err != nil {
		t.Fatal(err)
	}
	a.file = page.Files[0].FileID
}

// sendOn sends events of the workspace, five a second, until the function that it returns is called.
func (a *api) sendOn(t *testing.T) (stop func()) {
	t.Helper()
	w := gen.Workspace{ID: a.workspace}
	for i := range 2000 {
		id := fmt.Sprintf("evt_on_%d", i)
		w.Deliveries = append(w.Deliveries, gen.Delivery{EventID: id, Body: fmt.Appendf(nil,
			`{"event":"workspace_storage_file_added","workspace_id":%q,"event_id":%q,"object_id":"on","name":"on.txt"}`,
			a.workspace, id)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &provider.Sender{
		URL: func() string { return a.webhooks }, Secret: secret, Pace: rate.NewLimiter(5, 1),
		Timeout: 10 * time.Second, Client: http.DefaultClient,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.Run(ctx, &gen.History{Workspaces: []gen.Workspace{w}}) // the test cancels it
	}()
	return func() {
		cancel()
		<-done
	}
}

func (a *api) get(t *testing.T, path string) []byte {
	t.Helper()
	return a.request(t, http.MethodGet, path, "", http.StatusOK)
}

func (a *api) request(t *testing.T, method, path, body string, status int) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != status {
		t.Fatalf("%s: %s %s, %v", path, response.Status, answer, err)
	}
	return answer
}

// environment is what the programs in testdata/openapi read.
func (a *api) environment() []string {
	return append(os.Environ(), "URL="+a.url, "TOKEN="+token, "WORKSPACE="+a.workspace, "FILE="+a.file,
		"POSITION="+a.position, "ENTRY="+a.entry, "JOB="+a.job, "PYTHONDONTWRITEBYTECODE=1", "HYPOTHESIS_STORAGE_DIRECTORY="+a.dir)
}

// schemathesis runs all checks on all operations, unless the flags say otherwise.
func (a *api) schemathesis(t *testing.T, document string, flags ...string) (string, error) {
	t.Helper()
	program := filepath.Join(filepath.Dir(python(t)), "schemathesis")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, append([]string{
		"--config-file", "schemathesis.toml", "run", document, "--url", a.url, "--no-color",
	}, flags...)...)
	cmd.Dir, cmd.Env = "testdata/openapi", a.environment()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pythonClient generates a client, and runs client.py with it.
func (a *api) pythonClient(t *testing.T) {
	t.Helper()
	interpreter := python(t)
	generate := exec.Command(filepath.Join(filepath.Dir(interpreter), "openapi-python-client"), "generate", "--meta",
		"none", "--path", a.document, "--output-path", filepath.Join(a.dir, "tidemark_client"), "--fail-on-warning")
	path := filepath.Dir(interpreter) + string(os.PathListSeparator) + os.Getenv("PATH") // it runs ruff
	generate.Env = append(os.Environ(), "PATH="+path)
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := exec.Command(interpreter, "testdata/openapi/client.py")
	run.Env = append(a.environment(), "PYTHONPATH="+a.dir)
	out, err := run.CombinedOutput()
	if err != nil {
		t.Errorf("client.py: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// goClient generates a client, and runs goclient with it.
func (a *api) goClient(t *testing.T) {
	t.Helper()
	generator, err := exec.LookPath("oapi-codegen")
	if err != nil {
		missing(t, "oapi-codegen, which `make generator` installs: %v", err)
	}
	dir := filepath.Join(a.dir, "goclient")
	if err := os.CopyFS(dir, os.DirFS("testdata/openapi/goclient")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "client"), 0o700); err != nil {
		t.Fatal(err)
	}
	generate := exec.Command(generator, "-config", "oapi-codegen.yml", a.document)
	run := exec.Command("go", "run", ".")
	run.Env = a.environment()
	for _, cmd := range []*exec.Cmd{generate, run} {
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
		t.Logf("%s", out)
	}
}

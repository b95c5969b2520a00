package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A devProcess is `tidemark dev` in a process of its own, on free ports.
type devProcess struct {
	cmd      *exec.Cmd
	said     string // stdout up to ready
	log      *lockedBuffer
	left     chan error
	webhooks string
	api      string
	admin    string
	brokers  string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startDev starts dev on a data directory and waits for the line ready. Given a cluster in KAFKA_BROKERS it runs on
// that.
func startDev(t *testing.T, data, prefix string, more ...string) *devProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"dev", "--data", data, "--topic-prefix", prefix, "--partitions", "4", "--kafka-addr", "127.0.0.1:0",
		"--ingress-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0",
	}
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		args = append(args, "--brokers", brokers)
	}
	d := &devProcess{cmd: exec.Command(self), log: &lockedBuffer{}, left: make(chan error, 1)}
	d.cmd.Args = append(append([]string{"tidemark"}, args...), more...)
	d.cmd.Stderr = d.log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.cmd.Process.Kill() })
	ready := make(chan string, 1)
	go func() {
		var said strings.Builder
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			fmt.Fprintln(&said, lines.Text())
			if lines.Text() == "ready" {
				ready <- said.String()
			}
		}
		d.left <- d.cmd.Wait()
	}()
	select {
	case d.said = <-ready:
	case err := <-d.left:
		t.Fatalf("dev left before it was ready: %v\n%s", err, d.log)
	case <-time.After(90 * time.Second):
		t.Fatalf("dev is not ready after 90 s\n%s", d.log)
	}
	d.webhooks, d.api = d.line(t, "Webhooks"), strings.TrimSuffix(d.line(t, "Query API"), "/v1/status")
	d.admin, d.brokers = strings.TrimSuffix(d.line(t, "Metrics"), "/metrics"), strings.Fields(d.line(t, "Kafka"))[0]
	return d
}

// line returns what dev said beside a name.
func (d *devProcess) line(t *testing.T, name string) string {
	t.Helper()
	found := regexp.MustCompile(`(?m)^` + name + ` +(.+)$`).FindStringSubmatch(d.said)
	if found == nil {
		t.Fatalf("dev did not say %s:\n%s", name, d.said)
	}
	return found[1]
}

// stop ends dev as a service manager does; draining must succeed.
func (d *devProcess) stop(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-d.left:
		if err != nil {
			t.Errorf("SIGTERM: %v, want exit 0\n%s", err, d.log)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("dev has not left 60 s after SIGTERM\n%s", d.log)
	}
}

// send posts an event with `tidemark send` and returns the position it was answered.
func (d *devProcess) send(t *testing.T, data string, args ...string) string {
	t.Helper()
	var answer struct{ Position string }
	out := succeed(t, append([]string{"send", "--data", data, "--url", d.webhooks, "--api-url", d.api, "-o", "json"},
		args...)...)
	if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Position == "" {
		t.Fatalf("send answered %s: %v", out, err)
	}
	return answer.Position
}

type fileState struct {
	Name     string
	Path     string
	Size     int
	Status   string
	Version  int
	Position string
}

func (d *devProcess) get(t *testing.T, workspace, file, atLeast string) (s fileState) {
	t.Helper()
	out := succeed(t, "get", workspace, file, "--api-url", d.api, "--at-least", atLeast, "--wait", "30s", "-o", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("get printed %s: %v", out, err)
	}
	return s
}

// The newcomer's path: start, send, get, ls, tail, stop; start again and find everything there.
func TestDev(t *testing.T) {
	data, prefix := t.TempDir(), fmt.Sprintf("cmd%08x", rand.Uint32())
	d := startDev(t, data, prefix)
	d.pasteExample(t)

	at := d.send(t, data, "--workspace", "w/1", "--file", "2abc", "--event-id", "e1", "--name", "q3.pdf", "--path",
		"/r/q3.pdf", "--size", "12")
	if got, want := d.get(t, "w/1", "2abc", at), (fileState{"q3.pdf", "/r/q3.pdf", 12, "active", 1, at}); got != want {
		t.Errorf("after added: %+v, want %+v", got, want)
	}
	added := at
	at = d.send(t, data, "--workspace", "w/1", "--file", "2abc", "--event-id", "e2", "--event",
		"workspace_storage_file_deleted")
	want := fileState{"q3.pdf", "/r/q3.pdf", 12, "trashed", 2, at}
	if got := d.get(t, "w/1", "2abc", at); got != want {
		t.Errorf("after deleted: %+v, want %+v", got, want)
	}
	if out := succeed(t, "ls", "w/1", "--api-url", d.api, "--status", "all"); !strings.Contains(out,
		"2abc  /r/q3.pdf  12") {
		t.Errorf("ls:\n%s", out)
	}
	d.checkPast(t, added, at)
	tail := func() string {
		return succeed(t, "tail", "notify", "--topic-prefix", prefix, "--brokers", d.brokers, "--from", "start",
			"--until-end", "-o", "json")
	}
	if out := tail(); strings.Count(out, "\n") != 3 { // the example's too
		t.Errorf("notices:\n%s", out)
	}
	if status, body := d.ask(t, d.admin+"/readyz"); status != 200 {
		t.Errorf("/readyz: %d %s", status, body)
	}
	if _, body := d.ask(t, d.admin+"/metrics"); !strings.Contains(body, "tidemark_build_info") {
		t.Errorf("/metrics lacks tidemark_build_info:\n%.500s", body)
	}
	secret := d.line(t, "Secret")
	d.stop(t)

	d = startDev(t, data, prefix)
	if again := d.line(t, "Secret"); again != secret {
		t.Errorf("secret %q after a restart, was %q", again, secret)
	}
	duplicate := d.send(t, data, "--workspace", "w/1", "--file", "2abc", "--event-id", "e1", "--name", "other.pdf")
	if got := d.get(t, "w/1", "2abc", duplicate); got != want {
		t.Errorf("after a restart and a resent event: %+v, want %+v", got, want)
	}
	if _, errs, code := tidemark(t, "get", "w/1", "nowhere", "--api-url", d.api, "--at-least",
		duplicate); code != exitFailed || !strings.Contains(errs, "404") {
		t.Errorf("a file never seen: exit %d, %s", code, errs)
	}
	if out := tail(); strings.Count(out, "\n") != 3 {
		t.Errorf("notices after a restart:\n%s", out)
	}
	d.checkPast(t, added, at)
	d.stop(t)
}

// pasteExample runs what dev printed to be pasted, in a shell as a newcomer does.
func (d *devProcess) pasteExample(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatalf("the printed example needs curl: %v", err)
	}
	lines := regexp.MustCompile(`(?m)^  (curl .+)$`).FindAllStringSubmatch(d.said, -1)
	if len(lines) != 2 {
		t.Fatalf("dev printed %d lines to paste, want 2:\n%s", len(lines), d.said)
	}
	paste := func(line string) string {
		out, err := exec.Command("sh", "-c", line).Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		return string(out)
	}
	var answer struct {
		ID       string `json:"event_id"`
		Position string
	}
	if out := paste(lines[0][1]); json.Unmarshal([]byte(out), &answer) != nil || answer.ID != exampleID {
		t.Fatalf("the example's webhook was answered %s", out)
	}
	if out := paste(lines[1][1]); !strings.Contains(out, `"name":"hello.txt"`) {
		t.Errorf("the example's query was answered %s", out)
	}
}

func (d *devProcess) ask(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestDevNamesTheFlagOfAPortInUse(t *testing.T) {
	_, taken := newSink(t)
	addr := strings.TrimPrefix(taken, "http://")
	for _, flag := range []string{"--kafka-addr", "--ingress-addr", "--api-addr", "--admin-addr"} {
		args := []string{
			"dev", "--data", t.TempDir(), "--kafka-addr", "127.0.0.1:0",
			"--ingress-addr", "127.0.0.1:0", "--api-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", flag, addr,
		}
		if _, errs, code := tidemark(t, args...); code != exitFailed || !strings.Contains(errs, flag+" "+addr) {
			t.Errorf("%s in use: exit %d, %s", flag, code, errs)
		}
	}
}

func TestTheSecondSignalEndsAtOnce(t *testing.T) {
	d := startDev(t, t.TempDir(), fmt.Sprintf("cmd%08x", rand.Uint32()))
	hung, err := http.NewRequest(http.MethodPost, d.webhooks, neverEnding{})
	if err != nil {
		t.Fatal(err)
	}
	go http.DefaultClient.Do(hung) // a request that draining waits for
	time.Sleep(300 * time.Millisecond)
	begin := time.Now()
	d.cmd.Process.Signal(syscall.SIGINT)
	for !strings.Contains(d.log.String(), "Ctrl-C again") {
		time.Sleep(10 * time.Millisecond)
	}
	d.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-d.left:
	case <-time.After(5 * time.Second):
		t.Fatal("still there 5 s after the second signal")
	}
	if waited := time.Since(begin); d.cmd.ProcessState.Success() {
		t.Errorf("left cleanly after %s: draining did not wait for the request, so this test shows nothing", waited)
	}
}

// neverEnding is a body that does not come.
type neverEnding struct{}

func (neverEnding) Read([]byte) (int, error) { time.Sleep(time.Hour); return 0, io.EOF }

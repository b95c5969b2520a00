package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"

	"golang.org/x/time/rate"
)

// missing skips a test that needs another language, and says so; in CI that is a failure.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s, and CI may not pass without it", why)
	}
	t.Skipf("NOT TESTED: %s", why)
}

// python returns an interpreter that has the clients of .ci/requirements.txt.
func python(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("../.ci/python")
	var why strings.Builder
	cmd.Stderr = &why
	out, err := cmd.Output()
	if err != nil {
		missing(t, "Python 3 with the clients of .ci/requirements.txt: %v\n%s", err, why.String())
	}
	return strings.TrimSpace(string(out))
}

// plain is a history for producers that know one shape only: the recipe reads workspace_id and event_id.
func plain(events int) *gen.History {
	h := gen.New(gen.Config{Seed: 11, Events: events, Base: time.Now().Truncate(time.Second)})
	for i := range h.Workspaces {
		w := &h.Workspaces[i]
		w.Deliveries = slices.DeleteFunc(w.Deliveries, func(d gen.Delivery) bool {
			var e struct {
				Event string `json:"event"`
				ID    string `json:"event_id"`
				Scope string `json:"workspace_id"`
			}
			return d.Refused || json.Unmarshal(d.Body, &e) != nil || e.Event == "" || e.ID == "" || e.Scope == ""
		})
	}
	h.Workspaces = slices.DeleteFunc(h.Workspaces, func(w gen.Workspace) bool { return len(w.Deliveries) == 0 })
	return h
}

// send posts a history at full speed.
func send(t *testing.T, url string, h *gen.History) {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	s := &provider.Sender{
		URL: func() string { return url }, Secret: secret, Pace: rate.NewLimiter(rate.Inf, 0),
		Timeout: 10 * time.Second,
		Client:  &http.Client{Transport: transport},
	}
	notes, err := s.Run(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range notes {
		for _, n := range notes[i] {
			if n.Outcome != provider.OK {
				t.Fatalf("%s: %d %s", n.EventID, n.Status, n.Answer)
			}
		}
	}
}

// settle drains and stops the processor, judges its outputs, and returns the model.
func (g *fixture) settle() *oracle.Model {
	g.t.Helper()
	g.drain(60*time.Second, true)
	g.term(g.process)
	r := &oracle.Report{Title: g.t.Name()}
	model := g.judge(oracle.Judge{Workspaces: true}, r)
	conclude(g.t, r)
	return model
}

// byIngress sends a history through our own ingress, for comparison with another producer.
func byIngress(t *testing.T, h *gen.History) (*fixture, *oracle.Model) {
	t.Helper()
	g := newFixture(t, 0)
	g.start(g.ingest, g.process)
	g.awaitReady(g.ingest)
	send(t, g.ingest.URL, h)
	return g, g.settle()
}

func TestRecipeConsumer(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	h := plain(300)
	g, _ := byIngress(t, h)
	begin := time.Now()
	out, err := exec.Command(interpreter, "recipe/consumer.py", g.brokers[0], g.topics.Events,
		g.prefix+"-recipe").Output()
	if err != nil {
		t.Fatalf("consumer.py: %v\n%s\n%s", err, out, stderrOf(err))
	}
	seen := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var line struct {
			Key, Event  string
			WorkspaceID string `json:"workspace_id"`
			EventID     string `json:"event_id"`
			ReceivedAt  string `json:"received_at"`
			Partition   string `json:"partition_key"`
		}
		raw := lines.Bytes()
		if err := json.Unmarshal(bytes.Replace(raw, []byte(`"partition":`), []byte(`"n":`), 1), &line); err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		if line.Event == "" || line.Key != line.WorkspaceID || line.Partition != line.WorkspaceID ||
			!strings.HasSuffix(line.ReceivedAt, "Z") {
			t.Errorf("not what the recipe reads: %s", raw)
		}
		seen[line.WorkspaceID+"\x00"+line.EventID]++
	}
	total := 0
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			total++
			if seen[w.ID+"\x00"+d.EventID] == 0 {
				t.Errorf("workspace %q: %s was not seen", w.ID, d.EventID)
			}
		}
	}
	t.Logf("%d deliveries, %d distinct events seen by kafka-python in %v", total, len(seen),
		time.Since(begin).Round(time.Millisecond))
}

func stderrOf(err error) []byte {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exit.Stderr
	}
	return nil
}

func TestRecipeFlaskProducer(t *testing.T) {
	t.Parallel()
	interpreter := python(t)
	h := plain(400)
	g := newFixture(t, 0)
	g.start(g.process)
	addr := rig.FreeAddr()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("recipe/producer.py")
	if err != nil {
		t.Fatal(err)
	}
	flask := &rig.Program{
		Name: "flask", Path: interpreter, Args: []string{script, g.brokers[0], g.topics.Events, port},
		Env: []string{"WEBHOOK_SECRET=" + secret}, Log: filepath.Join(g.dir, "flask.log"),
	}
	g.start(flask)
	t.Cleanup(flask.Close)
	_, err = rig.Until(t.Context(), 30*time.Second, func() (bool, error) {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return false, flask.Signal(0) // it must run
		}
		return true, conn.Close()
	})
	if err != nil {
		t.Fatalf("flask does not listen: %v\n%s", err, flask.Tail())
	}
	send(t, "http://"+addr, h)
	theirs := g.settle()
	_, ours := byIngress(t, h)
	sameState(t, ours, theirs)
}

// sameState compares the states of two producers' events, apart from positions and times of arrival.
func sameState(t *testing.T, ours, theirs *oracle.Model) {
	t.Helper()
	a, b := ours.States(), theirs.States()
	if len(a) == 0 || len(a) != len(b) {
		t.Errorf("%d files by our ingress, %d by the other producer", len(a), len(b))
	}
	for key, state := range a {
		if b[key] != state {
			t.Errorf("%s:\n ours   %s\n theirs %s", key, state, b[key])
		}
	}
	t.Logf("%d files are the same", len(a))
}

func TestRecipeJavaProducer(t *testing.T) {
	t.Parallel()
	needKafkaTools(t)
	h := plain(400)
	var lines bytes.Buffer
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			lines.WriteString(w.ID + "\t")
			if err := json.Compact(&lines, d.Body); err != nil { // the console producer reads lines
				t.Fatal(err)
			}
			lines.WriteByte('\n')
		}
	}
	g := newFixture(t, 0)
	g.start(g.process)
	java := console(g.brokers[0], g.topics.Events)
	java.Stdin = &lines
	if out, err := java.CombinedOutput(); err != nil {
		t.Fatalf("ConsoleProducer: %v\n%s", err, out)
	}
	theirs := g.settle()
	_, ours := byIngress(t, h)
	sameState(t, ours, theirs)
}

// needKafkaTools skips when there is no Java or no way to fetch Kafka's own tools.
func needKafkaTools(t *testing.T) {
	t.Helper()
	for _, name := range []string{"java", "bash"} {
		if _, err := exec.LookPath(name); err != nil {
			missing(t, "%s: %v", name, err)
		}
	}
	if out, err := exec.Command("../deploy/kafka/kafka.sh", "jars").CombinedOutput(); err != nil {
		missing(t, "Apache Kafka's jars: %v\n%s", err, out)
	}
}

// console is Kafka's console producer; it reads lines of key, tab, value.
func console(broker, topic string) *exec.Cmd {
	cmd := exec.Command("../deploy/kafka/kafka.sh", "tool", "org.apache.kafka.tools.ConsoleProducer", "--topic", topic,
		"--property", "parse.key=true", "--property", "key.separator=\t")
	cmd.Env = append(os.Environ(), "KAFKA_BROKERS="+broker, "JAVA_TOOL_OPTIONS=-Dfile.encoding=UTF-8")
	return cmd
}

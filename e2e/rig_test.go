package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tidemark/devbroker"
	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions = 8
	secret     = "e2e-secret-of-thirty-two-bytes-or-more"
)

// builds is where the programs of all tests are built, and the one that is released.
var builds struct {
	dir    string
	binary func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tidemark-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir = dir
	builds.binary = sync.OnceValues(func() (string, error) { return rig.Build(dir, "tidemark/cmd/tidemark") })
	code := m.Run()
	_ = os.RemoveAll(dir) // a folder in the temp folder; its loss or stay is no result
	os.Exit(code)
}

// build returns the path of the binary, which is built once.
func build(t *testing.T) string {
	t.Helper()
	path, err := builds.binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A fixture is a cluster behind a proxy, and the programs of one installation on it.
type fixture struct {
	t      *testing.T
	dir    string // logs and local stores
	prefix string
	topics oracle.Topics
	once   bool // the processors promise exactly_once

	brokers []string // direct, for the oracle
	proxy   *proxy.Proxy
	client  *kgo.Client

	ingest, process, serve *rig.Program

	starts func(*gen.History)     // called before traffic begins; may be nil
	saw    func(provider.Attempt) // called after each attempt of the traffic; may be nil
}

// newFixture has a cluster and topics ready, and starts no role. Writes to every topic but the events are
// acknowledged late: a crash meanwhile shows who commits or keeps what is not yet in the log.
func newFixture(t *testing.T, latency time.Duration) *fixture {
	t.Helper()
	name := fmt.Sprintf("e2e-%d-%d", os.Getpid(), time.Now().UnixNano()%1e9)
	f := &fixture{t: t, dir: artifacts(t), prefix: name, topics: oracle.TopicsOf(name), brokers: devbroker.ForTest(t)}
	var err error
	late := func(topic string) bool { return strings.HasPrefix(topic, name) && topic != f.topics.Events }
	if f.proxy, err = proxy.Start(proxy.Config{Brokers: f.brokers, Late: late, Latency: latency}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.proxy.Close)
	if f.client, err = rig.Client(f.brokers); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.client.Close)
	if err := rig.CreateTopics(t.Context(), build(t), f.flags()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a shared cluster outlives the test
		if err := rig.DeleteTopics(context.Background(), f.client, f.topics); err != nil {
			t.Logf("delete topics: %v", err)
		}
	})
	f.ingest = f.role("ingest", "ingest").Listen("--ingress-addr")
	f.process = f.role("process", "process").Store()
	f.serve = f.role("serve", "serve").Listen("--api-addr").Store()
	return f
}

// artifacts is where logs stay when the test fails, and are removed when it passes.
func artifacts(t *testing.T) string {
	t.Helper()
	name := "tidemark-" + strings.ReplaceAll(t.Name(), "/", "-") + "-"
	dir, err := os.MkdirTemp("", name) //nolint:usetesting // after a failure it stays
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs and stores are in %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// flags are what every command needs.
func (f *fixture) flags() []string {
	return []string{
		"--brokers", strings.Join(f.proxy.Addrs(), ","), "--topic-prefix", f.prefix,
		"--partitions", strconv.Itoa(partitions), "--replication", "1", "--min-insync", "1",
	}
}

// role is a process that ends with the test.
func (f *fixture) role(name, command string, flags ...string) *rig.Program {
	p := rig.New(build(f.t), f.dir, name, append(append([]string{command}, f.flags()...), flags...)...)
	p.Env = []string{"TIDEMARK_WEBHOOK_SECRETS=" + secret}
	f.t.Cleanup(p.Close)
	return p
}

// check fails the test when there is an error, with the end of the processor's log.
func (f *fixture) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%v\nthe processor's log:\n%s", err, f.process.Tail())
	}
}

// start starts programs.
func (f *fixture) start(programs ...*rig.Program) {
	f.t.Helper()
	for _, p := range programs {
		f.check(p.Start())
	}
}

// awaitReady waits until programs are ready.
func (f *fixture) awaitReady(programs ...*rig.Program) {
	f.t.Helper()
	for _, p := range programs {
		_, err := p.AwaitReady(f.t.Context(), time.Minute)
		f.check(err)
	}
}

// restart kills the processor, and starts it again.
func (f *fixture) restart() {
	f.t.Helper()
	f.check(f.process.Kill())
	f.start(f.process)
}

// drain waits until the groups have committed all records, and returns how long that took.
func (f *fixture) drain(limit time.Duration, workspaces bool) time.Duration {
	f.t.Helper()
	took, err := rig.Drain(f.t.Context(), f.client, f.prefix, limit, workspaces)
	f.check(err)
	return took
}

// term ends programs, which must drain within 30 s.
func (f *fixture) term(programs ...*rig.Program) {
	f.t.Helper()
	for _, p := range programs {
		_, err := p.Term(30 * time.Second)
		f.check(err)
	}
}

package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemark/e2e/oracle"
)

// TestZombie stops an owner in the middle of a transaction until its session and its transaction have expired and another
// instance has taken its partitions and done its work. The owner wakes with half a transaction in hand. A reader of committed
// records must see nothing of it, then or later, and no row that goes back.
func TestZombie(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for sessions to expire")
	}
	g := newRig(t, ackLatency)
	g.once = true
	g.process.args = append(g.process.args, "--guarantee", "exactly_once", "--instance-id", "first")
	second := g.another("second", "--guarantee", "exactly_once", "--instance-id", "second")
	g.ingest.start(t)
	g.process.start(t)
	g.awaitReady(g.ingest, g.ingestAdmin, 30*time.Second)
	g.awaitReady(g.process, g.procAdmin, 60*time.Second)

	release := g.proxy.Hold() // from here on no transaction gets past its records
	defer release()
	r := &oracle.Report{Title: "zombie"}
	time.AfterFunc(2*time.Second, func() { _ = g.process.cmd.Process.Signal(syscall.SIGSTOP) }) // looked for below
	sent := g.traffic(1500, plan{}, r)
	waitStopped(t, g.process)
	release()
	second.start(t)
	r.Fact("the second had done the first's work after, s", seconds(g.drain(120*time.Second, true)))
	r.Fact("restarts of the first before it woke", strings.Count(g.process.all(t), "it will be restarted"))

	if err := g.process.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for !strings.Contains(g.process.all(t), "it will be restarted") {
		if time.Since(begin) > time.Minute {
			t.Fatalf("the first did not notice that it was fenced\n%s", g.process.tail())
		}
		time.Sleep(50 * time.Millisecond)
	}
	r.Fact("the first noticed after, s", seconds(time.Since(begin)))
	for line := range strings.SplitSeq(g.process.all(t), "\n") {
		if strings.Contains(line, "it will be restarted") {
			r.Fact("it said", line)
		}
	}
	time.Sleep(2 * time.Second) // for whatever it might still write
	g.awaitReady(g.process, g.procAdmin, 60*time.Second)
	for _, p := range []*program{second, g.process, g.ingest} {
		if _, err := p.term(60 * time.Second); err != nil {
			t.Errorf("%s: %v\n%s", p.name, err, p.tail())
		}
	}
	g.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	conclude(t, r)
}

// another is a second instance of the processors, with a disk and an address of its own.
func (g *rig) another(name string, flags ...string) *program {
	p := &program{name: name, path: g.process.path, env: g.process.env, log: filepath.Join(g.dir, name+".log")}
	p.args = append(g.flags("process", "--data", g.data(name), "--admin-addr", freeAddr(g.t)), flags...)
	g.t.Cleanup(func() {
		if p.alive() {
			_ = p.kill() // it was alive: nothing to learn from the kill
		}
	})
	return p
}

// all returns the program's log.
func (p *program) all(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// waitStopped waits until the kernel says that the program is stopped.
func waitStopped(t *testing.T, p *program) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), "status"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(status), "State:\tT") {
			return
		}
	}
	t.Fatalf("%s was not stopped", p.name)
}

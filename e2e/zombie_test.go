package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// restarted is in the log line of a processor that failed.
const restarted = "it will be restarted"

// TestZombie stops an owner in the middle of a transaction until its session and its transaction have expired and
// another instance has taken its partitions and done its work. The owner wakes with half a transaction in memory. A
// read_committed consumer must see nothing of it, then or later, and no row that goes back.
func TestZombie(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for sessions to expire")
	}
	f := newFixture(t, ackLatency)
	f.once = true
	f.process.Args = append(f.process.Args, "--guarantee", "exactly_once", "--instance-id", "first")
	second := f.role("second", "process", "--guarantee", "exactly_once", "--instance-id", "second").Store()
	f.start(f.ingest, f.process)
	f.awaitReady(f.ingest, f.process)

	release := f.proxy.Hold() // from here on no transaction gets past its records
	defer release()
	r := &oracle.Report{Title: "zombie"}
	time.AfterFunc(2*time.Second, func() { _ = f.process.Signal(syscall.SIGSTOP) }) // see Until below
	sent := f.traffic(1500, plan{}, r)
	_, err := rig.Until(t.Context(), 10*time.Second, func() (bool, error) { return f.process.Usage().Stopped, nil })
	f.check(err)
	release()
	f.start(second)
	r.Fact("the second had done the first's work after, s", seconds(f.drain(120*time.Second, true)))
	log := func() string {
		data, err := os.ReadFile(f.process.Log)
		f.check(err)
		return string(data)
	}
	before := strings.Count(log(), restarted)
	r.Fact("restarts of the first before it woke", before)

	f.check(f.process.Signal(syscall.SIGCONT))
	fenced, err := rig.Until(t.Context(), time.Minute, func() (bool, error) {
		return strings.Count(log(), restarted) > before, nil
	})
	f.check(err)
	r.Fact("the first noticed that it was fenced after, s", seconds(fenced))
	for line := range strings.SplitSeq(log(), "\n") {
		if strings.Contains(line, restarted) {
			r.Fact("it said", line)
		}
	}
	time.Sleep(2 * time.Second) // for whatever it might still write
	f.awaitReady(f.process)
	for _, p := range []*rig.Program{second, f.process, f.ingest} {
		if _, err := p.Term(time.Minute); err != nil {
			t.Error(err)
		}
	}
	f.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	conclude(t, r)
}

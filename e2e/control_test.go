package e2e

import (
	"cmp"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"tidemark/e2e/oracle"
)

// TestControls runs the crash test's traffic and faults against programs that publish or commit wrongly, and wants each of
// them found guilty; then against the product, which must pass what they failed. A judge that never convicts proves nothing.
//
// Before each kill the acknowledgements of derived records are held back, for all of them alike: what such a program has
// committed or kept by then, though it is not in the log, is lost with it. Any slow broker does the same.
func TestControls(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts and kills processes for minutes")
	}
	for _, c := range []struct {
		mistake string
		guilty  []string // each must be found
	}{
		{"stock-group", []string{"notices missing", "rows wrong or missing"}},
		{"seen-return", []string{"notices missing"}},
		{"seen-redo", []string{"notices wrong"}},
		{"commit-early", []string{"notices missing"}},
		{"", nil},
	} {
		t.Run(cmp.Or(c.mistake, "product"), func(t *testing.T) {
			t.Parallel() // most of their time they wait
			r := runControl(t, c.mistake)
			t.Log("\n" + r.String())
			t.Log(r.JSON())
			if c.mistake == "" && r.Broken() > 0 {
				t.Errorf("the product has %d violations", r.Broken())
			}
			for _, what := range c.guilty {
				n := r.Count(what)
				if what == "rows wrong or missing" {
					n = r.Count("rows wrong") + r.Count("rows missing")
				}
				if n == 0 {
					t.Errorf("%s was not found guilty of %q: the crash test proves less than it says", c.mistake, what)
				}
			}
		})
	}
}

func runControl(t *testing.T, mistake string) *oracle.Report {
	t.Helper()
	events, p := 1200, plan{processor: 3, hold: 2500 * time.Millisecond, always: true}
	if *long {
		events, p.processor = 8000, 10
	}
	g := newRig(t, ackLatency)
	if mistake != "" {
		g.process.path = build(t, "tidemark/e2e/control")
		g.process.name = "control " + mistake
		g.process.args = []string{
			"-brokers", g.proxy.Addrs()[0], "-topic-prefix", g.prefix, "-partitions", fmt.Sprint(partitions),
			"-data", g.data("process"), "-mistake", mistake,
		}
		g.process.log = filepath.Join(g.dir, "control.log")
	}
	g.ingest.start(t)
	g.process.start(t)
	g.awaitReady(g.ingest, g.ingestAdmin, 30*time.Second)

	r := &oracle.Report{Title: "control: " + cmp.Or(mistake, "none, the product")}
	sent := g.traffic(events, p, r)
	r.Fact("drained after the last event, s", seconds(g.drain(120*time.Second, false)))
	if _, err := g.process.term(70 * time.Second); err != nil && mistake == "" {
		r.Violate("roles that do not leave when told", "%v", err)
	}
	g.judge(oracle.Judge{Sent: sent}, r)
	return r
}

package e2e

import (
	"cmp"
	"testing"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// TestControls runs the crash test's traffic and faults against mutants that publish or commit wrongly, and wants
// each of them found guilty; then against the product, which must pass. A judge that never finds a violation proves
// nothing.
//
// Before each kill the acknowledgements of derived records are held, for mutants and product alike: what a mutant has
// committed or stored by then without its being in the log is lost. A slow broker has the same effect.
func TestControls(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts and kills processes for minutes")
	}
	for _, c := range []struct {
		mutant string
		guilty []string // each must be found
	}{
		{"stock-group", []string{"notices missing", "rows wrong or missing"}},
		{"seen-return", []string{"notices missing"}},
		{"seen-redo", []string{"notices wrong"}},
		{"commit-early", []string{"notices missing"}},
		{"", nil},
	} {
		t.Run(cmp.Or(c.mutant, "product"), func(t *testing.T) {
			t.Parallel() // most of their time they wait
			r := runControl(t, c.mutant)
			t.Log("\n" + r.String())
			t.Log(r.JSON())
			if c.mutant == "" && r.Broken() > 0 {
				t.Errorf("the product has %d violations", r.Broken())
			}
			for _, what := range c.guilty {
				n := r.Count(what)
				if what == "rows wrong or missing" {
					n = r.Count("rows wrong") + r.Count("rows missing")
				}
				if n == 0 {
					t.Errorf("%s was not found guilty of %q: the crash test proves less than it says", c.mutant, what)
				}
			}
		})
	}
}

func runControl(t *testing.T, mutant string) *oracle.Report {
	t.Helper()
	events, p := 1200, plan{processor: 3, hold: 2500 * time.Millisecond, always: true}
	if *long {
		events, p.processor = 8000, 10
	}
	f := newFixture(t, ackLatency)
	if mutant != "" {
		path, err := rig.Mutants[mutant].Build(builds.dir)
		if err != nil {
			t.Fatal(err)
		}
		f.process.Path = path
	}
	f.process.Args = append(f.process.Args, "--instance-id", "control") // a restart gets its partitions at once
	f.start(f.ingest, f.process)
	f.awaitReady(f.ingest)

	r := &oracle.Report{Title: "control: " + cmp.Or(mutant, "none, the product")}
	sent := f.traffic(events, p, r)
	r.Fact("drained after the last event, s", seconds(f.drain(120*time.Second, false)))
	if _, err := f.process.Term(70 * time.Second); err != nil && mutant == "" {
		r.Violate("roles that do not drain after SIGTERM", "%v", err)
	}
	f.judge(oracle.Judge{Sent: sent}, r)
	return r
}

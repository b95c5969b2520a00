// Command faults injects faults into an installation under traffic, and judges all records and answers afterwards.
//
// It promises that the judged processes are the released binary's, on three Apache Kafka brokers with TLS, logins and
// ACLs, behind a proxy; that the plan of faults and the history follow from the seed; that a fault counts only when
// it hit under traffic; and that the judge is e2e/oracle, which shares no code with what it judges. It ends the
// processes that it started.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"
)

type options struct {
	seed     uint64
	events   int
	scale    float64
	short    bool
	enough   time.Duration
	base     int
	report   string
	rows     map[int]bool
	kinds    string
	product  bool
	controls bool
	control  string
	keep     bool

	guarantee epochs.Guarantee
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := faultsRun(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "faults: seed %d: %v\n", o.seed, err)
		os.Exit(1)
	}
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("faults", flag.ContinueOnError)
	flags.Uint64Var(&o.seed, "seed", 0, "seed of history and faults; 0 chooses one")
	flags.IntVar(&o.events, "events", 0, "events that are sent; 0 for the form's own number")
	flags.Float64Var(&o.scale, "scale", 1, "share of the long form's faults")
	flags.BoolVar(&o.short, "short", false, "the form that CI runs: 60,000 events, a dozen faults")
	flags.DurationVar(&o.enough, "enough", 0, "begin no more deliveries after this time, once all faults are done; 0 "+
		"for the form's own, which is to send all in the long one")
	flags.IntVar(&o.base, "base", 19090, "first port of the brokers")
	flags.StringVar(&o.report, "report", ".cache/faults", "folder for report.md and report.json")
	flags.BoolVar(&o.product, "product", true, "run the product; without it only the negative controls")
	flags.BoolVar(&o.controls, "controls", true, "run the negative controls too")
	flags.StringVar(&o.control, "control", "", "run only the negative controls whose name has this in it")
	flags.StringVar(&o.kinds, "faults", "", "do only the faults whose name has this in it; with -rows, of those rows")
	guarantee := flags.String("guarantee", string(epochs.AtLeastOnce),
		"what the processors promise: at_least_once or exactly_once")
	flags.BoolVar(&o.keep, "keep", false, "keep logs and stores of a run that passed too")
	rows := flags.String("rows", "", "rows of the matrix to do, separated by commas; all others are left out")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch o.guarantee = epochs.Guarantee(*guarantee); o.guarantee {
	case epochs.AtLeastOnce, epochs.ExactlyOnce:
	default:
		return o, fmt.Errorf("-guarantee is %q: want %s or %s", *guarantee, epochs.AtLeastOnce, epochs.ExactlyOnce)
	}
	o.rows = map[int]bool{}
	for _, text := range strings.FieldsFunc(*rows, func(r rune) bool { return r == ',' }) {
		n, err := strconv.Atoi(text)
		if err != nil {
			return o, fmt.Errorf("-rows: %w", err)
		}
		o.rows[n] = true
	}
	if !slices.ContainsFunc(negativeControls,
		func(n negativeControl) bool { return strings.Contains(n.name, o.control) }) {
		return o, fmt.Errorf("-control: there is none with %q in its name", o.control)
	}
	if o.product && len(plan(rand.New(rand.NewPCG(0, 0)), o)) == 0 {
		return o, errors.New("no fault is left: no fault matches -rows, -faults and -scale together")
	}
	if err := portsFree(o.base); err != nil {
		return o, err
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano())
	}
	if o.events == 0 {
		o.events = 2_000_000
		if o.short {
			o.events = 60_000
		}
	}
	if o.enough == 0 && o.short {
		o.enough = 200 * time.Second // or a slow machine would take hours
	}
	return o, nil
}

func logf(format string, args ...any) {
	fmt.Printf(time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func faultsRun(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "tidemark-faults-")
	if err != nil {
		return err
	}
	binary, err := rig.Build(dir, "tidemark/cmd/tidemark")
	if err != nil {
		return err
	}
	c := &cluster{
		script: "deploy/kafka/cluster.sh", state: filepath.Join(dir, "kafka"), base: o.base,
		// it is cleared at every compaction, and compactSoon causes many
		extra: "log.cleaner.dedupe.buffer.size=4194304",
	}
	logf("seed %d, %s, logs and stores in %s", o.seed, o.guarantee, dir)
	defer func() {
		keep := err != nil || o.keep // for a look at what failed
		if err = errors.Join(err, c.down(keep)); !keep && err == nil {
			err = os.RemoveAll(dir)
		}
	}()
	if err := c.up(); err != nil {
		return err
	}
	all := &report{Seed: o.seed, Guarantee: o.guarantee, Short: o.short, Began: time.Now()}
	if o.product {
		if err := mainRun(ctx, o, c, dir, binary, all); err != nil {
			return errors.Join(err, all.write(o.report))
		}
		if err := all.write(o.report); err != nil { // the controls may fail
			return err
		}
	}
	if o.controls {
		if err := runControls(ctx, o, c, dir, binary, all); err != nil {
			return errors.Join(err, all.write(o.report))
		}
	}
	if err := all.write(o.report); err != nil {
		return err
	}
	logf("report in %s", o.report)
	return all.verdict()
}

// mainRun injects faults into the product.
func mainRun(ctx context.Context, o options, c *cluster, dir, binary string, all *report) error {
	g, err := newInstallation(ctx, c, dir, "main", binary, o.guarantee)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.start(ctx); err != nil {
		return err
	}
	logf("all roles are ready")
	judged := &oracle.Report{Title: "product"}
	r := newRun(g, gen.Config{Seed: o.seed, Events: o.events, Spread: 400}, o)
	faults := plan(r.rnd, o)
	logf("%d deliveries, %d faults in about %.0f minutes", r.traffic.history.Deliveries(), len(faults),
		duration(faults, nil).Minutes())
	judged.Check("faults whose promise was not kept")
	judged.Check("faults left out")
	if r.followed, err = oracle.Follow(c.plain, g.topics.Files, partitions); err != nil {
		return err
	}
	err = r.sendDuring(ctx, func(ctx context.Context) error { return r.do(ctx, faults, judged) }, judged)
	all.Hits, all.Peak = r.hits, r.peak
	judged.Fact("brokers that ended by themselves", r.nodesEnded)
	if err != nil {
		return err
	}
	if complete := !o.short && o.scale >= 1 && len(o.rows) == 0 && o.kinds == ""; complete {
		judged.Check("aims not reached")
		for _, missing := range all.missing() {
			judged.Violate("aims not reached", "%s", missing)
		}
	}
	err = r.judge(ctx, true, judged)
	all.Product = judged
	return err
}

// sendDuring sends the history while inject runs.
func (r *run) sendDuring(ctx context.Context, inject func(context.Context) error, judged *oracle.Report) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	wrote := make(chan error, 1)
	weighing := make(chan struct{})
	go func() { wrote <- r.foreign.Run(writing, 100*time.Millisecond) }()
	go func() { defer close(weighing); r.watchMemory(writing) }()
	asking := newReader(r)
	go asking.run(writing)
	fresh := newFresh(r)
	go fresh.run(writing)
	go r.traffic.run(ctx)
	err := inject(ctx)
	if ctx.Err() == nil && err != nil { // what was sent until then is judged all the same
		logf("the faults end early: %v", err)
		judged.Violate("faults left out", "all from here on: %v", err)
		close(r.traffic.sender.Enough)
		err = r.startNodes()
	} else if err == nil && r.enough > 0 {
		select {
		case <-r.traffic.done:
		case <-time.After(time.Until(r.begin.Add(r.enough))):
			close(r.traffic.sender.Enough)
		}
	}
	if err != nil {
		cancel()
		<-r.traffic.done
		stopWriting()
		return errors.Join(err, <-wrote)
	}
	logf("no more faults; %d of %d deliveries are done", r.traffic.sender.Resolved(), r.traffic.history.Deliveries())
	<-r.traffic.done
	stopWriting()
	<-weighing
	asking.report(judged)
	fresh.report(judged)
	if err := errors.Join(r.traffic.err, <-wrote); err != nil {
		return err
	}
	gap, p50, p99 := r.traffic.sender.Figures()
	judged.Fact("deliveries done / made",
		fmt.Sprintf("%d / %d", r.traffic.sender.Resolved(), r.traffic.history.Deliveries()))
	judged.Fact("sent in, s", fmt.Sprintf("%.0f", time.Since(r.begin).Seconds()))
	judged.Fact("200s / attempts without one",
		fmt.Sprintf("%d / %d", r.traffic.sender.OK.Load(), r.traffic.sender.Retries.Load()))
	judged.Fact("time to a 200, p50 / p99, ms",
		fmt.Sprintf("%.1f / %.1f", float64(p50.Microseconds())/1000, float64(p99.Microseconds())/1000))
	judged.Fact("longest time without a 200, s", fmt.Sprintf("%.1f", gap.Seconds()))
	judged.Fact("records written by others, two thirds of them poison", len(r.foreign.Written))
	return nil
}

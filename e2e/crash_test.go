package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
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

var (
	long = flag.Bool("long", false, "run the crash test and its controls in their long form")
	seed = flag.Uint64("seed", 0, "seed of the crash test's history and faults; 0 chooses one")
	size = flag.Int("events", 0, "events of the crash test; 0 for the form's own number")
)

const ackLatency = 30 * time.Millisecond

// TestCrash sends a history while processor and ingress are killed, and judges all topics and answers. A processor
// with an instance id gets its partitions back at once; one without has to wait until the killed member's session has
// expired.
func TestCrash(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts and kills processes for a minute")
	}
	usual := plan{processor: 8, ingress: 3, wipe: true, hold: 1500 * time.Millisecond, foreign: true}
	if !*long {
		t.Run("instance", func(t *testing.T) {
			t.Parallel() // most of their time they wait
			crash(t, 4000, usual, "--instance-id", "e2e")
		})
		t.Run("exactly_once", func(t *testing.T) {
			t.Parallel()
			crash(t, 4000, usual, "--instance-id", "e2e", "--guarantee", "exactly_once")
		})
		return
	}
	usual.processor, usual.ingress, usual.hold = 13, 5, 2500*time.Millisecond
	t.Run("anonymous", func(t *testing.T) { crash(t, 20_000, usual) })
	usual.processor = 24
	t.Run("instance", func(t *testing.T) { crash(t, 20_000, usual, "--instance-id", "e2e") })
	t.Run("exactly_once",
		func(t *testing.T) { crash(t, 20_000, usual, "--instance-id", "e2e", "--guarantee", "exactly_once") })
}

func crash(t *testing.T, events int, p plan, flags ...string) {
	t.Helper()
	if *size > 0 {
		events = *size
	}
	f := newFixture(t, ackLatency)
	f.process.Args = append(f.process.Args, flags...)
	f.once = slices.Contains(flags, "exactly_once")
	f.start(f.ingest, f.process, f.serve)
	f.awaitReady(f.ingest, f.process)

	r := &oracle.Report{Title: strings.Join(append([]string{"crash test"}, flags...), " ")}
	sent := f.traffic(events, p, r)
	r.Fact("drained after the last event, s", seconds(f.drain(120*time.Second, true)))
	leave := func(role *rig.Program) {
		took, err := role.Term(30 * time.Second)
		if err != nil {
			r.Violate("roles that do not drain after SIGTERM", "%v", err)
		}
		r.Fact(role.Name+": left after SIGTERM, s", seconds(took))
	}
	leave(f.ingest)
	leave(f.process)
	model := f.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	if err := rig.JudgeView(t.Context(), f.serve, model, time.Minute, r); err != nil {
		t.Fatal(err)
	}
	leave(f.serve)
	conclude(t, r)
}

// judge compares all topics with the model of the events, which it returns.
func (f *fixture) judge(how oracle.Judge, r *oracle.Report) *oracle.Model {
	f.t.Helper()
	how.Brokers, how.Topics, how.Partitions, how.Once = f.brokers, f.topics, partitions, f.once
	model, err := how.Run(f.t.Context(), r)
	if err != nil {
		f.t.Fatal(err)
	}
	return model
}

// conclude prints the report and fails the test when anything is broken.
func conclude(t *testing.T, r *oracle.Report) {
	t.Helper()
	t.Log("\n" + r.String())
	t.Log(r.JSON())
	if n := r.Broken(); n > 0 {
		t.Errorf("%d violations", n)
	}
}

// traffic sends a history under chaos.
func (f *fixture) traffic(events int, p plan, r *oracle.Report) *oracle.Sent {
	f.t.Helper()
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	spread := 0
	if events > 100_000 {
		spread = 200 // see there: the hot workspace would limit the rate of all
	}
	h := gen.New(gen.Config{Seed: s, Events: events, Base: time.Now().Truncate(time.Second), Spread: spread})
	r.Fact("seed", s)
	r.Fact("broker", broker())
	r.Fact("events / deliveries", fmt.Sprintf("%d / %d", events, h.Deliveries()))

	pace := rate.NewLimiter(50, 20)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	sender := &provider.Sender{
		URL: func() string { return f.ingest.URL }, Secret: secret, Pace: pace, Timeout: 5 * time.Second,
		Client: &http.Client{Transport: transport}, Saw: f.saw,
	}
	if f.starts != nil {
		f.starts(h)
	}
	type sent struct {
		notes [][]provider.Note
		err   error
	}
	sending := make(chan sent, 1)
	begin := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	go func() {
		notes, err := sender.Run(ctx, h)
		sending <- sent{notes, err}
	}()
	others := rig.NewForeign(f.client, f.topics.Events, partitions, rand.New(rand.NewPCG(s, 2)))
	othersCtx, stopOthers := context.WithCancel(ctx)
	if !p.foreign {
		stopOthers()
	}
	wrote := make(chan error, 1)
	go func() { wrote <- others.Run(othersCtx, 150*time.Millisecond) }()

	c := &chaos{
		fixture: f, plan: p, rnd: rand.New(rand.NewPCG(s, 3)), sender: sender, pace: pace,
		total: h.Deliveries(),
	}
	during := c.run
	if p.during != nil {
		during = func(ctx context.Context) error {
			defer pace.SetLimit(rate.Inf)
			return p.during(ctx, pace)
		}
	}
	if err := during(ctx); err != nil {
		f.t.Fatalf("seed %d: %v", s, err)
	}
	done := <-sending
	stopOthers()
	if err := <-wrote; err != nil {
		f.t.Fatal(err)
	}
	if done.err != nil {
		f.t.Fatalf("seed %d: the senders gave up: %v\n%s", s, done.err, f.ingest.Tail())
	}
	gap, p50, p99 := sender.Figures()
	r.Fact("sent in, s", seconds(time.Since(begin)))
	r.Fact("200s / retries", fmt.Sprintf("%d / %d", sender.OK.Load(), sender.Retries.Load()))
	r.Fact("time to a 200, p50 / p99, ms", fmt.Sprintf("%.1f / %.1f", ms(p50), ms(p99)))
	r.Fact("longest time without a 200, s", seconds(gap))
	r.Fact("records written by others", len(others.Written))
	r.Fact("kills: processor / ingress", fmt.Sprintf("%d / %d", c.kills, c.ingressKills))
	r.Fact("kills with acknowledgements held", c.held)
	r.Fact("processor: restart to next notice, s", secondsOf(c.recovery))
	r.Fact("ingress: restart to next 200, s", secondsOf(c.ingressGap))
	for range c.withoutTraffic {
		r.Violate("kills without traffic", "see the log")
	}
	return &oracle.Sent{History: h, Notes: done.notes, Foreign: others.Written}
}

func broker() string {
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		return brokers
	}
	return "embedded"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f", d.Seconds()) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func secondsOf(all []time.Duration) string {
	out := ""
	for _, d := range all {
		out += seconds(d) + " "
	}
	return out
}

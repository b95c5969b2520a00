package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/time/rate"
)

// A fault is one kind of failure that is injected.
type fault struct {
	row  int // of the matrix
	name string
	// long and short are how often it hits in the two forms of a run.
	long, short int
	estimate    time.Duration // how long it takes, before that is known
	hit         func(ctx context.Context, r *run) (figures, error)
	allReplicas bool // it needs all replicas in sync and the preferred leaders
}

// figures are the measurements of a hit, by name with the unit.
type figures map[string]float64

// A hit is one injected fault; 200s came in the half second before it.
type hit struct {
	Row     int     `json:"row"`
	Fault   string  `json:"fault"`
	At      float64 `json:"at_s"`
	Took    float64 `json:"took_s"`
	Figures figures `json:"figures"`
}

// A run injects faults into one installation under traffic.
type run struct {
	*installation
	rnd     *rand.Rand
	traffic *traffic
	foreign *rig.Foreign
	// followed reads the files table as it is written; nil for a control.
	followed *oracle.Follower
	once     bool // judged by exactly_once: see oracle.Judge
	quick    bool
	enough   time.Duration // see options
	begin    time.Time
	hits     []hit
	peak     map[string]float64 // RSS in MB, by program

	starting   []<-chan error // nodes that are starting
	nodesEnded int            // nodes that ended by themselves
}

// newRun generates the traffic, and starts nothing.
func newRun(g *installation, history gen.Config, o options) *run {
	history.Base = time.Now().Truncate(time.Second)
	random := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(history.Seed, stream)) }
	return &run{
		installation: g, once: g.transactional(), rnd: random(3), traffic: newTraffic(gen.New(history), g.ingress),
		foreign: rig.NewForeign(g.client, g.topics.Events, partitions, random(2)),
		quick:   o.short, enough: o.enough, begin: time.Now(), peak: map[string]float64{},
	}
}

// plan shuffles the faults of a run: those of its form, or at least one of each kind that is selected by name or row.
// Those that need all replicas are spread among the others, so that a broker recovers during these.
func plan(rnd *rand.Rand, o options) (all []*fault) {
	var needReplicas []*fault
	for _, f := range faults(o.guarantee) {
		n := int(float64(f.long)*o.scale + 0.5)
		if o.short {
			n = f.short
		}
		if len(o.rows) > 0 || o.kinds != "" {
			if len(o.rows) > 0 && !o.rows[f.row] || !strings.Contains(f.name, o.kinds) {
				continue
			}
			n = max(n, 1)
		}
		for range n {
			if f.allReplicas {
				needReplicas = append(needReplicas, f)
			} else {
				all = append(all, f)
			}
		}
	}
	for _, some := range [][]*fault{all, needReplicas} {
		rnd.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	}
	for i, f := range needReplicas {
		all = slices.Insert(all, len(all)*(i+1)/(len(needReplicas)+1), f)
	}
	return all
}

// duration estimates how long faults take.
func duration(all []*fault, took map[string]time.Duration) (total time.Duration) {
	for _, f := range all {
		d, known := took[f.name]
		if !known {
			d = f.estimate
		}
		total += d + 400*time.Millisecond
	}
	return total
}

// do injects one fault after the other. A failed one is reported, and the next is injected once the installation is
// healthy again.
func (r *run) do(ctx context.Context, all []*fault, judged *oracle.Report) error {
	defer r.traffic.pace.SetLimit(rate.Inf)
	took := map[string]time.Duration{}
	var missed []string
	defer func() {
		if len(missed) > 0 {
			judged.Fact("faults that showed nothing", strings.Join(missed, "; "))
		}
		if len(missed) > len(all)/4 {
			judged.Violate("faults whose promise was not kept", "%d of %d showed nothing, which is too many",
				len(missed), len(all))
		}
	}()
	for i, f := range all {
		r.adapt(duration(all[i:], took))
		begin := time.Now()
		if err := r.awaitHealthy(ctx, f, 180*time.Second); err != nil {
			return fmt.Errorf("before fault %d of %d, %s: %w", i+1, len(all), f.name, err)
		}
		switch err := r.one(ctx, f); {
		case err == nil:
		case ctx.Err() != nil:
			return fmt.Errorf("fault %d of %d, %s: %w", i+1, len(all), f.name, err)
		case errors.Is(err, errSent) && !r.traffic.sending():
			left := len(all) - i
			logf("all is sent: %d faults are left out", left)
			if left > max(2, len(all)/50) {
				judged.Violate("faults left out", "%d of %d", left, len(all))
			}
			return r.startNodes()
		default:
			switch {
			case errors.Is(err, errMissed):
				missed = append(missed, fmt.Sprintf("%d, %s: %v", i+1, f.name, err))
			case !errors.Is(err, errSent):
				judged.Violate("faults whose promise was not kept", "%d, %s: %v", i+1, f.name, err)
			}
			logf("%3d/%d %s: %v", i+1, len(all), f.name, err)
			if err := r.startNodes(); err != nil {
				return err
			}
			continue
		}
		if last := time.Since(begin); took[f.name] == 0 {
			took[f.name] = last
		} else {
			took[f.name] = (3*took[f.name] + last) / 4
		}
		h := r.hits[len(r.hits)-1]
		logf("%3d/%d %-28s %5.1f s %v", i+1, len(all), f.name, time.Since(begin).Seconds(), h.Figures)
	}
	return r.awaitNodes()
}

// startNode starts a node in the background: see awaitNodes.
func (r *run) startNode(n int) {
	done := make(chan error, 1)
	r.starting = append(r.starting, done)
	go func() { done <- r.node("start", n) }()
}

func (r *run) awaitNodes() (err error) {
	for _, done := range r.starting {
		err = errors.Join(err, <-done)
	}
	r.starting = nil
	return err
}

// startNodes starts the nodes that a failed fault left down.
func (r *run) startNodes() error {
	err := r.awaitNodes()
	for n := 1; n <= nodes; n++ {
		err = errors.Join(err, r.node("start", n))
	}
	return err
}

// adapt sets the senders' rate so that the remaining deliveries last for the remaining faults, and a little longer.
func (r *run) adapt(need time.Duration) {
	need += 3 * time.Second
	deliveries := max(r.traffic.history.Deliveries()-r.traffic.sender.Resolved(), 1)
	r.traffic.pace.SetLimit(rate.Limit(max(20, 0.95*float64(deliveries)/need.Seconds())))
}

// one waits until traffic flows, and injects a fault.
func (r *run) one(ctx context.Context, f *fault) error {
	if err := rig.Sleep(ctx, r.upTo(300*time.Millisecond)); err != nil {
		return err
	}
	attempts, missed := 5, errMissed
	if r.quick {
		attempts = 2
	}
	for range attempts {
		if err := r.traffic.awaitTraffic(ctx, 30*time.Second); err != nil {
			return err
		}
		before := r.traffic.sender.OK.Load()
		if err := rig.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if r.traffic.sender.OK.Load() == before {
			continue
		}
		begin := time.Now()
		h := hit{Row: f.row, Fault: f.name, At: begin.Sub(r.begin).Seconds()}
		var err error
		h.Figures, err = f.hit(ctx, r)
		h.Took = time.Since(begin).Seconds()
		switch {
		case errors.Is(err, errMissed):
			missed = err
			continue
		case !errors.Is(err, errSent):
			r.hits = append(r.hits, h)
		}
		return err
	}
	return missed
}

// errMissed means that a fault found nothing to hit, or that its result proves nothing.
var errMissed = errors.New("there was nothing to hit")

// awaitHealthy waits until every role is ready and, for a fault that needs it, every partition has its replicas.
func (r *run) awaitHealthy(ctx context.Context, f *fault, limit time.Duration) error {
	if len(r.starting) == 0 {
		down, err := r.ended()
		if err != nil {
			return err
		}
		for _, n := range down { // or each further fault would be two at once
			logf("node %d had ended by itself: %s", n, filepath.Join(r.state, fmt.Sprint(n), "log"))
			r.nodesEnded++
			r.startNode(n)
		}
		if len(down) > 0 {
			if err := r.settle(ctx, limit); err != nil {
				return err
			}
		}
	}
	for _, p := range r.all() {
		if _, err := p.AwaitReady(ctx, limit); err != nil {
			return err
		}
	}
	if !f.allReplicas {
		return nil
	}
	return r.settle(ctx, limit)
}

// settle waits until all nodes run with all replicas in sync, and elects the preferred leaders.
func (r *run) settle(ctx context.Context, limit time.Duration) error {
	if err := errors.Join(r.awaitNodes(), r.replicated(ctx, limit)); err != nil {
		return err
	}
	return r.spreadLeaders(ctx)
}

// spreadLeaders elects the preferred leaders, so that every node leads partitions that a fault can hit.
func (r *run) spreadLeaders(ctx context.Context) error {
	_, err := r.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
	return err
}

// watchMemory records the largest RSS of each role until ctx ends.
func (r *run) watchMemory(ctx context.Context) {
	for rig.Sleep(ctx, 500*time.Millisecond) == nil {
		for _, p := range r.all() {
			r.peak[p.Name] = max(r.peak[p.Name], p.Usage().RSSMB)
		}
	}
}

func (r *run) upTo(d time.Duration) time.Duration { return time.Duration(r.rnd.Int64N(int64(d))) }

// between draws a duration; a quick run stays near the shortest.
func (r *run) between(from, to time.Duration) time.Duration {
	if r.quick {
		to = from + (to-from)/4
	}
	return from + r.upTo(max(to-from, 1))
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// longestStall measures the longest time in which a topic did not grow, until the returned function is called.
func (r *run) longestStall(ctx context.Context, topic string) (stop func() time.Duration) {
	ctx, cancel := context.WithCancel(ctx)
	longest := make(chan time.Duration, 1)
	go func() {
		var worst time.Duration
		last, since := rig.End(ctx, r.client, topic), time.Now()
		for rig.Sleep(ctx, 100*time.Millisecond) == nil {
			if end := rig.End(ctx, r.client, topic); end > last {
				worst = max(worst, time.Since(since))
				last, since = end, time.Now()
			}
		}
		longest <- max(worst, time.Since(since))
	}()
	return func() time.Duration {
		cancel()
		return <-longest
	}
}

func round(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// ledBy returns the events partitions with traffic that a node leads; without any the fault is missed.
func (r *run) ledBy(ctx context.Context, node int) (led []int32, err error) {
	leaders, err := r.leaders(ctx, r.topics.Events)
	for _, p := range r.traffic.busyPartitions() {
		if leaders[p] == node {
			led = append(led, p)
		}
	}
	if err == nil && len(led) == 0 {
		err = errMissed
	}
	return led, err
}

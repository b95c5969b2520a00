package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"tidemark/e2e/rig"
)

const (
	benchSecret = "a secret of the bench that is long enough"
	webhook     = "/webhook/fastio"
)

// ingress starts an ingress, and waits until it is ready.
func (i *installation) ingress(ctx context.Context, name string, flags ...string) (*rig.Program, error) {
	command := slices.Concat([]string{"ingest"}, i.flags(), flags)
	p := rig.New(i.binary, i.dir, name, command...).Listen("--ingress-addr")
	p.Env = []string{"TIDEMARK_WEBHOOK_SECRETS=" + benchSecret}
	if err := p.Start(); err != nil {
		return nil, err
	}
	_, err := p.AwaitReady(ctx, patience)
	return p, err
}

// An ingressRun is one run of the ingress, or of the same server without Kafka: first as many webhooks as are answered,
// then half of the ingress's rate. At equal rates the CPU of both can be compared: the more a server is idle, the more
// each request costs.
type ingressRun struct {
	Kafka     bool    `json:"kafka"`
	Accepted  int     `json:"accepted"`
	Refused   int     `json:"refused"` // at either rate
	PerS      float64 `json:"per_s"`
	CPUus     float64 `json:"cpu_us_each"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	HalfPerS  float64 `json:"half_per_s"`
	HalfCPUus float64 `json:"half_cpu_us_each"`
	HalfP50   float64 `json:"half_p50_ms"`
	HalfP99   float64 `json:"half_p99_ms"`
	PeakRSSMB float64 `json:"peak_rss_mb"`
}

// ingress measures the ingress and the same server without Kafka by turns, and returns medians.
func ingress(ctx context.Context, s setup) (result, error) {
	var runs []ingressRun
	for range s.reps {
		pair, err := ingressPair(ctx, s)
		if err != nil {
			return nil, err
		}
		runs = append(runs, pair...)
	}
	of := func(kafka bool, figure func(ingressRun) float64) float64 {
		var all []float64
		for _, run := range runs {
			if run.Kafka == kafka {
				all = append(all, figure(run))
			}
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	perS := func(r ingressRun) float64 { return r.PerS }
	cpu := func(r ingressRun) float64 { return r.CPUus }
	halfCPU := func(r ingressRun) float64 { return r.HalfCPUus }
	return result{
		"measured": "ingress", "connections": s.connections, "runs": runs,
		"per_s": of(true, perS), "cpu_us_each": of(true, cpu), "half_cpu_us_each": of(true, halfCPU),
		"p99_ms":      of(true, func(r ingressRun) float64 { return r.P99 }),
		"half_p99_ms": of(true, func(r ingressRun) float64 { return r.HalfP99 }),
		"without_kafka": result{
			"per_s": of(false, perS), "cpu_us_each": of(false, cpu), "half_cpu_us_each": of(false, halfCPU),
		},
		"rate_ratio":     per(of(true, perS), of(false, perS)),
		"cpu_ratio":      per(of(false, cpu), of(true, cpu)), // each at its own maximum
		"half_cpu_ratio": per(of(false, halfCPU), of(true, halfCPU)),
	}, nil
}

// ingressPair runs the ingress, then the same server without Kafka.
func ingressPair(ctx context.Context, s setup) ([]ingressRun, error) {
	s.events = 0
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	path, err := rig.Build(s.dir, "tidemark/bench/peers/nokafka")
	if err != nil {
		return nil, err
	}
	without := rig.New(path, s.dir, "without-kafka", "--partitions", fmt.Sprint(s.partitions)).Listen("--ingress-addr")
	without.Env = []string{"TIDEMARK_WEBHOOK_SECRETS=" + benchSecret}
	with, err := i.ingress(ctx, "ingest")
	if err != nil {
		return nil, err
	}
	defer with.Close()
	first, err := webhooks(ctx, s, with, 0)
	if err != nil {
		return nil, err
	}
	first.Kafka = true
	if err := without.Start(); err != nil {
		return nil, err
	}
	defer without.Close()
	if _, err := without.AwaitReady(ctx, patience); err != nil {
		return nil, err
	}
	second, err := webhooks(ctx, s, without, first.PerS/2)
	if err != nil {
		return nil, err
	}
	return []ingressRun{first, second}, i.close(ctx)
}

// webhooks sends signed webhooks over keep-alive connections, each waiting for its 200, as the provider does. It stops
// the program. half is the second rate; 0: half of the first.
func webhooks(ctx context.Context, s setup, p *rig.Program, half float64) (ingressRun, error) {
	var mu sync.Mutex
	in := newInput(s)
	load := &crowd{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: s.connections}},
		to:     []*rig.Program{p}, outstanding: s.connections,
		body: func(int64) []byte {
			mu.Lock()
			defer mu.Unlock()
			e, _ := in.next()
			return e.value
		},
	}
	var run ingressRun
	measure := func() (took []time.Duration, perS, cpuUs float64) {
		begin, before := time.Now(), p.Usage()
		t := load.run(ctx, time.Duration(s.seconds)*time.Second)
		seconds, used := time.Since(begin).Seconds(), p.Usage()
		for code, of := range t.took {
			if code != "200" {
				run.Refused += len(of)
			}
		}
		took, run.PeakRSSMB = t.took["200"], used.PeakMB
		n := float64(len(took))
		return took, per(n, seconds), per(float64((used.CPU - before.CPU).Microseconds()), n)
	}
	load.run(ctx, 2*time.Second) // warm up
	var took []time.Duration
	took, run.PerS, run.CPUus = measure()
	if len(took) == 0 {
		return run, fmt.Errorf("no webhook was accepted, %d refused: see %s", run.Refused, p.Log)
	}
	run.Accepted, run.P50, run.P99 = len(took), quantile(took, 0.50), quantile(took, 0.99)
	load.rate, load.outstanding = max(1, int(cmp.Or(half, run.PerS/2))), 8*s.connections
	took, run.HalfPerS, run.HalfCPUus = measure()
	run.HalfP50, run.HalfP99 = quantile(took, 0.50), quantile(took, 0.99)
	load.client.CloseIdleConnections() // a server that stops would wait for those that were never used
	return run, stop(p)
}

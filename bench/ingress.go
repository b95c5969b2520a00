package main

import (
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

// ingress sends signed webhooks over keep-alive connections, each waiting for its 200, as the provider's senders do.
func ingress(ctx context.Context, s setup) (result, error) {
	s.events = 0
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	p, err := i.ingress(ctx, "ingest")
	if err != nil {
		return nil, err
	}
	defer p.Close()
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
	load.run(ctx, 2*time.Second) // warm up
	begin, before := time.Now(), p.Usage()
	t := load.run(ctx, time.Duration(s.seconds)*time.Second)
	seconds, used := time.Since(begin).Seconds(), p.Usage()
	if err := stop(p); err != nil {
		return nil, err
	}
	took, refused := t.took["200"], 0
	for code, of := range t.took {
		if code != "200" {
			refused += len(of)
		}
	}
	if len(took) == 0 {
		return nil, fmt.Errorf("no webhook was accepted, %d refused: see %s", refused, p.Log)
	}
	n := float64(len(took))
	return result{
		"measured": "ingress", "connections": s.connections, "accepted": len(took), "refused": refused,
		"per_s": per(n, seconds), "cpu_us_each": per(float64((used.CPU - before.CPU).Microseconds()), n),
		"peak_rss_mb": int(used.PeakMB),
		"p50_ms":      quantile(took, 0.50), "p99_ms": quantile(took, 0.99),
	}, i.close(ctx)
}

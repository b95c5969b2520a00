package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

const benchSecret = "a secret of the bench that is long enough"

// ingress sends signed webhooks over keep-alive connections, each waiting for its 200, as the provider's senders do.
func ingress(ctx context.Context, s setup) (result, error) {
	s.events = 0
	c, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	if err := os.Setenv("TIDEMARK_WEBHOOK_SECRETS", benchSecret); err != nil {
		return nil, err
	}
	p, err := s.start(ctx, c, "ingest", "--ingress-addr", addr)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	if err := await(ctx, p.ready); err != nil {
		return nil, err
	}
	load := &load{
		url: "http://" + addr + "/webhook/fastio", in: newInput(s),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: s.connections}},
	}
	load.run(ctx, s.connections, 2*time.Second) // warm up
	load.took, load.refused = nil, 0
	before := p.usage()
	begin := time.Now()
	load.run(ctx, s.connections, time.Duration(s.seconds)*time.Second)
	seconds, used := time.Since(begin).Seconds(), p.usage().minus(before)
	if err := p.stop(); err != nil {
		return nil, err
	}
	slices.Sort(load.took)
	n := float64(len(load.took))
	if n == 0 {
		return nil, fmt.Errorf("no webhook was accepted, %d refused: see %s", load.refused, p.log)
	}
	return result{
		"measured": "ingress", "connections": s.connections, "accepted": len(load.took), "refused": load.refused,
		"per_s": per(n, seconds), "cpu_us_each": per(float64(used.cpu.Microseconds()), n), "peak_rss_mb": used.peakMB,
		"p50_ms": load.quantile(0.50), "p99_ms": load.quantile(0.99),
	}, c.close(ctx)
}

type load struct {
	url    string
	client *http.Client

	mu      sync.Mutex
	in      *input
	took    []time.Duration // of those answered 200
	refused int
}

func (l *load) run(ctx context.Context, connections int, howLong time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, howLong)
	defer cancel()
	var senders sync.WaitGroup
	for range connections {
		senders.Go(func() {
			for ctx.Err() == nil {
				l.send(ctx)
			}
		})
	}
	senders.Wait()
}

func (l *load) send(ctx context.Context) {
	l.mu.Lock()
	e, _ := l.in.next()
	l.mu.Unlock()
	mac := hmac.New(sha256.New, []byte(benchSecret))
	mac.Write(e.value)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(e.value))
	if err != nil {
		return
	}
	request.Header.Set("Fastio-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	begin := time.Now()
	answer, err := l.client.Do(request)
	if ctx.Err() != nil {
		return // the time is over
	}
	accepted := err == nil && answer.StatusCode == http.StatusOK
	if err == nil {
		_, _ = io.Copy(io.Discard, answer.Body) // only to use the connection again
		answer.Body.Close()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if accepted {
		l.took = append(l.took, time.Since(begin))
	} else {
		l.refused++
	}
}

// quantile returns the latency in milliseconds that a share of the webhooks did not exceed.
func (l *load) quantile(share float64) float64 {
	i := min(int(share*float64(len(l.took))), len(l.took)-1)
	return per(float64(l.took[i].Microseconds()), 1000)
}

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/e2e/provider"
	"tidemark/e2e/rig"
)

// A crowd sends events at a rate, whether or not the answers come as fast, as a provider does.
type crowd struct {
	client      *http.Client
	to          []*rig.Program // in turn
	rate        int            // events a second; 0: the next when one is answered
	outstanding int            // at most so many unanswered; of a rate, the events past that are counted
	body        func(n int64) []byte
	sent        atomic.Int64
}

// crowd sends the events of an input, each connection the next one when it has its answer.
func (s setup) crowd(to ...*rig.Program) *crowd {
	var mu sync.Mutex
	in := newInput(s)
	return &crowd{
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: s.connections}},
		to:     to, outstanding: s.connections,
		body: func(int64) []byte {
			mu.Lock()
			defer mu.Unlock()
			e, _ := in.next()
			return e.value
		},
	}
}

// A tally has the answers to a crowd's events.
type tally struct {
	mu     sync.Mutex
	took   map[string][]time.Duration // by code
	unsent int
	errors []string // of those without an answer, each once
	lasted time.Duration
}

// run sends for a while, and returns when all events are answered.
func (c *crowd) run(ctx context.Context, howLong time.Duration) *tally {
	t := &tally{took: map[string][]time.Duration{}}
	var open sync.WaitGroup
	begin := time.Now()
	if c.rate == 0 {
		for range c.outstanding {
			open.Go(func() {
				for time.Since(begin) < howLong && ctx.Err() == nil {
					c.send(ctx, t)
				}
			})
		}
		open.Wait()
	} else {
		c.atRate(ctx, howLong, t, &open)
	}
	t.lasted = time.Since(begin)
	open.Wait()
	return t
}

// atRate sends at the rate.
func (c *crowd) atRate(ctx context.Context, howLong time.Duration, t *tally, open *sync.WaitGroup) {
	places := make(chan struct{}, c.outstanding)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	begin, due := time.Now(), 0
	for elapsed := time.Duration(0); elapsed < howLong && ctx.Err() == nil; elapsed = time.Since(begin) {
		<-tick.C
		for ; due < int(time.Since(begin).Seconds()*float64(c.rate)); due++ {
			select {
			case places <- struct{}{}:
				open.Go(func() {
					c.send(ctx, t)
					<-places
				})
			default:
				t.unsent++
			}
		}
	}
}

// together runs two crowds at the same time.
func together(ctx context.Context, howLong time.Duration, a, b *crowd) (ofA, ofB *tally) {
	var both sync.WaitGroup
	both.Go(func() { ofA = a.run(ctx, howLong) })
	both.Go(func() { ofB = b.run(ctx, howLong) })
	both.Wait()
	return ofA, ofB
}

var padding = strings.Repeat("x", 256<<10)

// crowdBody is a small event with padding.
func crowdBody(name string, workspaces, n int64, size int) []byte {
	return fmt.Appendf(nil, `{"event":"workspace_storage_file_updated","event_id":"evt_%s","workspace_id":"%s-%d",`+
		`"object_id":"2f%d","name":"a.pdf","size":%d,"pad":"%s"}`, rand.Text(), name, n%workspaces, n%997, n, padding[:size])
}

func (c *crowd) send(ctx context.Context, t *tally) {
	n := c.sent.Add(1)
	body := c.body(n)
	url := c.to[n%int64(len(c.to))].URL + webhook
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return // an address of our own
	}
	request.Header.Set("Fastio-Signature", provider.Sign(benchSecret, body))
	begin := time.Now()
	answer, err := c.client.Do(request)
	code := "no_answer"
	if err != nil {
		t.complain(err)
	} else {
		code = fmt.Sprint(answer.StatusCode)
		_, _ = io.Copy(io.Discard, answer.Body) // only to use the connection again
		_ = answer.Body.Close()
	}
	took := time.Since(begin)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.took[code] = append(t.took[code], took)
}

// complain keeps the first few errors.
func (t *tally) complain(err error) {
	text := err.Error()
	if inner, ok := errors.AsType[*net.OpError](err); ok {
		text = inner.Op + ": " + inner.Err.Error() // without the port, which differs
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.errors) < 5 && !slices.Contains(t.errors, text) {
		t.errors = append(t.errors, text)
	}
}

// figures are the counts by code, the rate of accepted events, and the latencies.
func (t *tally) figures() result {
	var all []time.Duration
	answers := map[string]int{}
	for code, took := range t.took {
		all = append(all, took...)
		answers[code] = len(took)
	}
	f := result{
		"answers": answers, "accepted_per_s": per(float64(answers["200"]), t.lasted.Seconds()),
		"refused_share": per(float64(len(all)-answers["200"]), float64(max(len(all), 1))),
		"p99_ms":        quantile(all, 0.99), "max_ms": quantile(all, 1),
	}
	if took := t.took["200"]; len(took) > 0 {
		f["p50_ms_of_200"], f["p99_ms_of_200"] = quantile(took, 0.50), quantile(took, 0.99)
	}
	if len(t.errors) > 0 {
		f["no_answer_because"] = t.errors
	}
	if t.unsent > 0 {
		f["not_sent_for_want_of_answers"] = t.unsent
	}
	return f
}

// quantile returns the milliseconds that a share of them did not exceed.
func quantile(of []time.Duration, share float64) float64 {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	i := min(int(share*float64(len(sorted))), len(sorted)-1)
	return per(float64(sorted[i].Microseconds()), 1000)
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/e2e/rig"
)

// latency measures the time from a record's production to its notice at a read_committed consumer, at a rate that the
// machine keeps up with.
func latency(ctx context.Context, s setup) (result, error) {
	warm := s
	warm.events, warm.seed = 1000, s.seed+1 // ids of their own, so that none of what is measured is a duplicate
	i, err := warm.install(ctx)
	if err != nil {
		return nil, err
	}
	p, err := i.process(s.promise()...)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := i.awaitGroup(ctx); err != nil {
		return nil, err
	}
	notices, err := newStopwatch(ctx, s.brokers, i.topics.Notify)
	if err != nil {
		return nil, err
	}
	defer notices.client.Close()
	before := p.Usage()
	in := newInput(s)
	pace, sent := rate.NewLimiter(rate.Limit(s.rate), 1), 0
	for end := time.Now().Add(time.Duration(s.seconds) * time.Second); time.Now().Before(end); {
		e, first := in.next()
		if !first {
			continue // a duplicate has no notice
		}
		if err := pace.Wait(ctx); err != nil {
			return nil, fmt.Errorf("keep the pace: %w", err)
		}
		notices.begin(e.id)
		sent++
		i.client.Produce(ctx, e.record(i.topics.Events), nil) // if it fails, its notice is missed below
	}
	took, err := notices.await(ctx, sent)
	if err != nil {
		return nil, err
	}
	used := p.Usage()
	if err := stop(p); err != nil {
		return nil, err
	}
	return result{
		"measured": "latency", "guarantee": s.guarantee, "epoch": s.epoch.String(),
		"events": sent, "events_per_s": per(float64(sent), float64(s.seconds)),
		"p50_ms": quantile(took, 0.50), "p99_ms": quantile(took, 0.99), "max_ms": quantile(took, 1),
		"cpu_s_per_million": per((used.CPU-before.CPU).Seconds()*1e6, float64(sent)), "peak_rss_mb": int(used.PeakMB),
	}, i.close(ctx)
}

// A stopwatch measures the time to notices, by the ids of their events.
type stopwatch struct {
	client *kgo.Client

	mu    sync.Mutex
	begun map[string]time.Time
	took  []time.Duration
	err   error
}

// newStopwatch reads the notices from their start; those of events that were not begun do not count.
func newStopwatch(ctx context.Context, brokers []string, topic string) (*stopwatch, error) {
	client, err := rig.Client(brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics(topic))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	w := &stopwatch{client: client, begun: map[string]time.Time{}}
	go w.run(ctx)
	return w, nil
}

// run ends with the client.
func (w *stopwatch) run(ctx context.Context) {
	for {
		fetches := w.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		now := time.Now()
		w.mu.Lock()
		if err := fetches.Err(); err != nil {
			w.err = err
		}
		fetches.EachRecord(func(r *kgo.Record) { w.stop(r, now) })
		w.mu.Unlock()
	}
}

// stop takes the time of a notice; w.mu is held. One that is repeated counts once.
func (w *stopwatch) stop(r *kgo.Record, now time.Time) {
	var notice struct {
		EventID string `json:"event_id"`
	}
	if err := json.Unmarshal(r.Value, &notice); err != nil {
		w.err = err
		return
	}
	id := notice.EventID
	if begun, ours := w.begun[id]; ours {
		w.took = append(w.took, now.Sub(begun))
		delete(w.begun, id)
	}
}

func (w *stopwatch) begin(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun[id] = time.Now()
}

// await returns the times once there are n of them, which must be within a minute.
func (w *stopwatch) await(ctx context.Context, n int) (took []time.Duration, err error) {
	_, err = rig.Until(ctx, time.Minute, func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		took = w.took
		return len(took) == n, w.err
	})
	if err != nil {
		return nil, fmt.Errorf("%d notices of %d events came: %w", len(took), n, err)
	}
	return took, nil
}

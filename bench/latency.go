package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/e2e/rig"
)

// latencyRates are in events per second. All programs keep up with them.
var latencyRates = []float64{200, 1600}

// A latencyRun is the time from a record's production to its index record at a read_committed consumer.
type latencyRun struct {
	Variant       string  `json:"variant"`
	Rate          float64 `json:"rate"`
	Repetition    int     `json:"repetition"`
	Events        int     `json:"events"`
	P50           float64 `json:"p50_ms"`
	P99           float64 `json:"p99_ms"`
	Max           float64 `json:"max_ms"`
	CPUPerMillion float64 `json:"cpu_s_per_million"`
	span
}

// latency measures the programs by turns.
func (u *suite) latency(ctx context.Context) error {
	for rep := range u.reps {
		for i := range prompt {
			v := prompt[(i+rep)%len(prompt)]
			if err := u.latencyOf(ctx, v, rep+1); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	return nil
}

// latencyOf measures a program at each rate, after an input from which the JVM compiles what is used.
func (u *suite) latencyOf(ctx context.Context, v variant, rep int) error {
	warm := u.setup
	warm.events, warm.seed = max(1000, u.events/10), u.seed+1 // ids of their own: none of what is measured is a repeat
	c, err := u.contest(ctx, warm)
	if err != nil {
		return err
	}
	p := v.start(c, c.data())
	if err := errors.Join(os.RemoveAll(c.data()), p.Start()); err != nil {
		return err
	}
	defer p.Close()
	watch, err := newStopwatch(ctx, u.brokers, c.topics.Index)
	if err != nil {
		return err
	}
	defer watch.close()
	if err := errors.Join(c.awaitCommit(ctx, p.group, p.Program), watch.awaitSeen(ctx, c.unique)); err != nil {
		return fmt.Errorf("%w\n%s", err, p.Tail())
	}
	in := newInput(u.setup)
	for _, rate := range latencyRates {
		what := fmt.Sprintf("%s at %.0f/s", v.name, rate)
		run, ok, err := counted(ctx, u, what, rep, func() (latencyRun, error) {
			return c.latencyAt(ctx, p, watch, in, rate, u.phase()*2/3)
		})
		if err != nil {
			return err
		}
		if ok {
			run.Variant, run.Repetition = v.name, rep
			u.report.Latency = append(u.report.Latency, run)
			say("%s: p50 %.1f ms, p99 %.1f ms, CPU %.0f s/M", what, run.P50, run.P99, run.CPUPerMillion)
		}
	}
	return errors.Join(stop(p.Program), c.close(ctx))
}

// latencyAt measures a program at a rate. Each event must give its index record.
func (c *contest) latencyAt(
	ctx context.Context, p started, watch *stopwatch, in *input, perSecond float64, howLong time.Duration,
) (run latencyRun, err error) {
	o, err := observe(c.brokerPID, p.Program)
	if err != nil {
		return run, err
	}
	pace, sent := rate.NewLimiter(rate.Limit(perSecond), 1), 0
	for end := time.Now().Add(howLong); time.Now().Before(end); {
		e, first := in.next()
		if !first {
			continue // a duplicate has no index record
		}
		if err := pace.Wait(ctx); err != nil {
			return run, fmt.Errorf("keep the pace: %w", err)
		}
		watch.send(ctx, e.record(c.topics.Events))
		sent++
	}
	took, err := watch.await(ctx, sent)
	if err != nil {
		return run, fmt.Errorf("%w\n%s", err, p.Tail())
	}
	used, err := o.end()
	return latencyRun{
		Rate: perSecond, Events: sent, span: used, CPUPerMillion: per(used.CPU*1e6, float64(sent)),
		P50: quantile(took, 0.50), P99: quantile(took, 0.99), Max: quantile(took, 1),
	}, err
}

// A stopwatch measures the time to index records by the positions of their events.
type stopwatch struct {
	reader, writer *kgo.Client

	mu         sync.Mutex
	sent, seen map[string]time.Time
	err        error
}

// newStopwatch reads the index records from their start.
func newStopwatch(ctx context.Context, brokers []string, topic string) (w *stopwatch, err error) {
	w = &stopwatch{sent: map[string]time.Time{}, seen: map[string]time.Time{}}
	w.reader, err = rig.Client(brokers, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeTopics(topic))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", topic, err)
	}
	if w.writer, err = rig.Client(brokers, kgo.ProducerLinger(0)); err != nil {
		w.reader.Close()
		return nil, err
	}
	go w.run(ctx)
	return w, nil
}

func (w *stopwatch) close() {
	w.reader.Close()
	w.writer.Close()
}

// run ends with the client.
func (w *stopwatch) run(ctx context.Context) {
	for {
		fetches := w.reader.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		now := time.Now()
		w.mu.Lock()
		w.err = errors.Join(w.err, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			var index struct{ Position string }
			w.err = errors.Join(w.err, json.Unmarshal(r.Value, &index))
			if _, again := w.seen[index.Position]; !again {
				w.seen[index.Position] = now
			}
		})
		w.mu.Unlock()
	}
}

// send produces an event. Its index record may be read before its acknowledgement.
func (w *stopwatch) send(ctx context.Context, r *kgo.Record) {
	begin := time.Now()
	w.writer.Produce(ctx, r, func(r *kgo.Record, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = errors.Join(w.err, err)
		w.sent[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = begin
	})
}

// awaitSeen waits until there are that many index records.
func (w *stopwatch) awaitSeen(ctx context.Context, n int) error {
	_, err := rig.Until(ctx, time.Minute, func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.seen) >= n, w.err
	})
	return err
}

// await returns the times of n events, which were sent since the last call, once all of them have an index record. That
// must be within a minute.
func (w *stopwatch) await(ctx context.Context, n int) (took []time.Duration, err error) {
	_, err = rig.Until(ctx, time.Minute, func() (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		took = took[:0]
		for position, begin := range w.sent {
			if end, seen := w.seen[position]; seen {
				took = append(took, end.Sub(begin))
			}
		}
		return len(took) == n, w.err
	})
	if err != nil {
		return nil, fmt.Errorf("%d events of %d have an index record: %w", len(took), n, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.sent)
	clear(w.seen)
	return took, nil
}

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// latency measures how long after an event was handed to Kafka its notice comes to a reader of committed records, at a rate that
// the machine keeps up with.
func latency(ctx context.Context, s setup) (result, error) {
	warm := s
	warm.events, warm.seed = 1000, s.seed+1 // ids of their own, so that none of what is measured is a duplicate
	c, err := warm.prepare(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.process(ctx, c)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	if err := await(ctx, func() (bool, error) { return c.committed(ctx) }); err != nil {
		return nil, err
	}
	config := kafka.Config{Brokers: s.brokers, ClientID: "bench"}
	notices, err := newStopwatch(ctx, config, c.streams.Notify.Name)
	if err != nil {
		return nil, err
	}
	defer notices.client.Close()
	sender, err := kafka.NewProducer(config)
	if err != nil {
		return nil, err
	}
	defer sender.Close()
	before := p.usage()
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
		parsed, err := codecs.ParseEvent(e.value)
		if err != nil {
			return nil, fmt.Errorf("an event of ours: %w", err)
		}
		notices.begin(parsed.GetEventId())
		sent++
		sender.Produce(ctx, &kgo.Record{
			Topic: c.streams.Events.Name, Partition: kafka.Partition(e.workspace, s.partitions), Key: []byte(e.workspace), Value: e.value,
		}, nil) // one that failed has no notice, which is noticed
	}
	took, err := notices.await(ctx, sent)
	if err != nil {
		return nil, err
	}
	used := p.usage().minus(before)
	if err := p.stop(); err != nil {
		return nil, err
	}
	return result{
		"measured": "latency", "guarantee": s.guarantee, "epoch": s.epoch.String(), "events": sent, "events_per_s": per(float64(sent), float64(s.seconds)),
		"p50_ms": quantile(took, 0.50), "p99_ms": quantile(took, 0.99), "max_ms": quantile(took, 1),
		"cpu_s_per_million": per(used.cpu.Seconds()*1e6, float64(sent)), "peak_rss_mb": used.peakMB,
	}, c.close(ctx)
}

// A stopwatch times notices by the ids of their events.
type stopwatch struct {
	client *kgo.Client

	mu    sync.Mutex
	begun map[string]time.Time
	took  []time.Duration
	err   error
}

// newStopwatch reads what comes from now on.
func newStopwatch(ctx context.Context, config kafka.Config, topic string) (*stopwatch, error) {
	all, err := kafka.Extent(ctx, config, topic)
	if err != nil {
		return nil, err
	}
	from := map[int32]kgo.Offset{}
	for partition, span := range all {
		from[partition] = kgo.NewOffset().At(span.To)
	}
	options, err := config.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
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
	message, err := codecs.Notice{}.Decode(r.Value)
	if err != nil {
		w.err = err
		return
	}
	id := message.(*tidemarkv1.Notice).GetEventId()
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
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = await(ctx, func() (bool, error) {
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

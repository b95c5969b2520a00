package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/sinks"
	"tidemark/topology"
)

const partitions = 4

// A bench is an installation's topics, and one sink of fastio-index named test.
type bench struct {
	conf     kafka.Config
	s        topology.Streams
	producer *kgo.Client
	registry *prometheus.Registry
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := topology.New(fmt.Sprintf("s%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: partitions, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{conf: kafka.Config{Brokers: devbroker.ForTest(t)}, s: s}
	if _, err := kafka.ApplyTopics(t.Context(), b.conf, s.Topics()); err != nil {
		t.Fatal(err)
	}
	if b.producer, err = kafka.NewProducer(b.conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.producer.Close)
	return b
}

// put appends values to a partition of fastio-index. Each is its own key.
func (b *bench) put(t *testing.T, partition int32, values ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{
			Topic: b.s.Index.Name, Partition: partition, Key: []byte(value), Value: []byte(value),
		})
	}
	b.produce(t, records...)
}

func (b *bench) produce(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	if err := b.producer.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

type deliver func(ctx context.Context, batch []*sinks.Record) error

func (f deliver) Deliver(ctx context.Context, batch []*sinks.Record) error { return f(ctx, batch) }

func (b *bench) loop(t *testing.T, config sinks.Config, sink deliver) *sinks.Loop {
	t.Helper()
	b.registry = prometheus.NewRegistry()
	config.Name, config.Kafka, config.Streams = "test", b.conf, b.s
	config.Topics = []topology.Topic{b.s.Index}
	config.Log, config.Metrics = slog.New(slog.DiscardHandler), sinks.NewMetrics(b.registry)
	l, err := sinks.NewLoop(config, sink)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run runs a loop until stop, which returns Run's error.
func run(t *testing.T, run func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// An inbox has what a destination accepted.
type inbox struct {
	mu     sync.Mutex
	values []string
}

func (i *inbox) add(batch ...*sinks.Record) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, r := range batch {
		i.values = append(i.values, string(r.Value))
	}
}

func (i *inbox) all() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.values)
}

func (i *inbox) await(t *testing.T, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d records", n), func() bool { return len(i.all()) >= n })
}

func values(from, to int) (values []string) {
	for i := from; i < to; i++ {
		values = append(values, fmt.Sprintf("v%03d", i))
	}
	return values
}

// records asserts the counter of records, by outcome.
func (b *bench) records(t *testing.T, delivered, rejected, skipped float64) {
	t.Helper()
	want := map[string]float64{"delivered": delivered, "rejected": rejected, "skipped": skipped}
	got := map[string]float64{}
	await(t, fmt.Sprintf("records counted: %v", want), func() bool {
		b.each(t, "tidemark_sink_records_total", func(labels map[string]string, value float64) {
			got[labels["outcome"]] = value
		})
		return cmp.Equal(want, got)
	})
}

// each calls f with the series of a metric.
func (b *bench) each(t *testing.T, name string, f func(labels map[string]string, value float64)) {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if family.GetName() == name {
				f(labels, m.GetCounter().GetValue()+m.GetGauge().GetValue())
			}
		}
	}
}

// value returns the value of a metric with one series.
func (b *bench) value(t *testing.T, name string) (value float64) {
	t.Helper()
	b.each(t, name, func(_ map[string]string, v float64) { value = v })
	return value
}

// dead returns the dead letters as value, sink and answer.
func (b *bench) dead(t *testing.T) (entries []string) {
	t.Helper()
	queue := deadletters.New(b.conf, b.s)
	found, err := queue.Entries(t.Context(), deadletters.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	err = queue.Records(t.Context(), found, func(e *deadletters.Entry, r *kgo.Record) error {
		entries = append(entries, fmt.Sprintf("%s %s@%s %s %q", r.Value, e.Topic, e.Sink, e.Reason, e.Answer))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(entries)
	return entries
}

// A destination that rejects a whole batch for some records of it: exactly those become dead letters, and the others
// are delivered once each.
func TestLoopBisectsARejectedBatch(t *testing.T) {
	b := newBench(t)
	b.put(t, 1, values(0, 100)...)
	bad := []string{"v000", "v041", "v042", "v099"}
	var got inbox
	loop := b.loop(t, sinks.Config{BatchRecords: 64}, func(_ context.Context, batch []*sinks.Record) error {
		for _, r := range batch {
			if slices.Contains(bad, string(r.Value)) {
				return &sinks.Rejected{Reason: "fix it", Answer: "400 of " + string(r.Value)}
			}
		}
		got.add(batch...)
		return nil
	})
	stop := run(t, loop.Run)
	got.await(t, 96)
	b.records(t, 96, 4, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, v := range values(0, 100) {
		if !slices.Contains(bad, v) {
			want = append(want, v)
		}
	}
	if diff := cmp.Diff(want, got.all()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	want = nil
	for _, v := range bad {
		want = append(want, fmt.Sprintf("%s %s@test sink_rejected %q", v, b.s.Index.Name, "400 of "+v))
	}
	if diff := cmp.Diff(want, b.dead(t)); diff != "" {
		t.Errorf("dead letters (-want +got):\n%s", diff)
	}
}

// Of a batch whose records have different outcomes only those that are not applied are delivered again.
func TestLoopPartial(t *testing.T) {
	b := newBench(t)
	b.put(t, 0, values(0, 9)...)
	var got inbox
	var calls []int
	loop := b.loop(t, sinks.Config{}, func(_ context.Context, batch []*sinks.Record) error {
		calls = append(calls, len(batch))
		partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}, Err: errors.New("429")}
		for i, r := range batch {
			switch {
			case string(r.Value) == "v004" || string(r.Value) == "v001":
				partial.Rejected[r] = &sinks.Rejected{Reason: "fix it"}
			case len(calls) == 1 && i%3 == 2:
				partial.Again = append(partial.Again, r)
			default:
				got.add(r)
			}
		}
		return partial
	})
	stop := run(t, loop.Run)
	b.records(t, 7, 2, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	want := []string{"v000", "v003", "v006", "v007", "v002", "v005", "v008"}
	if diff := cmp.Diff(want, got.all()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int{9, 3}, calls); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	if dead := b.dead(t); len(dead) != 2 {
		t.Errorf("dead letters: %v", dead)
	}
}

// A partition that the destination does not accept waits by itself, with the pause that the destination asks for, and
// its records come in order.
func TestLoopRetriesOnePartition(t *testing.T) {
	b := newBench(t)
	const pause = 700 * time.Millisecond
	var got inbox
	var attempts []time.Time // of one partition's goroutine, until third is closed
	third, release := make(chan struct{}), make(chan struct{})
	loop := b.loop(t, sinks.Config{BatchRecords: 2}, func(_ context.Context, batch []*sinks.Record) error {
		if batch[0].Partition == 0 && string(batch[0].Value) == "v000" {
			attempts = append(attempts, time.Now())
			if len(attempts) < 3 {
				return &sinks.Later{Pause: pause, Err: errors.New("503")}
			}
			close(third)
			<-release
		}
		got.add(batch...)
		return nil
	})
	b.put(t, 0, values(0, 5)...)
	b.put(t, 1, values(10, 15)...)
	run(t, loop.Run)
	got.await(t, 5)
	if diff := cmp.Diff(values(10, 15), got.all()); diff != "" {
		t.Errorf("the other partition (-want +got):\n%s", diff)
	}
	<-third
	close(release)
	got.await(t, 10)
	if diff := cmp.Diff(values(0, 5), got.all()[5:]); diff != "" {
		t.Errorf("the slow partition (-want +got):\n%s", diff)
	}
	for i := 1; i < len(attempts); i++ {
		if waited := attempts[i].Sub(attempts[i-1]); waited < pause || waited > 5*pause {
			t.Errorf("attempt %d came after %v, the destination asked for %v", i, waited, pause)
		}
	}
}

// A destination that is down is tried by one partition at a time, readiness names its error, and all is delivered once
// it is back.
func TestLoopDestinationDown(t *testing.T) {
	b := newBench(t)
	for p := range int32(partitions) {
		b.put(t, p, values(int(p)*10, int(p)*10+10)...)
	}
	var got inbox
	var down atomic.Bool
	var attempts atomic.Int64
	down.Store(true)
	loop := b.loop(t, sinks.Config{}, func(_ context.Context, batch []*sinks.Record) error {
		attempts.Add(1)
		if down.Load() {
			return errors.New("connection refused")
		}
		got.add(batch...)
		return nil
	})
	run(t, loop.Run)
	await(t, "not ready", func() bool {
		err := loop.Ready()
		return err != nil && strings.Contains(err.Error(), "the destination is down: connection refused")
	})
	before := attempts.Load()
	time.Sleep(6 * time.Second)
	if n := attempts.Load() - before; n > 2 {
		t.Errorf("%d attempts in 6 s while the destination is down, want one per 5 s", n)
	}
	down.Store(false)
	got.await(t, 40)
	await(t, "ready", func() bool { return loop.Ready() == nil })
	b.records(t, 40, 0, 0)
}

// An attempt that hangs ends with its deadline, and the batch is delivered again.
func TestLoopAttemptHangs(t *testing.T) {
	b := newBench(t)
	b.put(t, 2, "v000")
	var got inbox
	var attempts atomic.Int64
	loop := b.loop(t, sinks.Config{Attempt: 300 * time.Millisecond},
		func(ctx context.Context, batch []*sinks.Record) error {
			if attempts.Add(1) == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			got.add(batch...)
			return nil
		})
	run(t, loop.Run)
	got.await(t, 1)
	if n := attempts.Load(); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
}

// A stop lets the batch finish and commits it; the next start goes on behind it.
func TestLoopDrains(t *testing.T) {
	b := newBench(t)
	b.put(t, 3, values(0, 20)...)
	var got inbox
	begun := make(chan struct{}, 20)
	sink := func(_ context.Context, batch []*sinks.Record) error {
		begun <- struct{}{}
		time.Sleep(300 * time.Millisecond)
		got.add(batch...)
		return nil
	}
	stop := run(t, b.loop(t, sinks.Config{BatchRecords: 5}, sink).Run)
	<-begun
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := len(got.all()); n != 5 {
		t.Errorf("%d records delivered, want the batch that had begun", n)
	}
	run(t, b.loop(t, sinks.Config{BatchRecords: 5}, sink).Run)
	got.await(t, 20)
	if diff := cmp.Diff(values(0, 20), got.all()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
}

package sinks_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/sinks"
)

// What an operator replays comes to the sink that rejected it, with its source position, and to no other sink. If it is
// rejected again it is a new entry.
func TestLoopReplayedDeadLetters(t *testing.T) {
	b := newBench(t)
	b.put(t, 1, "v000", "v001")
	var got inbox
	var fixed atomic.Bool
	var at atomic.Pointer[sinks.Record]
	loop := b.loop(t, sinks.Config{}, func(_ context.Context, batch []*sinks.Record) error {
		for _, r := range batch {
			if string(r.Value) == "v001" && !fixed.Load() {
				return &sinks.Rejected{Reason: "fix it"}
			}
			if r.Retried {
				at.Store(r)
			}
		}
		got.add(batch...)
		return nil
	})
	run(t, loop.Run)
	b.records(t, 1, 1, 0)
	replay := func() {
		t.Helper()
		queue := deadletters.New(b.conf, b.s)
		queue.RetrySinks(deadletters.SinkRetryTo(b.s, func(string) bool { return true }))
		result, err := queue.Replay(t.Context(), deadletters.Filter{Sinks: []string{"test"}},
			deadletters.Options{Yes: true})
		if err != nil || result.Done != 1 {
			t.Fatalf("%+v, %v", result, err)
		}
	}
	replay()
	b.records(t, 1, 2, 0)
	if dead := b.dead(t); len(dead) != 1 || !strings.HasPrefix(dead[0], "v001 "+b.s.SinkRetry.Name+"@test") {
		t.Errorf("dead letters: %v, want a new one", dead)
	}
	fixed.Store(true)
	replay()
	b.records(t, 2, 2, 0)
	if r := at.Load(); r.Position() != b.s.Index.Name+"/1:1" || string(r.Key) != "v001" {
		t.Errorf("retried as %s, key %s", r.Position(), r.Key)
	}
	b.produce(t, &kgo.Record{Topic: b.s.SinkRetry.Name, Partition: 1, Value: []byte("unknown")})
	b.records(t, 2, 2, 1)
	if diff := cmp.Diff([]string{"v000", "v001"}, got.all()); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
}

// A new sink that begins at the end delivers nothing older, and all that comes after its first start, also while it is
// stopped, and also when it was only on hold.
func TestLoopFromEnd(t *testing.T) {
	for name, first := range map[string]func(*sinks.Loop, context.Context) error{
		"run": (*sinks.Loop).Run, "hold": (*sinks.Loop).Hold,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.put(t, 0, "old")
			var got inbox
			newLoop := func() *sinks.Loop {
				return b.loop(t, sinks.Config{FromEnd: true}, func(_ context.Context, batch []*sinks.Record) error {
					got.add(batch...)
					return nil
				})
			}
			loop := newLoop()
			stop := run(t, func(ctx context.Context) error { return first(loop, ctx) })
			await(t, "a commit", func() bool {
				committed, err := kafka.Committed(t.Context(), b.conf, b.s.SinkGroup("test"), b.s.Index.Name)
				if err != nil {
					t.Fatal(err)
				}
				return committed[0].At == 1 && len(committed) == partitions
			})
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			b.put(t, 0, "new")
			b.put(t, 1, "new")
			run(t, newLoop().Run)
			got.await(t, 2)
			if diff := cmp.Diff([]string{"new", "new"}, got.all()); diff != "" {
				t.Errorf("delivered (-want +got):\n%s", diff)
			}
		})
	}
}

// The lag of each partition is a metric, in records and seconds.
func TestLoopLag(t *testing.T) {
	b := newBench(t)
	b.put(t, 2, values(0, 7)...)
	hold := make(chan struct{})
	loop := b.loop(t, sinks.Config{BatchRecords: 3}, func(ctx context.Context, _ []*sinks.Record) error {
		select {
		case <-hold:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	run(t, loop.Run)
	await(t, "the lag", func() bool {
		records, seconds := 0.0, 0.0
		b.each(t, "tidemark_sink_lag_records", func(l map[string]string, v float64) {
			if l["partition"] == "2" && l["topic"] == b.s.Index.Name {
				records = v
			}
		})
		b.each(t, "tidemark_sink_lag_seconds", func(l map[string]string, v float64) {
			if l["partition"] == "2" && l["topic"] == b.s.Index.Name {
				seconds = v
			}
		})
		return records == 7 && seconds > 0
	})
	close(hold)
}

// While a batch waits for its time the records that follow join it, as for a digest. Nothing counts as failed.
func TestLoopWaitingBatchGrows(t *testing.T) {
	b := newBench(t)
	b.put(t, 1, "v000")
	first := make(chan struct{}, 100)
	batches := make(chan []string, 10)
	loop := b.loop(t, sinks.Config{BatchRecords: 5}, func(_ context.Context, batch []*sinks.Record) error {
		if string(batch[0].Value) == "v000" && len(batch) < 5 {
			first <- struct{}{}
			return &sinks.Later{Pause: 300 * time.Millisecond, Waiting: true}
		}
		var got []string
		for _, r := range batch {
			got = append(got, string(r.Value))
		}
		batches <- got
		return nil
	})
	run(t, loop.Run)
	<-first
	b.put(t, 1, values(1, 6)...)
	if diff := cmp.Diff(values(0, 5), (<-batches)[:5]); diff != "" {
		t.Errorf("the first batch (-want +got):\n%s", diff)
	}
	await(t, "all records", func() bool {
		committed, err := kafka.Committed(t.Context(), b.conf, b.s.SinkGroup("test"), b.s.Index.Name)
		return err == nil && committed[1].At == 6
	})
	b.records(t, 6, 0, 0)
	b.each(t, "tidemark_sink_attempts_total", func(labels map[string]string, value float64) {
		if labels["outcome"] == "failed" && value > 0 {
			t.Errorf("%v failed attempts", value)
		}
	})
}

// A partition is given up at once while a full batch waits for its time, and while a batch waits for its next attempt.
func TestLoopStopsWhileABatchWaits(t *testing.T) {
	for name, answer := range map[string]*sinks.Later{
		"its time": {Pause: time.Minute, Waiting: true}, "the next attempt": {Pause: time.Minute, Err: errors.New("503")},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.put(t, 1, values(0, 5)...)
			asked := make(chan struct{}, 100)
			loop := b.loop(t, sinks.Config{BatchRecords: 5}, func(context.Context, []*sinks.Record) error {
				asked <- struct{}{}
				return answer
			})
			stop := run(t, loop.Run)
			<-asked
			time.Sleep(200 * time.Millisecond)
			begin := time.Now()
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took > 5*time.Second || len(asked) > 1 {
				t.Errorf("left after %v and %d more attempts", took, len(asked))
			}
			committed, err := kafka.Committed(t.Context(), b.conf, b.s.SinkGroup("test"), b.s.Index.Name)
			if err != nil || committed[1].At > 0 {
				t.Errorf("committed %v, %v", committed, err)
			}
		})
	}
}

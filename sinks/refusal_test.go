package sinks_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
)

// A destination that refuses everything makes no dead letters: its records wait, in order, and are delivered once it
// accepts one.
func TestLoopDestinationRefusesAll(t *testing.T) {
	b := newBench(t)
	b.put(t, 0, values(0, 40)...)
	b.put(t, 1, values(40, 50)...)
	var got inbox
	var fixed atomic.Bool
	var attempts atomic.Int64
	loop := b.loop(t, sinks.Config{}, func(_ context.Context, batch []*sinks.Record) error {
		attempts.Add(1)
		if !fixed.Load() {
			return &sinks.Rejected{Reason: "fix it", Answer: "400 of the wrong model"}
		}
		got.add(batch...)
		return nil
	})
	run(t, loop.Run)
	await(t, "not ready", func() bool {
		err := loop.Ready()
		return err != nil && strings.Contains(err.Error(), "the destination refuses all records: ") &&
			strings.Contains(err.Error(), "400 of the wrong model") && b.value(t, "tidemark_sink_refusing") == 1
	})
	time.Sleep(2 * time.Second)
	if n := attempts.Load(); n > 70 { // two batches halved down to 5 records, and some pauses
		t.Errorf("%d attempts", n)
	}
	if dead := b.dead(t); len(dead) > 0 {
		t.Errorf("dead letters: %v", dead)
	}
	fixed.Store(true)
	got.await(t, 50)
	b.records(t, 50, 0, 0)
	for p, want := range [][]string{values(0, 40), values(40, 50)} {
		own := slices.DeleteFunc(got.all(), func(v string) bool { return (v >= "v040") != (p == 1) })
		if diff := cmp.Diff(want, own); diff != "" {
			t.Errorf("partition %d (-want +got):\n%s", p, diff)
		}
	}
	await(t, "ready", func() bool { return loop.Ready() == nil && b.value(t, "tidemark_sink_refusing") == 0 })
}

// Refused records with nothing accepted become dead letters one by one, so that those behind them are tried. What is
// invalid by itself does not wait.
func TestLoopRefusedAlone(t *testing.T) {
	b := newBench(t)
	b.put(t, 2, "v000", "v001", "invalid")
	var got inbox
	loop := b.loop(t, sinks.Config{Refusal: 2 * time.Second, BatchRecords: 3},
		func(_ context.Context, batch []*sinks.Record) error {
			partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
			for _, r := range batch {
				switch string(r.Value) {
				case "invalid":
					partial.Rejected[r] = &sinks.Rejected{Reason: "no JSON"}
				case "v000", "v001":
					partial.Rejected[r] = &sinks.Rejected{Reason: "fix it", Answer: "422"}
				default:
					got.add(r)
				}
			}
			return partial
		})
	begin := time.Now()
	run(t, loop.Run)
	b.records(t, 0, 3, 0)
	if took := time.Since(begin); took < 4*time.Second {
		t.Errorf("after %v: the second must wait as long as the first", took)
	}
	await(t, "ready", func() bool { return loop.Ready() == nil })
	b.put(t, 2, "v000", "good")
	b.records(t, 1, 4, 0)
}

// A batch that is given up between two halves counts when it comes again, and not before.
func TestLoopCountsOnce(t *testing.T) {
	b := newBench(t)
	b.put(t, 1, values(0, 4)...)
	var stopped atomic.Bool
	blocked := make(chan struct{}, 100)
	sink := func(_ context.Context, batch []*sinks.Record) error {
		switch {
		case len(batch) > 2, string(batch[0].Value) == "v001":
			return &sinks.Rejected{Reason: "fix it", Answer: "400"}
		case string(batch[0].Value) == "v002" && !stopped.Load():
			blocked <- struct{}{}
			return &sinks.Later{Pause: time.Minute, Err: errors.New("503")}
		case string(batch[0].Value) == "v000" && len(batch) == 2:
			return &sinks.Rejected{Reason: "fix it", Answer: "400"}
		}
		return nil
	}
	stop := run(t, b.loop(t, sinks.Config{}, sink).Run)
	<-blocked
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	b.records(t, 0, 0, 0)
	stopped.Store(true)
	run(t, b.loop(t, sinks.Config{}, sink).Run)
	b.records(t, 3, 1, 0)
}

// Records that are refused together are halved, also beside others of their batch.
func TestLoopHalvesAGroup(t *testing.T) {
	b := newBench(t)
	b.put(t, 1, values(0, 12)...)
	var got inbox
	var sizes []int
	loop := b.loop(t, sinks.Config{}, func(_ context.Context, batch []*sinks.Record) error {
		sizes = append(sizes, len(batch))
		partial := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}, Skipped: 1}
		got.add(batch[0])
		for chunk := range slices.Chunk(batch[1:], 4) { // the first is skipped
			why := &sinks.Rejected{Reason: "fix it", Answer: "400"}
			bad := slices.ContainsFunc(chunk, func(r *sinks.Record) bool { return string(r.Value) == "v006" })
			for _, r := range chunk {
				if bad {
					partial.Rejected[r] = why
				}
			}
		}
		if len(sizes) > 1 {
			return deliver(func(_ context.Context, batch []*sinks.Record) error {
				for _, r := range batch {
					if string(r.Value) == "v006" {
						return &sinks.Rejected{Reason: "fix it", Answer: "400"}
					}
				}
				return nil
			})(t.Context(), batch)
		}
		return partial
	})
	stop := run(t, loop.Run)
	b.records(t, 10, 1, 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{12, 2, 1, 1, 2}, sizes); diff != "" { // v005 to v008 were refused
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}

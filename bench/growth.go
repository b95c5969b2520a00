package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/rig"
)

// A growthRun has the cost of events of files that are all known.
type growthRun struct {
	Files      int     `json:"files"`
	Repetition int     `json:"repetition"`
	Events     int     `json:"events"`
	CPUus      float64 `json:"cpu_us_per_event"`
	BrokerUs   float64 `json:"broker_cpu_us_per_event"`
	EventsPerS float64 `json:"events_per_s"`
	StoreMB    float64 `json:"store_mb"`
	span
}

// The numbers of files at which events and reads are measured, up to five times the events.
var (
	growthSizes = []int{10_000, 100_000, 1_000_000, 5_000_000}
	growthReads = 2_000_000
)

// A grower writes one input to one process of tidemark: first events that add files, then those of files that exist.
type grower struct {
	*contest
	in      *input
	program started
	unique  int64
}

// growth measures the cost of an event against the number of files.
func (u *suite) growth(ctx context.Context) error {
	s := u.setup
	s.events, s.files, s.added, s.seed = 0, growthSizes[len(growthSizes)-1], 1, s.seed+2
	c, err := u.contest(ctx, s)
	if err != nil {
		return err
	}
	g := &grower{contest: c, in: newInput(s), program: variants[0].start(c, c.data())}
	if err := errors.Join(os.RemoveAll(c.data()), g.program.Start()); err != nil {
		return err
	}
	defer g.program.Close()
	for _, files := range growthSizes {
		if files > 5*u.events {
			break
		}
		if growthReads < files {
			if err := u.growthReads(ctx, g); err != nil {
				return err
			}
		}
		if err := u.grow(ctx, g, files); err != nil {
			return fmt.Errorf("%d files: %w\n%s", files, err, g.program.Tail())
		}
	}
	return errors.Join(stop(g.program.Program), c.close(ctx))
}

// growthReads measures reads of more files than the input of throughput has.
func (u *suite) growthReads(ctx context.Context, g *grower) error {
	if err := g.fillTo(ctx, growthReads); err != nil {
		return err
	}
	p := g.serve(noHistory)
	if err := errors.Join(os.RemoveAll(p.Data), p.Start()); err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.AwaitReady(ctx, patience); err != nil {
		return err
	}
	return errors.Join(stop(p), u.reads(ctx, g.contest, g.in))
}

// grow adds files until there are so many, and measures events.
func (u *suite) grow(ctx context.Context, g *grower, files int) error {
	if err := g.fillTo(ctx, files); err != nil {
		return err
	}
	for rep := range u.reps {
		what := fmt.Sprintf("events of %d files", files)
		run, ok, err := counted(ctx, u, what, rep+1, func() (growthRun, error) {
			return g.measure(ctx, max(20_000, u.events/5))
		})
		if err != nil {
			return err
		}
		if ok {
			run.Files, run.Repetition = files, rep+1
			u.report.Growth = append(u.report.Growth, run)
			say("%s: %.1f us of CPU each, %.0f/s, %.0f MB", what, run.CPUus, run.EventsPerS, run.PeakRSSMB)
		}
	}
	return nil
}

// fillTo adds files until there are so many, and waits until the local store has done the work of that.
func (g *grower) fillTo(ctx context.Context, files int) error {
	g.in.added = 1
	err := g.write(ctx, func(int) bool { return g.in.total < files })
	begin := time.Now()
	for idle := 0; err == nil && idle < 4 && time.Since(begin) < time.Minute; { // compaction goes on for a while
		before := g.program.Usage().CPU
		if err = rig.Sleep(ctx, 250*time.Millisecond); g.program.Usage().CPU-before < 25*time.Millisecond {
			idle++
		} else {
			idle = 0
		}
	}
	return err
}

// measure writes events of files that exist.
func (g *grower) measure(ctx context.Context, events int) (run growthRun, err error) {
	g.in.added = 0
	o, err := observe(g.brokerPID, g.program.Program)
	if err != nil {
		return run, err
	}
	if err := g.write(ctx, func(n int) bool { return n < events }); err != nil {
		return run, err
	}
	used, err := o.end()
	if err != nil {
		return run, err
	}
	mb, err := folderMB(g.data())
	n := float64(events)
	return growthRun{
		Events: events, CPUus: per(used.CPU*1e6, n), BrokerUs: per(used.BrokerCPU*1e6, n),
		EventsPerS: per(n, used.Seconds), StoreMB: mb, span: used,
	}, err
}

// write produces events as long as more reports true, faster than they are processed, and waits until all are
// committed. Each event that is no repeat must have its index record.
func (g *grower) write(ctx context.Context, more func(n int) bool) error {
	client, err := rig.Client(g.brokers, kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer client.Close()
	failed := kgo.AbortingFirstErrPromise(client)
	for n := 0; more(n); n++ {
		e, first := g.in.next()
		if first {
			g.unique++
		}
		client.Produce(ctx, e.record(g.topics.Events), failed.Promise())
	}
	if err := failed.Err(); err != nil {
		return fmt.Errorf("produce events: %w", err)
	}
	if err := g.awaitCommit(ctx, g.program.group, g.program.Program); err != nil {
		return err
	}
	if end := rig.End(ctx, g.client, g.topics.Index); end != g.unique {
		return wrongOutput{fmt.Errorf("%d index records, want %d", end, g.unique)}
	}
	return nil
}

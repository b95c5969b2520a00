package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"tidemark/e2e/rig"
)

// A recoveryRun is the start of an instance of process without its local store, on all partitions.
type recoveryRun struct {
	Repetition   int     `json:"repetition"`
	Records      int     `json:"records"` // of the changelog
	ReadySeconds float64 `json:"ready_s"`
	RecordsPerS  float64 `json:"records_per_s"` // until the first new event has its index record
	span
}

// A viewRun is the start of serve without its local stores.
type viewRun struct {
	Repetition  int     `json:"repetition"`
	History     string  `json:"history"` // the setting: with it serve reads the notices too
	Records     int     `json:"records"` // of the files table
	RecordsPerS float64 `json:"records_per_s"`
	StoreMB     float64 `json:"store_mb"`
	span
}

// Settings of --history: the default, and none.
const (
	withHistory = "168h"
	noHistory   = "0"
)

// recovery measures how long process and serve take to start with an empty disk, and the reads of that serve.
func (u *suite) recovery(ctx context.Context) error {
	c, err := u.shared(ctx)
	if err != nil {
		return err
	}
	if _, err := c.run(ctx, variants[0]); err != nil { // it checks the outputs
		return err
	}
	records, err := c.count(ctx, c.topics.Files)
	if err != nil {
		return err
	}
	for rep := range u.reps {
		run, ok, err := counted(ctx, u, "process", rep+1, func() (recoveryRun, error) {
			return c.recover(ctx, records)
		})
		if err != nil {
			return err
		}
		if ok {
			run.Repetition = rep + 1
			u.report.Recovery = append(u.report.Recovery, run)
			say("process: %d records, ready after %.1f s, %.0f/s until the first event, %.0f MB", run.Records,
				run.ReadySeconds, run.RecordsPerS, run.PeakRSSMB)
		}
	}
	for rep := range u.reps {
		for _, history := range []string{noHistory, withHistory} {
			if err := u.view(ctx, c, records, history, rep+1); err != nil {
				return err
			}
		}
	}
	in := newInput(u.setup)
	for range u.events {
		in.next()
	}
	return u.reads(ctx, c, in)
}

// recover starts process with an empty disk. One event waits: its index record ends the measurement.
func (c *contest) recover(ctx context.Context, records int) (run recoveryRun, err error) {
	s := c.setup
	c.runs++
	s.seed += uint64(1000 + c.runs)
	e, _ := newInput(s).next()
	if err := c.client.ProduceSync(ctx, e.record(c.topics.Events)).FirstErr(); err != nil {
		return run, err
	}
	before := rig.End(ctx, c.client, c.topics.Index)
	p := variants[0].start(c, c.data())
	if err := os.RemoveAll(c.data()); err != nil {
		return run, err
	}
	o, err := observe(c.brokerPID, p.Program)
	if err = errors.Join(err, p.Start()); err != nil {
		return run, err
	}
	defer p.Close()
	ready, err := p.AwaitReady(ctx, patience)
	if err != nil {
		return run, err
	}
	if err := rig.AwaitGrowth(ctx, c.client, c.topics.Index, before); err != nil {
		return run, fmt.Errorf("%w\n%s", err, p.Tail())
	}
	used, err := o.end()
	return recoveryRun{
		Records: records, ReadySeconds: per(ready.Seconds(), 1), RecordsPerS: per(float64(records), used.Seconds),
		span: used,
	}, errors.Join(err, stop(p.Program))
}

// serve returns a serve with a folder of its own.
func (c *contest) serve(history string) *rig.Program {
	command := slices.Concat([]string{"serve", "--history", history}, c.flags())
	return rig.New(c.binary, c.dir, "serve", command...).Listen("--api-addr").Store()
}

// view measures how long serve takes to start with an empty disk.
func (u *suite) view(ctx context.Context, c *contest, records int, history string, rep int) error {
	what := "serve with --history " + history
	run, ok, err := counted(ctx, u, what, rep, func() (run viewRun, err error) {
		p := c.serve(history)
		if err := errors.Join(os.RemoveAll(p.Data), os.RemoveAll(p.Log)); err != nil {
			return run, err
		}
		o, err := observe(c.brokerPID, p)
		if err = errors.Join(err, p.Start()); err != nil {
			return run, err
		}
		defer p.Close()
		if _, err := p.AwaitReady(ctx, patience); err != nil {
			return run, err
		}
		used, err := o.end()
		if err = errors.Join(err, stop(p)); err != nil {
			return run, err
		}
		mb, err := folderMB(p.Data)
		return viewRun{
			History: history, Records: records, RecordsPerS: per(float64(records), used.Seconds), StoreMB: mb,
			span: used,
		}, err
	})
	if ok {
		run.Repetition = rep
		u.report.Views = append(u.report.Views, run)
		say("%s: ready after %.1f s, %.0f records/s, %.0f MB", what, run.Seconds, run.RecordsPerS, run.PeakRSSMB)
	}
	return err
}

// data is the folder of a variant's local store.
func (c *contest) data() string { return filepath.Join(c.dir, "data") }

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// A comparison is all that the report shows.
type comparison struct {
	Machine     []string          `json:"machine"`
	Parts       map[string]string `json:"parts"` // when each was measured, and on which commit
	Events      int               `json:"events"`
	Unique      int               `json:"unique"`
	Files       int               `json:"files"`
	Partitions  int               `json:"partitions"`
	Repetitions int               `json:"repetitions"`
	MaxForeign  float64           `json:"max_foreign"`
	Control     string            `json:"control"` // why the control was refused
	Runs        []trial           `json:"runs"`
	Discarded   []unused          `json:"discarded"` // for foreign CPU
	Refused     []unused          `json:"refused"`   // for wrong outputs, or because they failed

	Latency   []latencyRun   `json:"latency"`
	Recovery  []recoveryRun  `json:"recovery"`
	Views     []viewRun      `json:"views"`
	Reads     []readRun      `json:"reads"`
	Ingress   []ingressTrial `json:"ingress"`
	Growth    []growthRun    `json:"growth"`
	Instances []instancesRun `json:"instances"`
}

// An unused run does not count.
type unused struct {
	Part       string  `json:"part"`
	Variant    string  `json:"variant"`
	Repetition int     `json:"repetition"`
	Why        string  `json:"why"`
	Foreign    float64 `json:"foreign_cpu_share"`
}

// A suite is what the parts of a comparison share.
type suite struct {
	setup
	peers     *peers
	brokerPID int
	variants  []variant
	report    *comparison
	commit    string // when it began: the report that it writes is a change of its own
	part      string
	input     *contest // the input of throughput, written by the first part that needs it
}

// A part measures something and adds its figures to the report.
type part struct {
	name    string
	measure func(*suite, context.Context) error
	reset   func(*comparison) // removes its figures
	peers   bool              // it runs them
}

// parts are in their order. Recovery adds events to the input, so that no part after it may use that.
var parts = []part{
	{"throughput", (*suite).throughput, func(r *comparison) { r.Runs, r.Control = nil, "" }, true},
	{"instances", (*suite).instances, func(r *comparison) { r.Instances = nil }, false},
	{"recovery", (*suite).recovery, func(r *comparison) {
		r.Recovery, r.Views = nil, nil
		r.forgetReads(false)
	}, false},
	{"latency", (*suite).latency, func(r *comparison) { r.Latency = nil }, true},
	{"ingress", (*suite).ingress, func(r *comparison) { r.Ingress = nil }, false},
	{"growth", (*suite).growth, func(r *comparison) { r.Growth = nil; r.forgetReads(true) }, false},
}

// compare measures tidemark and its peers, checks all that they write, and writes the report.
func compare(ctx context.Context, s setup) (result, error) {
	u := &suite{setup: s, peers: &peers{}, commit: describeCommit()}
	var err error
	if u.brokerPID, err = strconv.Atoi(os.Getenv("KAFKA_PID")); err != nil {
		return nil, errors.New("KAFKA_PID is not set: compare counts the CPU time of a broker on this machine, " +
			"as that of `deploy/kafka/kafka.sh run`")
	}
	if u.variants, err = selected(s.only); err != nil {
		return nil, err
	}
	chosen, err := chosenParts(s.parts)
	if err != nil {
		return nil, err
	}
	if u.report, err = begun(s); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(chosen, func(p part) bool { return p.peers }) {
		if err := u.peers.build(s.dir); err != nil {
			return nil, err
		}
	}
	var failed error
	for _, p := range chosen {
		failed = errors.Join(failed, u.run(ctx, p))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	if u.input != nil {
		failed = errors.Join(failed, u.input.close(ctx))
	}
	return result{
		"measured": "compare", "report": filepath.Join(s.report, reportFile), "discarded": len(u.report.Discarded),
	}, errors.Join(failed, u.report.incomplete(u.variants))
}

// run measures a part, and writes the report: a failure of a later part loses nothing.
func (u *suite) run(ctx context.Context, p part) error {
	begin := time.Now()
	u.part = p.name
	p.reset(u.report)
	delete(u.report.Parts, p.name)
	others := func(x unused) bool { return x.Part == p.name }
	u.report.Discarded = slices.DeleteFunc(u.report.Discarded, others)
	u.report.Refused = slices.DeleteFunc(u.report.Refused, others)
	err := p.measure(u, ctx)
	if err != nil {
		err = fmt.Errorf("%s: %w", p.name, err)
		say("%v", err)
	} else {
		u.report.Parts[p.name] = u.commit + ", " + time.Now().UTC().Format("2006-01-02 15:04 UTC")
	}
	say("%s took %.0f s", p.name, time.Since(begin).Seconds())
	return errors.Join(err, u.report.write(u.setup.report))
}

// chosenParts returns the parts with some names, separated by commas; all of them if names is empty.
func chosenParts(names string) (some []part, err error) {
	if names == "" {
		return parts, nil
	}
	wanted := strings.Split(names, ",")
	for _, p := range parts {
		if i := slices.Index(wanted, p.name); i >= 0 {
			some, wanted = append(some, p), slices.Delete(wanted, i, i+1)
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("no part %q", strings.Join(wanted, ","))
	}
	return some, nil
}

// begun returns a comparison without figures. When only some parts are to be measured, it has those of the others from
// the report in the folder, if that is of the same input.
func begun(s setup) (*comparison, error) {
	r := &comparison{}
	text, err := os.ReadFile(filepath.Join(s.report, plotFolder, resultsFile))
	if s.parts != "" && err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if s.parts == "" || r.Events != s.events || r.Partitions != s.partitions {
		r = &comparison{Parts: map[string]string{}}
	}
	r.Machine, r.Events, r.Partitions = describeMachine(), s.events, s.partitions
	r.Repetitions, r.MaxForeign = s.reps, s.foreign
	return r, nil
}

// contest writes an input for variants.
func (u *suite) contest(ctx context.Context, s setup) (*contest, error) {
	i, err := s.install(ctx)
	return &contest{installation: i, peers: u.peers, brokerPID: u.brokerPID}, err
}

// shared returns the input of throughput.
func (u *suite) shared(ctx context.Context) (*contest, error) {
	if u.input != nil {
		return u.input, nil
	}
	var w *want
	var c *contest
	var group errgroup.Group
	group.Go(func() (err error) { w, err = newWant(u.setup); return err })
	group.Go(func() (err error) { c, err = u.contest(ctx, u.setup); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	c.want, u.input = w, c
	u.report.Unique, u.report.Files = w.unique, len(w.files)
	return c, nil
}

const attempts = 3 // of a run, when other programs use the CPU

// counted measures until a run counts: other programs leave enough of the CPU to it. The report lists those that do
// not. ok is false when none does.
func counted[T interface{ others() float64 }](
	ctx context.Context, u *suite, what string, rep int, measure func() (T, error),
) (figures T, ok bool, err error) {
	for range attempts {
		figures, err = measure()
		switch {
		case ctx.Err() != nil:
			return figures, false, ctx.Err()
		case err != nil:
			return figures, false, fmt.Errorf("%s: %w", what, err)
		case figures.others() <= u.foreign:
			return figures, true, nil
		}
		why := fmt.Sprintf("other programs used %.0f %% of the CPU", 100*figures.others())
		say("%s discarded: %s", what, why)
		u.report.Discarded = append(u.report.Discarded, unused{u.part, what, rep, why, figures.others()})
	}
	return figures, false, nil
}

// incomplete returns an error if a run was refused, or if a variant or a target has no figure.
func (r *comparison) incomplete(compared []variant) (err error) {
	for _, run := range r.Refused {
		err = errors.Join(err, fmt.Errorf("%s was refused: %s", run.Variant, run.Why))
	}
	for _, v := range compared {
		if r.Parts["throughput"] != "" && r.spread(v.name, eventRate.of).n == 0 {
			err = errors.Join(err, fmt.Errorf("%s has no run that counts", v.name))
		}
	}
	for _, t := range targets() {
		if _, ok := t.figure(r); !ok && r.Parts[t.part] != "" {
			err = errors.Join(err, fmt.Errorf("no run counts for the target %q", t.title))
		}
	}
	return err
}

// phase is how long a load lasts: shorter in the short form.
func (s setup) phase() time.Duration {
	return max(2*time.Second, time.Duration(float64(s.seconds)*min(1, float64(s.events)/1e6)*float64(time.Second)))
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"
)

// A negative control is a program known to be wrong, and what it must be found guilty of: at least one of each group.
type negativeControl struct {
	name, fault string
	long, short int              // how often it is hit; traffic lasts as long as that takes
	only        epochs.Guarantee // that it breaks; empty for both
	guilty      [][]string
	inject      func(ctx context.Context, r *run) (figures, error) // the fault
}

var negativeControls = []negativeControl{
	{
		"acks=1", "lone leader kill -9", 4, 1, "",
		[][]string{{"acknowledged events lost", "acknowledged events changed"}},
		acknowledgingLeader,
	},
	{
		"stock-group", "acks held, kill -9", 4, 2, "",
		[][]string{{"notices missing"}, {"rows wrong", "rows missing"}},
		killHeld,
	},
	{"seen-return", "acks held, kill -9", 4, 0, "", [][]string{{"notices missing"}}, killHeld},
	{"seen-redo", "acks held, kill -9", 4, 0, "", [][]string{{"notices wrong"}}, killHeld},
	{
		judgedAsOnce, "kill -9, outputs not acked", 4, 2, epochs.ExactlyOnce,
		[][]string{{"notices repeated"}, {"index records repeated"}},
		killInGap(outputsNotAcked),
	},
	{
		"no index mirror", "processor SIGSTOP past session, outputs on their way", 4, 0, epochs.AtLeastOnce,
		[][]string{{"index not at the newest version"}},
		pausedIn(outputsNotSent, 14*time.Second, 18*time.Second, 2*time.Second),
	},
	{
		"read uncommitted", "kill -9, commit not sent", 4, 0, epochs.ExactlyOnce,
		[][]string{{"notices missing"}, {"rows missing", "rows wrong"}},
		killInGap(commitNotSent),
	},
	{
		"stale ends", "broker isolated, store wiped", 6, 0, "",
		[][]string{{"notices missing", "notices wrong"}, {"rows missing", "rows wrong"}},
		wipeBesideIsolated,
	},
	{
		"no generation", "processor SIGSTOP past session, transaction begun", 4, 0, epochs.ExactlyOnce,
		[][]string{{"notices repeated"}},
		// past the session of 10 s and the successor's first epochs, before the broker may end the transaction after
		// 15 s
		pausedIn(emptyNotAcked, 13500*time.Millisecond, 14500*time.Millisecond, 300*time.Millisecond),
	},
}

// judgedAsOnce is the product in at_least_once. All others are mutants.
const judgedAsOnce = "at_least_once judged as exactly_once"

const controlPace = 150 // deliveries a second

// runControls hits wrong programs as the product was hit, and notes what they are found guilty of.
func runControls(ctx context.Context, o options, c *cluster, dir, binary string, all *report) error {
	for i, n := range negativeControls {
		hits := n.long
		if o.short {
			hits = n.short
		}
		if !strings.Contains(n.name, o.control) || hits == 0 || n.only != "" && n.only != o.guarantee {
			continue
		}
		judged := &oracle.Report{Title: n.name}
		if err := runControl(ctx, o, c, dir, binary, n, hits, uint64(i), judged); err != nil {
			return fmt.Errorf("control %s: %w", n.name, err)
		}
		found := control{Name: n.name, Fault: n.fault, Hits: hits, Broken: map[string]int{}}
		for _, v := range judged.Violations {
			found.Broken[v.Name] = v.Count
		}
		for _, names := range n.guilty {
			violations := 0
			for _, name := range names {
				violations += judged.Count(name)
			}
			if violations == 0 {
				found.Missed = append(found.Missed, strings.Join(names, " or "))
			}
		}
		logf("control %s: %v, not found: %v", n.name, found.Broken, found.Missed)
		all.Controls = append(all.Controls, found)
	}
	return nil
}

func runControl(
	ctx context.Context, o options, c *cluster, dir, binary string, n negativeControl, hits int, i uint64,
	judged *oracle.Report,
) error {
	g, err := newInstallation(ctx, c, dir, fmt.Sprint("control", i), binary, o.guarantee)
	if err != nil {
		return err
	}
	g.serve = nil
	defer g.close()
	r := newRun(g, gen.Config{Seed: o.seed + i, Events: 100_000}, o)
	r.quick, r.enough = true, time.Nanosecond
	if err := g.replace(dir, n.name); err != nil {
		return err
	}
	for _, p := range g.all() {
		if err := p.Start(); err != nil {
			return err
		}
	}
	inject := func(ctx context.Context) error {
		r.traffic.pace.SetLimit(controlPace)
		for range hits {
			if err := r.settle(ctx, 120*time.Second); err != nil {
				return err
			}
			if err := r.traffic.awaitTraffic(ctx, 60*time.Second); err != nil {
				return err
			}
			if err := untilHit(ctx, func() error { _, err := n.inject(ctx, r); return err }); err != nil {
				return err
			}
		}
		return r.awaitNodes()
	}
	if err := r.sendDuring(ctx, inject, judged); err != nil {
		return err
	}
	return r.judge(ctx, false, judged)
}

// replace puts the wrong program in the place of the product's.
func (g *installation) replace(dir, name string) error {
	switch name {
	case "stock-group", "seen-return", "seen-redo", judgedAsOnce: // they are wrong in at_least_once
		g.guarantee = epochs.AtLeastOnce
		for i := range g.process {
			g.process[i] = g.newProcess(fmt.Sprint(i+1), "--instance-id", instance(i))
		}
	}
	if name == judgedAsOnce {
		return nil
	}
	path, err := rig.Mutants[name].Build(dir)
	roles := g.process
	if name == "acks=1" {
		roles = g.ingress
	}
	for _, p := range roles {
		p.Path = path
	}
	return err
}

// pausedIn is the product's pause past the session, with one step of its epochs held open for some time when it
// begins. Hardly anything is sent when it ends, or that would soon cover what the paused owner left.
func pausedIn(g gap, least, most, open time.Duration) func(context.Context, *run) (figures, error) {
	return func(ctx context.Context, r *run) (figures, error) {
		d := r.between(least, most)
		slow := time.AfterFunc(open+d-500*time.Millisecond, func() { r.traffic.pace.SetLimit(1) })
		defer func() { slow.Stop(); r.traffic.pace.SetLimit(controlPace) }()
		_, err := pauseAndResume(ctx, r, pick(r.rnd, r.process), d, &g, open)
		return nil, err
	}
}

// untilHit hits again, for a minute, until there was something to hit.
func untilHit(ctx context.Context, hit func() error) error {
	for begin := time.Now(); ; {
		err := hit()
		if !errors.Is(err, errMissed) || time.Since(begin) > time.Minute {
			return err
		}
		if err := rig.Sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// acknowledgingLeader hits a lone leader that has acknowledged several events: the first may be in an answer to a
// follower, which reads it when it goes on.
func acknowledgingLeader(ctx context.Context, r *run) (figures, error) {
	if err := r.settle(ctx, 120*time.Second); err != nil {
		return nil, err
	}
	f, err := loneLeader(ctx, r)
	logf("a leader without followers acknowledged %v events", f[acknowledgedAlone])
	if err == nil && f[acknowledgedAlone] < 10 {
		err = errMissed
	}
	return f, err
}

// killHeld kills the processors while the acknowledgements of what they derived are held.
func killHeld(ctx context.Context, r *run) (figures, error) {
	notify := r.topics.Notify
	if err := rig.AwaitGrowth(ctx, r.client, notify, rig.End(ctx, r.client, notify)); err != nil {
		return nil, err
	}
	held := append(derived(r.installation), r.topics.DLQ)
	lift := r.proxy.Inject(&proxy.Fault{Effect: proxy.HoldAnswers, Match: func(q proxy.Request) bool {
		return overlap(q.Topics, held)
	}})
	defer lift()
	err := rig.Sleep(ctx, 1500*time.Millisecond+r.upTo(time.Second))
	for _, p := range r.process {
		err = errors.Join(err, p.Kill())
	}
	lift()
	err = errors.Join(err, rig.Sleep(ctx, 200*time.Millisecond)) // what was sent before the kill arrives
	before := rig.End(ctx, r.client, notify)
	for _, p := range r.process {
		err = errors.Join(err, p.Start())
	}
	return nil, errors.Join(err, rig.AwaitGrowth(ctx, r.client, notify, before))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/proxy"
	"tidemark/kafka/epochs"
)

// A mistake is a program known to be wrong, and what it must be found guilty of: at least one of each group.
type mistake struct {
	name, fault string
	long, short int              // how often it is hit; traffic lasts as long as that takes
	only        epochs.Guarantee // that it breaks; empty for both
	guilty      [][]string
	wrong       func(c *controlRun) error // puts it in the place of the product's
	hit         func(c *controlRun, ctx context.Context) error
}

var mistakes = []mistake{
	{
		"ingress with acks=1", "lone leader kill -9", 4, 1, "",
		[][]string{{"acknowledged events lost", "acknowledged events changed"}},
		(*controlRun).acksOne, (*controlRun).killLone,
	},
	{
		"stock-group", "acks held, kill -9", 4, 2, "",
		[][]string{{"notices missing"}, {"rows wrong", "rows missing"}},
		(*controlRun).wrongGroup, (*controlRun).killHeld,
	},
	{"seen-return", "acks held, kill -9", 4, 0, "", [][]string{{"notices missing"}}, (*controlRun).wrongGroup, (*controlRun).killHeld},
	{"seen-redo", "acks held, kill -9", 4, 0, "", [][]string{{"notices wrong"}}, (*controlRun).wrongGroup, (*controlRun).killHeld},
	{
		"at_least_once, of which exactly_once is asked", "kill -9, outputs not acked", 4, 2, epochs.ExactlyOnce,
		[][]string{{"notices repeated"}, {"index records repeated"}},
		(*controlRun).atLeastOnce, killedIn(outputsNotAcked),
	},
	{
		"index not looked at", "processor SIGSTOP past session, outputs on their way", 4, 0, epochs.AtLeastOnce,
		[][]string{{"index not at the newest version"}},
		as(noMirror), asleepIn(outputsNotSent, 14*time.Second, 18*time.Second, 2*time.Second),
	},
	{
		"uncommitted rows are read", "kill -9, commit not sent", 4, 0, epochs.ExactlyOnce,
		[][]string{{"notices missing"}, {"rows missing", "rows wrong"}},
		as(uncommittedRows), killedIn(commitNotSent),
	},
	{
		"old ends are believed", "broker isolated, store wiped", 6, 0, "",
		[][]string{{"notices missing", "notices wrong"}, {"rows missing", "rows wrong"}},
		as(oldEnds), (*controlRun).wipeBesideIsolated,
	},
	{
		"generation not told", "processor SIGSTOP past session, transaction begun", 4, 0, epochs.ExactlyOnce,
		[][]string{{"notices repeated"}},
		// past the session of 10 s and the successor's first epochs, before the broker may end the transaction after 15 s
		as(noGeneration), asleepIn(emptyNotAcked, 13500*time.Millisecond, 14500*time.Millisecond, 300*time.Millisecond),
	},
}

const controlPace = 150 // deliveries a second

type controlRun struct {
	*run
	dir    string
	name   string
	behind *proxy.Proxy // before the plaintext listeners, which is all that a control speaks
}

// controls hits wrong programs as the product was hit, and notes what they are found guilty of.
func controls(ctx context.Context, o options, c *cluster, dir, binary string, all *report) error {
	for i, m := range mistakes {
		hits := m.long
		if o.short {
			hits = m.short
		}
		if !strings.Contains(m.name, o.control) || hits == 0 || m.only != "" && m.only != o.guarantee {
			continue
		}
		judged := &oracle.Report{Title: m.name}
		if err := tryControl(ctx, o, c, dir, binary, m, hits, uint64(i), judged); err != nil {
			return fmt.Errorf("control %s: %w", m.name, err)
		}
		found := control{Name: m.name, Fault: m.fault, Hits: hits, Broken: map[string]int{}}
		for _, v := range judged.Violations {
			found.Broken[v.Name] = v.Count
		}
		for _, names := range m.guilty {
			n := 0
			for _, name := range names {
				n += judged.Count(name)
			}
			if n == 0 {
				found.Missed = append(found.Missed, strings.Join(names, " or "))
			}
		}
		say("control %s: %v, not found: %v", m.name, found.Broken, found.Missed)
		all.Controls = append(all.Controls, found)
	}
	return nil
}

func tryControl(ctx context.Context, o options, c *cluster, dir, binary string, m mistake, hits int, n uint64, judged *oracle.Report) error {
	g, err := newRig(ctx, c, dir, fmt.Sprint("control", n), binary, o.guarantee)
	if err != nil {
		return err
	}
	g.serve = nil
	defer g.close()
	h := gen.New(gen.Config{Seed: o.seed + n, Events: 100_000, Base: time.Now().Truncate(time.Second)})
	r := &controlRun{name: m.name, dir: dir, run: &run{
		rig: g, once: g.transactional(), rnd: rand.New(rand.NewPCG(o.seed+n, 4)), quick: true, enough: time.Nanosecond, begin: time.Now(), peak: map[string]float64{},
		foreign: &foreign{rig: g, rnd: rand.New(rand.NewPCG(o.seed+n, 5)), written: map[string]bool{}},
	}}
	if r.behind, err = proxy.Start(proxy.Config{Brokers: c.plain}); err != nil {
		return err
	}
	defer r.behind.Close()
	if err := m.wrong(r); err != nil {
		return err
	}
	for _, p := range g.all() {
		if err := p.start(); err != nil {
			return err
		}
	}
	r.traffic = newTraffic(h, g.ingress)
	hurt := func(ctx context.Context) error {
		r.traffic.pace.SetLimit(controlPace)
		for range hits {
			if err := r.settle(ctx, 120*time.Second); err != nil {
				return err
			}
			if err := r.traffic.flows(ctx, 60*time.Second); err != nil {
				return err
			}
			if err := m.hit(r, ctx); err != nil {
				return err
			}
		}
		return r.revived()
	}
	if err := r.pour(ctx, hurt, judged); err != nil {
		return err
	}
	return r.judge(ctx, false, judged)
}

// acksOne puts the ingress that asks too little in the place of both.
func (c *controlRun) acksOne() error {
	path, err := build(c.dir, "tidemark/faults/acksone")
	if err != nil {
		return err
	}
	for _, p := range c.ingress {
		p.path = path
		p.args = []string{"-brokers", strings.Join(c.plain, ","), "-topic", c.topics.Events, "-addr", strings.TrimPrefix(p.url, "http://")}
	}
	return nil
}

// wrongGroup puts the files group with a mistake in the place of the processors.
func (c *controlRun) wrongGroup() error {
	path, err := build(c.dir, "tidemark/e2e/control")
	if err != nil {
		return err
	}
	c.foreign = &foreign{rig: c.rig, rnd: c.foreign.rnd, written: c.foreign.written, tame: true}
	p := c.process[1]
	p.path = path
	p.args = []string{
		"-brokers", c.behind.Addrs()[0], "-topic-prefix", c.prefix, "-partitions", fmt.Sprint(partitions),
		"-data", filepath.Join(c.rig.dir, "data-control"), "-mistake", c.name,
	}
	c.process = []*program{p}
	return nil
}

// atLeastOnce has the processors promise less than they are judged by.
func (c *controlRun) atLeastOnce() error {
	c.guarantee = epochs.AtLeastOnce
	for i := range c.process {
		c.process[i] = c.newProcess(fmt.Sprint(i+1), "--instance-id", instance(i))
	}
	return nil
}

// as puts a mutant in the place of the processors.
func as(m mutant) func(c *controlRun) error {
	return func(c *controlRun) error {
		path, err := m.build(c.dir)
		if err != nil {
			return err
		}
		for _, p := range c.process {
			p.path = path
		}
		return nil
	}
}

// killedIn is the product's fault of the gap's name.
func killedIn(g gap) func(c *controlRun, ctx context.Context) error {
	return func(c *controlRun, ctx context.Context) error {
		return insist(ctx, func() error { _, err := killInGap(g)(ctx, c.run); return err })
	}
}

// asleepIn is the product's pause past the session, with one step of its epochs held open for some time when it begins. Hardly
// anything is sent when it ends, or it would soon cover what the sleeper left.
func asleepIn(g gap, least, most, open time.Duration) func(c *controlRun, ctx context.Context) error {
	return func(c *controlRun, ctx context.Context) error {
		return insist(ctx, func() error {
			d := c.between(least, most)
			ebb := time.AfterFunc(open+d-500*time.Millisecond, func() { c.traffic.pace.SetLimit(1) })
			defer func() { ebb.Stop(); c.traffic.pace.SetLimit(controlPace) }()
			_, err := sleepAndWake(ctx, c.run, pick(c.rnd, c.process), d, &g, open)
			return err
		})
	}
}

// killLone is the product's fault of the same name.
func (c *controlRun) killLone(ctx context.Context) error {
	return insist(ctx, func() error { _, err := loneLeader(ctx, c.run); return err })
}

// wipeBesideIsolated is the product's fault of the same name.
func (c *controlRun) wipeBesideIsolated(ctx context.Context) error {
	return insist(ctx, func() error { _, err := wipeBesideIsolated(ctx, c.run); return err })
}

// insist hits again, for a minute, until there was something to hit.
func insist(ctx context.Context, hit func() error) error {
	for begin := time.Now(); ; {
		err := hit()
		if !errors.Is(err, errMissed) || time.Since(begin) > time.Minute {
			return err
		}
		if err := sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// killHeld kills the processor while the acknowledgements of what it derived are held.
func (c *controlRun) killHeld(ctx context.Context) error {
	grew := func() error {
		begin := time.Now()
		for before := c.end(ctx, c.topics.Notify); c.end(ctx, c.topics.Notify) <= before; {
			if time.Since(begin) > 60*time.Second {
				return fmt.Errorf("no notice for a minute\n%s", c.process[0].tail())
			}
			if err := sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
	if err := grew(); err != nil {
		return err
	}
	held := append(derived(c.rig), c.topics.DLQ)
	lift := c.behind.Inject(&proxy.Fault{Effect: proxy.HoldAnswers, Match: func(q proxy.Request) bool { return overlap(q.Topics, held) }})
	defer lift()
	if err := sleep(ctx, 1500*time.Millisecond+c.upTo(time.Second)); err != nil {
		return err
	}
	if err := c.process[0].kill(); err != nil {
		return err
	}
	lift()
	if err := sleep(ctx, 200*time.Millisecond); err != nil { // what the dead process had sent arrives
		return err
	}
	if err := c.process[0].start(); err != nil {
		return err
	}
	return grew()
}

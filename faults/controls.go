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
	long, short int  // how often it is hit; traffic lasts as long as that takes
	once        bool // of exactly_once only
	guilty      [][]string
	wrong       func(c *controlRun) error // puts it in the place of the product's
	hit         func(c *controlRun, ctx context.Context) error
}

var mistakes = []mistake{
	{
		"ingress with acks=1", "lone leader kill -9", 4, 1, false,
		[][]string{{"acknowledged events lost", "acknowledged events changed"}},
		(*controlRun).acksOne, (*controlRun).killLone,
	},
	{
		"stock-group", "acks held, kill -9", 4, 2, false,
		[][]string{{"notices missing"}, {"rows wrong", "rows missing"}},
		(*controlRun).wrongGroup, (*controlRun).killHeld,
	},
	{"seen-return", "acks held, kill -9", 4, 0, false, [][]string{{"notices missing"}}, (*controlRun).wrongGroup, (*controlRun).killHeld},
	{"seen-redo", "acks held, kill -9", 4, 0, false, [][]string{{"notices wrong"}}, (*controlRun).wrongGroup, (*controlRun).killHeld},
	{
		"at_least_once, of which exactly_once is asked", "kill -9, outputs not acked", 4, 2, true,
		[][]string{{"notices repeated"}, {"index records repeated"}},
		(*controlRun).atLeastOnce, (*controlRun).killBetween,
	},
}

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
		if hits == 0 || m.once && o.guarantee != epochs.ExactlyOnce {
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
		rig: g, once: g.transactional(), rnd: rand.New(rand.NewPCG(o.seed+n, 4)), quick: true, enough: time.Nanosecond, begin: time.Now(), peak: map[string]float64{}, say: say,
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
		r.traffic.pace.SetLimit(150)
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

// killBetween is the product's fault of the same name.
func (c *controlRun) killBetween(ctx context.Context) error {
	_, err := killInGap(outputsNotAcked)(ctx, c.run)
	return err
}

// killLone is the product's fault of the same name.
func (c *controlRun) killLone(ctx context.Context) error {
	for begin := time.Now(); ; {
		_, err := loneLeader(ctx, c.run)
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
	derived := append(outputs(c.rig), append(rows(c.rig), c.topics.DLQ)...)
	lift := c.behind.Inject(&proxy.Fault{Effect: proxy.HoldAnswers, Match: func(q proxy.Request) bool { return overlap(q.Topics, derived) }})
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

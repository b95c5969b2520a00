package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidemark/e2e/rig"
)

// An overload runs the ingress against a broker that it can stop and kill: `tidemark dev` in a process of its own.
type overload struct {
	*installation
	broker *rig.Program
	client *http.Client
}

// The ordinary load, in events a second: ten workspaces, each far below its limit.
const (
	calmWorkspaces = 10
	limit          = 100 // of each workspace
	calmRate       = 400 // of all of them
	hotRate        = 10 * limit
)

// overloaded measures the effect of a hot workspace on others, what several ingress instances accept, and the
// ingress's memory at ten times its load with and without a broker, and under clients that send a byte a second.
func overloaded(ctx context.Context, s setup) (result, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 8192, DisableCompression: true}
	o := &overload{client: &http.Client{Timeout: 10 * time.Second, Transport: transport}}
	any, kafka := "127.0.0.1:0", rig.FreeAddr()
	dev := []string{"dev", "--kafka-addr", kafka, "--ingress-addr", any, "--api-addr", any}
	o.broker = rig.New(s.binary, s.dir, "broker", dev...).Store()
	if err := o.startBroker(ctx); err != nil {
		return nil, err
	}
	defer o.broker.Close()
	s.brokers, s.events = []string{kafka}, 0
	var err error
	if o.installation, err = s.install(ctx); err != nil {
		return nil, err
	}
	figures := result{"measured": "overload", "seconds_each": s.seconds}
	for _, part := range []struct {
		name string
		run  func(context.Context) (result, error)
	}{{"hot_workspace", o.hot}, {"two_instances", o.instances}, {"slow_clients", o.slow}, {"broker_away", o.away}} {
		if s.parts != "" && !slices.Contains(strings.Split(s.parts, ","), part.name) {
			continue
		}
		if figures[part.name], err = part.run(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return figures, nil
}

// startBroker starts the broker on the data that it has, and waits for it.
func (o *overload) startBroker(ctx context.Context) error {
	if err := o.broker.Start(); err != nil {
		return err
	}
	_, err := o.broker.AwaitReady(ctx, patience)
	return err
}

// phase is how long each load lasts.
func (o *overload) phase() time.Duration { return time.Duration(o.seconds) * time.Second }

// crowd sends events of some workspaces at a rate.
func (o *overload) crowd(name string, workspaces int64, rate int, to ...*rig.Program) *crowd {
	body := func(n int64) []byte { return crowdBody(name, workspaces, n, 200) }
	return &crowd{client: o.client, to: to, rate: rate, outstanding: 256, body: body}
}

// hot sends the ordinary load without and with a workspace at ten times its limit.
func (o *overload) hot(ctx context.Context) (result, error) {
	p, err := o.ingress(ctx, "hot", "--workspace-rate", fmt.Sprint(limit))
	if err != nil {
		return nil, err
	}
	defer p.Close()
	calm, hot := o.crowd("calm", calmWorkspaces, calmRate, p), o.crowd("hot", 1, hotRate, p)
	calm.run(ctx, 3*time.Second) // warm up
	alone := calm.run(ctx, o.phase())
	others, refused := together(ctx, o.phase(), calm, hot)
	return result{
		"others_alone": alone.figures(), "others_beside_it": others.figures(), "the_hot_one": refused.figures(),
		"limit_per_s": limit,
	}, stop(p)
}

// instances sends one workspace's load to two instances in turn.
func (o *overload) instances(ctx context.Context) (result, error) {
	var all []*rig.Program
	for _, name := range []string{"first", "second"} {
		p, err := o.ingress(ctx, name, "--workspace-rate", fmt.Sprint(limit), "--workspace-burst", "20")
		if err != nil {
			return nil, err
		}
		defer p.Close()
		all = append(all, p)
	}
	figures := o.crowd("both", 1, hotRate, all...).run(ctx, o.phase()).figures()
	figures["limit_per_s_and_instance"] = limit
	return figures, errors.Join(stop(all[0]), stop(all[1]))
}

// away sends ten times the ordinary load, one event in a hundred of 256 KiB, while the broker runs, is stopped, is
// killed and is back.
func (o *overload) away(ctx context.Context) (result, error) {
	p, err := o.ingress(ctx, "away")
	if err != nil {
		return nil, err
	}
	defer p.Close()
	figures := result{}
	flood := o.crowd("flood", 100, 10*calmRate, p)
	flood.outstanding, flood.body = 8000, func(n int64) []byte {
		size := 200
		if n%100 == 0 {
			size = len(padding)
		}
		return crowdBody("flood", 100, n, size)
	}
	for _, step := range []struct {
		name   string
		before func() error
	}{
		{"1_broker_there", func() error { return nil }},
		{"2_broker_hangs", func() error { return o.broker.Signal(syscall.SIGSTOP) }},
		{"3_broker_wakes", func() error { return o.broker.Signal(syscall.SIGCONT) }},
		{"4_broker_gone", o.broker.Kill},
		{"5_broker_back", func() error { return o.startBroker(ctx) }},
	} {
		if err := step.before(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		memory := watch(ctx, p)
		f := flood.run(ctx, o.phase()).figures()
		memory.add(f)
		figures[step.name] = f
	}
	return figures, stop(p)
}

// slow has clients that send a byte a second beside the ordinary load.
func (o *overload) slow(ctx context.Context) (result, error) {
	p, err := o.ingress(ctx, "slow")
	if err != nil {
		return nil, err
	}
	defer p.Close()
	calm := o.crowd("slow", calmWorkspaces, calmRate, p)
	calm.run(ctx, 3*time.Second) // warm up
	figures := result{"others_alone": calm.run(ctx, o.phase()).figures()}
	for _, how := range []string{"headers", "body", "large_body"} {
		memory, trickle := watch(ctx, p), startTrickle(ctx, p.URL+webhook, how, o.slowClients)
		f := calm.run(ctx, o.phase()).figures()
		trickle.stop(f)
		memory.add(f)
		figures["beside_slow_"+how] = f
	}
	return figures, stop(p)
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidemark/kafka"
	"tidemark/topology"
)

// An overload runs the ingress against a broker that it can take away: `tidemark dev` in a process of its own.
type overload struct {
	setup
	kafka   string // address of the broker
	streams topology.Streams
	broker  *process
	client  *http.Client
}

// The ordinary load, in events a second: ten workspaces beside each other, each far below its limit.
const (
	calmWorkspaces = 10
	limit          = 100 // of each workspace
	calmRate       = 400 // of all of them
	hotRate        = 10 * limit
)

// overloaded measures what others notice of a hot workspace, what several ingress instances let through, and what memory the
// ingress takes at ten times its load with and without a broker, and under clients that send a byte a second.
func overloaded(ctx context.Context, s setup) (result, error) {
	o := &overload{setup: s, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8192, DisableCompression: true}}}
	if err := os.Setenv("TIDEMARK_WEBHOOK_SECRETS", benchSecret); err != nil {
		return nil, err
	}
	var err error
	if o.streams, err = topology.New("overload", topology.Sizing{Partitions: s.partitions, Replication: 1, MinISR: 1}); err != nil {
		return nil, err
	}
	if o.kafka, err = freeAddr(); err != nil {
		return nil, err
	}
	if err := o.startBroker(ctx); err != nil {
		return nil, err
	}
	defer func() { o.broker.kill() }() // the one that runs then
	if _, err := kafka.ApplyTopics(ctx, kafka.Config{Brokers: []string{o.kafka}}, o.streams.Topics()); err != nil {
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
func (o *overload) startBroker(ctx context.Context) (err error) {
	any := "127.0.0.1:0"
	o.broker, err = o.launch(ctx, "broker", alone(), "dev", "--data", filepath.Join(o.dir, "broker"), "--kafka-addr", o.kafka, "--ingress-addr", any, "--api-addr", any)
	if err != nil {
		return err
	}
	return await(ctx, o.broker.ready)
}

// instance starts an ingress, which has to become ready unless the broker is away.
func (o *overload) instance(ctx context.Context, name string, flags ...string) (p *process, url string, err error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	p, err = o.launch(ctx, name, alone(), append([]string{
		"ingest", "--brokers", o.kafka, "--ingress-addr", addr, "--topic-prefix", "overload",
		"--replication", "1", "--min-insync", "1", "--partitions", fmt.Sprint(o.partitions),
	}, flags...)...)
	if err != nil {
		return nil, "", err
	}
	return p, "http://" + addr + "/webhook/fastio", await(ctx, p.ready)
}

// alone is the environment without settings of tidemark: what is measured is set by flags alone.
func alone() (env []string) {
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, "TIDEMARK_") || strings.HasPrefix(pair, "TIDEMARK_WEBHOOK_SECRETS=") {
			env = append(env, pair)
		}
	}
	return env
}

// phase is how long each load lasts.
func (o *overload) phase() time.Duration { return time.Duration(o.seconds) * time.Second }

// hot sends the ordinary load without and with a workspace at ten times its limit.
func (o *overload) hot(ctx context.Context) (result, error) {
	p, url, err := o.instance(ctx, "hot", "--workspace-rate", fmt.Sprint(limit))
	if err != nil {
		return nil, err
	}
	defer p.kill()
	calm := &crowd{client: o.client, urls: []string{url}, workspaces: calmWorkspaces, name: "calm", rate: calmRate, outstanding: 256}
	hot := &crowd{client: o.client, urls: []string{url}, workspaces: 1, name: "hot", rate: hotRate, outstanding: 256}
	calm.run(ctx, 3*time.Second) // warm up
	alone := calm.run(ctx, o.phase())
	others, refused := together(ctx, o.phase(), calm, hot)
	return result{"others_alone": alone.figures(), "others_beside_it": others.figures(), "the_hot_one": refused.figures(), "limit_per_s": limit}, p.stop()
}

// instances sends one workspace's load to two instances in turn.
func (o *overload) instances(ctx context.Context) (result, error) {
	var urls []string
	var all []*process
	for _, name := range []string{"first", "second"} {
		p, url, err := o.instance(ctx, name, "--workspace-rate", fmt.Sprint(limit), "--workspace-burst", "20")
		if err != nil {
			return nil, err
		}
		defer p.kill()
		urls, all = append(urls, url), append(all, p)
	}
	hot := &crowd{client: o.client, urls: urls, workspaces: 1, name: "both", rate: hotRate, outstanding: 256}
	figures := hot.run(ctx, o.phase()).figures()
	figures["limit_per_s_and_instance"] = limit
	for _, p := range all {
		if err := p.stop(); err != nil {
			return nil, err
		}
	}
	return figures, nil
}

// away sends ten times the ordinary load, and large events among it, while the broker is there, stopped, killed and back.
func (o *overload) away(ctx context.Context) (result, error) {
	p, url, err := o.instance(ctx, "away")
	if err != nil {
		return nil, err
	}
	defer p.kill()
	figures := result{}
	flood := &crowd{client: o.client, urls: []string{url}, workspaces: 100, name: "flood", rate: 10 * calmRate, outstanding: 8000, large: 0.01}
	during := func(what string) {
		memory := p.watch()
		f := flood.run(ctx, o.phase()).figures()
		memory.add(f)
		figures[what] = f
	}
	during("1_broker_there")
	if err := o.broker.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return nil, fmt.Errorf("stop the broker: %w", err)
	}
	during("2_broker_hangs")
	if err := o.broker.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return nil, fmt.Errorf("wake the broker: %w", err)
	}
	during("3_broker_wakes")
	o.broker.kill()
	<-o.broker.ended
	during("4_broker_gone")
	if err := o.startBroker(ctx); err != nil {
		return nil, err
	}
	during("5_broker_back")
	return figures, p.stop()
}

// slow has clients that send a byte a second beside the ordinary load.
func (o *overload) slow(ctx context.Context) (result, error) {
	p, url, err := o.instance(ctx, "slow")
	if err != nil {
		return nil, err
	}
	defer p.kill()
	calm := &crowd{client: o.client, urls: []string{url}, workspaces: calmWorkspaces, name: "slow", rate: calmRate, outstanding: 256}
	calm.run(ctx, 3*time.Second) // warm up
	alone := calm.run(ctx, o.phase()).figures()
	figures := result{"others_alone": alone}
	for _, how := range []string{"headers", "body", "large_body"} {
		memory, trickle := p.watch(), startTrickle(ctx, url, how, o.slowClients)
		f := calm.run(ctx, o.phase()).figures()
		trickle.stop(f)
		memory.add(f)
		figures["beside_slow_"+how] = f
	}
	return figures, p.stop()
}

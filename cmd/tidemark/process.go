package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/processors"
	"tidemark/topology"
)

// dataFlags say where a process keeps what it can make anew.
type dataFlags struct {
	Data string `help:"Folder for local stores. They are caches of the topics: an empty one is filled again." default:"./.tidemark" placeholder:"DIR"`
}

// processFlags are the settings of the processors.
type processFlags struct {
	InstanceID   string        `help:"Name of this instance, unique and the same after a restart: it then takes its partitions back at once, where a killed one's are free only after its session's 10 s." name:"instance-id" placeholder:"NAME"`
	Guarantee    string        `help:"What readers of the topics see after a crash: at_least_once may repeat outputs byte for byte, exactly_once publishes in transactions, shows each output once to who reads committed records, and needs --instance-id." enum:"at_least_once,exactly_once" default:"at_least_once" placeholder:"NAME"`
	AcceptNewLog bool          `help:"Start although the events topic was deleted and made anew."`
	Epoch        time.Duration `help:"How long table rows are gathered before they are published." default:"20ms" placeholder:"TIME"`
}

// check refuses what cannot be promised: without a name that lasts, a restarted instance could not end what it left open.
func (f processFlags) check() error {
	if f.Guarantee == string(epochs.ExactlyOnce) && f.InstanceID == "" {
		return usagef("--guarantee exactly_once needs --instance-id: a name of this instance, unique and the same after a restart")
	}
	return nil
}

// A processCommand folds events.
type processCommand struct {
	clusterFlags
	sizingFlags
	dataFlags
	processFlags
	Groups []string `help:"Which groups to run here: files, workspaces or both." enum:"files,workspaces" default:"files,workspaces" placeholder:"NAME"`
	adminFlags
	logFlags
}

// Run processes until ctx ends.
func (c *processCommand) Run(ctx context.Context, con console) error {
	if err := c.check(); err != nil {
		return err
	}
	config, err := c.config()
	if err != nil {
		return err
	}
	streams, err := c.streams()
	if err != nil {
		return err
	}
	h, err := newHost(ctx, c.logger(con.err), c.adminFlags)
	if err != nil {
		return err
	}
	gate := h.await(processRole, config, streams)
	h.serveDeadLetters(gate, config, streams)
	conf := c.groups(h, config, streams, c.Data)
	var roles []service
	if slices.Contains(c.Groups, "files") { // first to stop: it feeds the other
		roles = append(roles, h.group(gate, "files", processors.NewFiles(conf)))
	}
	if slices.Contains(c.Groups, "workspaces") {
		roles = append(roles, h.group(gate, "workspaces", processors.NewWorkspaces(conf)))
	}
	return h.run(ctx, append(roles, service{name: "topics", run: gate.run})...)
}

// groups is what both groups are built with.
func (f processFlags) groups(h *host, config kafka.Config, streams topology.Streams, data string) processors.Config {
	return processors.Config{
		Kafka: config, Streams: streams, Dir: filepath.Join(data, "processors"),
		Log: h.log.With("role", "process"), Metrics: h.registry,
		InstanceID: f.InstanceID, Guarantee: epochs.Guarantee(f.Guarantee), AcceptNewLog: f.AcceptNewLog, Epoch: f.Epoch,
	}
}

// A group is either of the two groups of package processors.
type group interface {
	Run(ctx context.Context) error
	Ready() error
}

// group is the service of g, which starts once the gate is open.
func (h *host) group(gate *startGate, name string, g group) service {
	h.readiness.Add(name, gate.ready(g.Ready))
	return service{name: name, run: gate.then(g.Run)}
}

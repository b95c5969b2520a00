package main

import (
	"context"
	"path/filepath"
	"time"

	"tidemark/kafka"
	"tidemark/processors"
	"tidemark/topology"
)

// dataFlags say where a process keeps what it can make anew.
type dataFlags struct {
	Data string `help:"Folder for local stores. They are caches of the topics: an empty one is filled again." default:"./.tidemark" placeholder:"DIR"`
}

// processFlags are the settings of the processors.
type processFlags struct {
	AcceptNewLog bool          `help:"Start although the events topic was deleted and made anew."`
	Epoch        time.Duration `help:"How long table rows are gathered before they are published." default:"20ms" placeholder:"TIME"`
}

// A processCommand folds events.
type processCommand struct {
	clusterFlags
	sizingFlags
	dataFlags
	processFlags
	adminFlags
	logFlags
}

// Run processes until ctx ends.
func (c *processCommand) Run(ctx context.Context, con console) error {
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
	fit := h.awaitTopics(config, streams.Topics()...)
	roles, _ := c.processors(h, fit, config, streams, c.Data)
	return h.run(ctx, append(roles, service{name: "topics", run: fit.run})...)
}

// processors builds both groups, which process from fit on, and returns the files group too. That stops first: it feeds the other.
func (f processFlags) processors(h *host, fit *cluster, config kafka.Config, streams topology.Streams, data string) ([]service, *processors.Files) {
	conf := processors.Config{
		Kafka: config, Streams: streams, Dir: filepath.Join(data, "processors"),
		Log: h.log.With("role", "process"), Metrics: h.registry,
		AcceptNewLog: f.AcceptNewLog, Epoch: f.Epoch,
	}
	files, workspaces := processors.NewFiles(conf), processors.NewWorkspaces(conf)
	h.readiness.Add("files", fit.ready(files.Ready))
	h.readiness.Add("workspaces", fit.ready(workspaces.Ready))
	return []service{
		{name: "files", run: fit.then(files.Run)},
		{name: "workspaces", run: fit.then(workspaces.Run)},
	}, files
}

package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"tidemark/kafka/epochs"
	"tidemark/processors"
	"tidemark/topology"
)

// dataFlags say where a process keeps its local stores.
type dataFlags struct {
	Data string `help:"Directory for local stores. They are caches of the topics: an empty one is filled again." default:"./.tidemark" placeholder:"DIR"`
}

// processFlags are the settings of the processors.
type processFlags struct {
	InstanceID   string        `help:"Name of this instance, unique and the same after a restart: a restarted instance then gets its partitions back at once, not after the session timeout of 10 s." name:"instance-id" placeholder:"NAME"`
	Guarantee    string        `help:"What consumers see after a crash: at_least_once may repeat outputs byte for byte; exactly_once publishes in transactions, shows each output once to read_committed consumers, and needs --instance-id." enum:"at_least_once,exactly_once" default:"at_least_once" placeholder:"NAME"`
	AcceptNewLog bool          `help:"Start although the events topic was deleted and recreated."`
	RowCacheMB   int64         `help:"Memory for rows that were used last, of each group, in MB (2^20 bytes). A row that is not in it is read from the local store." name:"row-cache-mb" default:"128" placeholder:"MB"`
	Epoch        time.Duration `help:"How long events are collected before their effects are published together, while there is a backlog; otherwise a tenth of it." default:"50ms" placeholder:"TIME"`
}

// maxRowCacheMB is a terabyte: more is a mistake, such as a number of bytes.
const maxRowCacheMB = 1 << 20

// check refuses exactly_once without an instance id, which is part of the transactional id, and a wrong row cache.
func (f processFlags) check() error {
	if f.RowCacheMB < 0 || f.RowCacheMB > maxRowCacheMB {
		return usagef("--row-cache-mb %d: want 0 to %d", f.RowCacheMB, maxRowCacheMB)
	}
	if f.Guarantee == string(epochs.ExactlyOnce) && f.InstanceID == "" {
		return usagef("--guarantee exactly_once needs --instance-id: a name of this instance, unique and the same " +
			"after a restart")
	}
	return nil
}

// A processCommand folds events.
type processCommand struct {
	roleFlags
	dataFlags
	processFlags
	Groups []string `help:"Groups to run in this process: files, workspaces or both." enum:"files,workspaces" default:"files,workspaces" placeholder:"NAME"`
}

// Run processes until ctx ends.
func (c *processCommand) Run(ctx context.Context, con console) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.runRole(ctx, con, topology.Streams.ProcessRole, func(h *host) (groups []service, err error) {
		h.serveDeadLetters()
		conf := c.groups(h, c.Data)
		if slices.Contains(c.Groups, "files") { // the first to stop: it produces what workspaces consumes
			groups = append(groups, h.group("files", processors.NewFiles(conf)))
		}
		if slices.Contains(c.Groups, "workspaces") {
			groups = append(groups, h.group("workspaces", processors.NewWorkspaces(conf)))
		}
		return groups, nil
	})
}

// groups returns the configuration of both groups.
func (f processFlags) groups(h *host, data string) processors.Config {
	return processors.Config{
		Kafka: h.kafka, Streams: h.streams, Dir: filepath.Join(data, "processors"),
		Log: h.log.With("role", "process"), Metrics: h.registry,
		InstanceID: f.InstanceID, Guarantee: epochs.Guarantee(f.Guarantee), AcceptNewLog: f.AcceptNewLog,
		Epoch: f.Epoch, RowCache: f.RowCacheMB << 20,
	}
}

// A group is one of the groups of package processors.
type group interface {
	Run(ctx context.Context) error
	Ready() error
}

// group returns the service of g, which starts once the gate is open.
func (h *host) group(name string, g group) service {
	h.readiness.Add(name, h.gate.ready(g.Ready))
	return service{name: name, run: h.gate.then(g.Run)}
}

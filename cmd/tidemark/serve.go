package main

import (
	"context"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/topology"
	"tidemark/views"
)

// serveFlags are the settings of the query API.
type serveFlags struct {
	APIAddr      string        `help:"Address of the query API." name:"api-addr" default:":8080" placeholder:"HOST:PORT" address:"listen"`
	MaxStaleness time.Duration `help:"Age of an answer past which there is none but 503; 0 for any." default:"0" placeholder:"TIME"`
}

// maxReaders is how many connections the query API has open: each may wait for up to a minute, or be sent a page of megabytes.
// Further ones wait where the kernel keeps them.
const maxReaders = 4096

// A serveCommand answers queries.
type serveCommand struct {
	clusterFlags
	sizingFlags
	dataFlags
	serveFlags
	adminFlags
	drainFlags
	logFlags
}

// Run answers until ctx ends.
func (c *serveCommand) Run(ctx context.Context, con console) error {
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
	h.delay = c.DrainDelay
	gate := h.await(serveRole, config, streams)
	api, copies, err := c.views(ctx, h, gate, config, streams, c.Data, nil)
	if err != nil {
		return err
	}
	return h.run(ctx, api, copies, service{name: "topics", run: gate.run})
}

// views builds the API and the copies of the tables it answers from, which are kept up to date once the gate is open.
func (f serveFlags) views(ctx context.Context, h *host, gate *startGate, config kafka.Config, streams topology.Streams, data string, duplicates func() int64) (api, copies service, err error) {
	log := h.log.With("role", "serve")
	dead := deadletters.NewCounter(deadletters.New(config, streams), log)
	server, err := views.New(views.Config{
		Kafka: config, Streams: streams, Dir: filepath.Join(data, "views"),
		Log: log, Metrics: h.registry,
		MaxStaleness: f.MaxStaleness, Duplicates: duplicates, DeadLettered: dead.Open,
	})
	if err != nil {
		return service{}, service{}, err
	}
	listener, err := listen(ctx, "--api-addr", f.APIAddr)
	if err != nil {
		return service{}, service{}, err
	}
	h.readiness.Add("views", gate.ready(server.Ready))
	api = service{name: "api", addr: listener.Addr().String(), run: func(ctx context.Context) error {
		context.AfterFunc(ctx, server.Stop)
		return serveHTTP(ctx, netutil.LimitListener(listener, maxReaders), httpServer(h.parting(gate.handler(server.Handler())), h.log), h.log.With("role", "api"))
	}}
	return api, service{name: "views", run: gate.then(func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return server.Run(ctx) })
		group.Go(func() error { return dead.Run(ctx) })
		return group.Wait()
	})}, nil
}

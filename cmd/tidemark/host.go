package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/telemetry"
)

// adminFlags say where a process shows how it is.
type adminFlags struct {
	AdminAddr string `help:"Address of /healthz, /readyz, /metrics, and /dlq where events are folded." default:"127.0.0.1:9600" placeholder:"HOST:PORT" address:"listen"`
}

// drainFlags are of roles that a load balancer may stand before.
type drainFlags struct {
	DrainDelay time.Duration `help:"How long requests are still taken after SIGTERM, while /readyz says no: as long as the load balancer takes to notice." default:"0s" placeholder:"TIME"`
}

// A host is what every long-running process has, whatever its roles: a log, metrics, readiness and the admin address.
type host struct {
	log       *slog.Logger
	registry  *prometheus.Registry
	readiness *telemetry.Readiness
	admin     net.Listener
	dead      http.Handler  // of the dead letters, in a process that makes some
	delay     time.Duration // see drainFlags
	leaving   atomic.Bool
}

// newHost opens the admin address. A process whose roles never ran closes it by ending.
func newHost(ctx context.Context, log *slog.Logger, flags adminFlags) (*host, error) {
	admin, err := listen(ctx, "--admin-addr", flags.AdminAddr)
	if err != nil {
		return nil, err
	}
	h := &host{log: log, registry: telemetry.NewRegistry(telemetry.ReadBuild()), readiness: &telemetry.Readiness{}, admin: admin}
	h.registry.MustRegister(h.readiness)
	return h, nil
}

// run runs the services until ctx ends, and drains: readiness first, after a delay the services in their order, the admin
// address last.
func (h *host) run(ctx context.Context, services ...service) error {
	services = append(services, service{name: "admin", run: func(ctx context.Context) error {
		return serveHTTP(ctx, h.admin, httpServer(h.adminHandler(), h.log), h.log.With("role", "admin"))
	}})
	begin := time.Now()
	drain := func() {
		begin = time.Now()
		h.readiness.Drain()
		h.leaving.Store(true)
		h.log.InfoContext(ctx, "draining", "delay", h.delay.String())
		if ctx.Err() != nil { // nothing has failed
			time.Sleep(h.delay)
		}
	}
	err := runServices(ctx, drain, services...)
	h.log.InfoContext(ctx, "left", "drained_in", time.Since(begin).Round(time.Millisecond).String())
	return err
}

// parting asks clients to come back on another connection, which the load balancer will send elsewhere, from the moment on
// that the process is told to leave. A connection that is closed while it lies idle may lose the request that was just sent.
func (h *host) parting(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

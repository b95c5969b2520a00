package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/auth"
	"tidemark/deadletters"
	"tidemark/doctor"
	"tidemark/kafka"
	"tidemark/sinks"
	"tidemark/telemetry"
	"tidemark/topology"
)

// adminFlags are the settings of the admin address.
type adminFlags struct {
	authFlags
	hostFlags
	Pprof     bool   `help:"Serve profiles for go tool pprof at /debug/pprof on the admin address. Needs a token as /dlq does."`
	AdminAddr string `help:"Address for /healthz, /readyz and /metrics, and for /dlq where events are folded, which needs a token (--auth) where the address is not on loopback." default:"127.0.0.1:9600" placeholder:"HOST:PORT" address:"listen"`
}

// drainFlags are the settings of roles behind a load balancer.
type drainFlags struct {
	DrainDelay time.Duration `help:"How long requests are still accepted after SIGTERM, while /readyz answers 503: as long as the load balancer takes to notice." default:"0s" placeholder:"TIME"`
}

// roleFlags are the settings that every role has.
type roleFlags struct {
	sizedFlags
	adminFlags
	logFlags
}

// roleNames are the names of all roles.
var roleNames = func() (names []string) {
	for _, role := range (topology.Streams{}).Roles() {
		names = append(names, role.Name)
	}
	return names
}()

// runRole runs one role until ctx ends. build returns its services, in the order in which they stop.
func (f roleFlags) runRole(ctx context.Context, con console, role func(topology.Streams) topology.Role,
	build func(*host) ([]service, error),
) error {
	config, streams, err := f.connect()
	if err != nil {
		return err
	}
	h, err := newHost(ctx, f.logger(con.err), f.adminFlags)
	if err != nil {
		return err
	}
	h.await(config, streams, role(streams))
	services, err := build(h)
	if err != nil {
		return err
	}
	return h.run(ctx, services...)
}

// A host has what the services of a process share: settings, log, metrics, readiness, the start-up gate and the admin
// address.
type host struct {
	kafka     kafka.Config
	streams   topology.Streams
	gate      *startGate
	log       *slog.Logger
	registry  *prometheus.Registry
	readiness *telemetry.Readiness
	admin     net.Listener
	flags     adminFlags

	apiGuard, adminGuard *auth.Guard // nil: no tokens are needed

	sinkMetrics *sinks.Metrics // nil: no sink runs

	dlq      http.Handler         // of /dlq on the admin address; nil: none
	dead     *deadletters.Handler // nil: no dead letters are served
	delay    time.Duration        // see drainFlags
	draining atomic.Bool
}

// newHost opens the admin address, and reads the tokens or keys. Before run nothing closes it but the end of the
// process.
func newHost(ctx context.Context, log *slog.Logger, flags adminFlags) (*host, error) {
	admin, err := listen(ctx, "--admin-addr", flags.AdminAddr)
	if err != nil {
		return nil, err
	}
	h := &host{
		log: log, registry: telemetry.NewRegistry(telemetry.ReadBuild()), readiness: &telemetry.Readiness{},
		admin: admin, flags: flags,
	}
	h.registry.MustRegister(h.readiness)
	if h.apiGuard, h.adminGuard, err = flags.guards(ctx, flags.AdminAddr, log, h.registry); err != nil {
		return nil, errors.Join(err, admin.Close())
	}
	return h, nil
}

// await sets the cluster, and a gate that opens once the role's topics and ACLs pass validation.
func (h *host) await(config kafka.Config, streams topology.Streams, role topology.Role) {
	h.setGate(config, streams, role.Uses(),
		func(ctx context.Context) error { return doctor.CheckRole(ctx, config, role) })
}

// setGate sets the cluster, and a gate that opens once check passes, and then watches the partition counts of topics.
// Readiness shows why it is closed.
func (h *host) setGate(config kafka.Config, streams topology.Streams, topics []topology.Topic,
	check func(context.Context) error,
) {
	h.kafka, h.streams = config, streams
	h.gate = newStartGate(check, h.log)
	h.gate.watch = func() (*kafka.TopicChecker, error) { return kafka.NewTopicChecker(config, topics) }
	h.readiness.Add("topics", h.gate.Ready)
}

// openDeadLetters makes the dead letters ready to be served: the query API has them then.
func (h *host) openDeadLetters() {
	show := func(r *kgo.Record) any { return newRecord(r) }
	h.dead = deadletters.NewHandler(deadletters.New(h.kafka, h.streams), show, h.log.With("role", "dead-letters"))
}

// serveDeadLetters adds /dlq to the admin address too.
func (h *host) serveDeadLetters() {
	h.openDeadLetters()
	h.dlq = h.gate.handler(h.dead)
}

// adminHandler serves the admin address. What probes and Prometheus read is open, under any host name; a path that is
// added is not.
func (h *host) adminHandler() http.Handler {
	mux := http.NewServeMux()
	dlq := h.flags.allowHosts(h.adminGuard, h.flags.AdminAddr, h.dlq)
	mux.Handle("/", telemetry.AdminHandler(h.registry, h.readiness))
	if h.dlq != nil {
		mux.Handle("/dlq", dlq)
		mux.Handle("/dlq/", dlq)
	}
	if h.flags.Pprof {
		profiles := http.NewServeMux()
		profiles.HandleFunc("/debug/pprof/", pprof.Index)
		profiles.HandleFunc("/debug/pprof/profile", pprof.Profile)
		profiles.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		profiles.HandleFunc("/debug/pprof/trace", pprof.Trace)
		mux.Handle("/debug/pprof/", h.flags.allowHosts(h.adminGuard, h.flags.AdminAddr, unlimited(profiles)))
	}
	if h.adminGuard == nil {
		return mux
	}
	return h.adminGuard.AdminHandler(mux, "/healthz", "/readyz", "/metrics")
}

// unlimited lifts the read timeout of the server, which would end a request whose answer takes longer: a profile takes
// as long as it was asked for.
func unlimited(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // not supported by the writers of tests
		handler.ServeHTTP(w, r)
	})
}

// run runs the services and the gate until ctx ends, and drains: readiness first, after a delay jobs on dead letters,
// then the services in their order, the gate, and the admin address last.
func (h *host) run(ctx context.Context, services ...service) error {
	if h.dead != nil { // the first to stop: a job must not go on while the others drain
		services = append([]service{{name: "dead-letters", run: h.dead.Run}}, services...)
	}
	services = append(services, service{name: "topics", run: h.gate.run},
		service{name: "admin", run: func(ctx context.Context) error {
			return serveHTTP(ctx, h.admin, httpServer(h.adminHandler(), h.log), h.log.With("role", "admin"))
		}})
	begin := time.Now()
	drain := func() {
		begin = time.Now()
		h.readiness.Drain()
		h.draining.Store(true)
		h.log.InfoContext(ctx, "draining", "delay", h.delay.String())
		if ctx.Err() != nil { // no service has failed
			time.Sleep(h.delay)
		}
	}
	err := runServices(ctx, drain, services...)
	h.log.InfoContext(ctx, "stopped", "drained_in", time.Since(begin).Round(time.Millisecond).String())
	return err
}

// closeConnections adds Connection: close to answers while the process drains, so that clients open another connection,
// which the load balancer sends elsewhere. Closing an idle connection instead may lose a request that was just sent on
// it.
func (h *host) closeConnections(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

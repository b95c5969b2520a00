package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/net/netutil"

	"tidemark/ingress"
	"tidemark/kafka"
	"tidemark/topology"
)

// ingestFlags are the settings of the ingress role.
type ingestFlags struct {
	webhookFlags
	EventAliases   []string      `help:"Foreign names of events and the known ones whose meaning they have, from=to; guide for those of the vendor's guides. They hold for what is received from then on." placeholder:"FROM=TO" group:"Webhooks"`
	IngressAddr    string        `help:"Address for webhooks." default:":5000" placeholder:"HOST:PORT" address:"listen"`
	WorkspaceRate  float64       `help:"Events a second that one workspace may send; 0 for any." default:"0" placeholder:"N" group:"Webhooks"`
	WorkspaceBurst int           `help:"Events that it may send at once; 0 for twice the rate." default:"0" placeholder:"N" group:"Webhooks"`
	MaxInFlight    int           `help:"Events not yet acknowledged by Kafka, past which the answer is 503; 0 for 4096." default:"0" placeholder:"N" group:"Webhooks"`
	MaxConnections int           `help:"Connections open at a time, past which new ones wait; 0 for 8192." default:"0" placeholder:"N" group:"Webhooks"`
	IngressLinger  time.Duration `help:"How long an event waits for others to share its batch." default:"1ms" placeholder:"TIME" group:"Webhooks"`
}

// aliases reads the names; what is wrong with them is said before anything is made.
func (f ingestFlags) aliases() (ingress.Aliases, error) {
	aliases, err := ingress.ParseAliases(f.EventAliases)
	if err != nil {
		return nil, usagef("--event-aliases %w", err)
	}
	return aliases, nil
}

// An ingestCommand receives webhooks.
type ingestCommand struct {
	clusterFlags
	sizingFlags
	ingestFlags
	adminFlags
	drainFlags
	logFlags
}

// Run receives webhooks until ctx ends.
func (c *ingestCommand) Run(ctx context.Context, con console) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	streams, err := c.streams()
	if err != nil {
		return err
	}
	scheme, err := c.scheme()
	if err != nil {
		return err
	}
	secrets, err := c.secrets(scheme)
	if err != nil {
		return err
	}
	h, err := newHost(ctx, c.logger(con.err), c.adminFlags)
	if err != nil {
		return err
	}
	h.delay = c.DrainDelay
	gate := h.await(ingestRole, config, streams)
	role, err := c.ingress(ctx, h, gate, config, streams, scheme, secrets)
	if err != nil {
		return err
	}
	return h.run(ctx, role, service{name: "topics", run: gate.run})
}

// await returns the start-up gate of a role: it opens once the role's topics and ACLs pass validation. Readiness shows why it is
// closed.
func (h *host) await(role string, config kafka.Config, streams topology.Streams) *startGate {
	topics, access := needsOf(role, streams)
	gate := newStartGate(func(ctx context.Context) error {
		if err := kafka.CheckTopics(ctx, config, topics); err != nil {
			return err
		}
		return kafka.CheckAccess(ctx, config, access)
	}, h.log)
	gate.watch = func() (*kafka.TopicChecker, error) { return kafka.NewTopicChecker(config, topics) }
	h.readiness.Add("topics", gate.Ready)
	return gate
}

// ingress builds the role, which takes requests once the gate is open:
//
//	ctx ends ──▶ requests finished ──▶ events in flight acknowledged, producer closed
func (f ingestFlags) ingress(ctx context.Context, h *host, gate *startGate, config kafka.Config, streams topology.Streams, scheme ingress.Scheme, secrets []ingress.Secret) (service, error) {
	if err := checkRate("--workspace-rate", f.WorkspaceRate); err != nil {
		return service{}, err
	}
	aliases, err := f.aliases()
	if err != nil {
		return service{}, err
	}
	if f.WorkspaceBurst < 0 || f.MaxInFlight < 0 || f.MaxConnections < 0 {
		return service{}, usagef("--workspace-burst %d, --max-in-flight %d, --max-connections %d: want 0 or more",
			f.WorkspaceBurst, f.MaxInFlight, f.MaxConnections)
	}
	events, err := kafka.NewTopicChecker(config, []topology.Topic{streams.Events})
	if err != nil {
		return service{}, err
	}
	server, err := ingress.New(ingress.Config{
		Scheme: scheme, Secrets: secrets, Aliases: aliases,
		Brokers: config.Brokers, Topic: streams.Events.Name, Producer: kafka.ProducerBuilder(config, f.IngressLinger, streams.Events.Partitions),
		Check: events.Topics,
		Rate:  f.WorkspaceRate, Burst: f.WorkspaceBurst, MaxInFlight: f.MaxInFlight, Partitions: streams.Events.Partitions,
		Log: h.log.With("role", "ingress"), Metrics: h.registry,
	})
	if err != nil {
		return service{}, err
	}
	listener, err := listen(ctx, "--ingress-addr", f.IngressAddr)
	if err != nil {
		return service{}, err
	}
	// Further connections wait in the kernel's backlog: an open one costs memory and a file descriptor.
	listener = netutil.LimitListener(listener, cmp.Or(f.MaxConnections, 2*ingress.DefaultMaxInFlight))
	h.readiness.Add("ingress", gate.ready(server.Ready))
	return service{name: "ingress", addr: listener.Addr().String(), run: func(ctx context.Context) error {
		defer events.Close()
		bounded := ingress.HTTPServer("", h.parting(gate.handler(server.Handler())), h.log)
		return errors.Join(serveHTTP(ctx, listener, bounded, h.log.With("role", "ingress")), closeIngress(ctx, server, h.log.With("role", "ingress")))
	}}, nil
}

// closeIngress waits for the events in flight. Where brokers do not answer, their senders have been told to send them again, and
// nothing is lost by leaving.
func closeIngress(ctx context.Context, server *ingress.Server, log *slog.Logger) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Close(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		log.WarnContext(ctx, "left with events that Kafka has not acknowledged; their senders were answered 503", "error", err)
		return nil
	}
	return err
}

package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/net/netutil"

	"tidemark/ingress"
	"tidemark/kafka"
	"tidemark/topology"
)

// ingestFlags are the settings of the ingress role.
type ingestFlags struct {
	webhookFlags
	EventAliases   []string      `help:"Unknown event names and the known ones that they mean, from=to; guide for those of the vendor's guides. Applies to events received from then on." placeholder:"FROM=TO" group:"Webhooks"`
	IngressAddr    string        `help:"Address for webhooks." default:"${ingress_addr}" placeholder:"HOST:PORT" address:"listen"`
	WorkspaceRate  float64       `help:"Events per second that one workspace may send; 0 for no limit." default:"0" placeholder:"N" group:"Webhooks"`
	WorkspaceBurst int           `help:"Burst of events that one workspace may send; 0 for twice the rate." default:"0" placeholder:"N" group:"Webhooks"`
	MaxInFlight    int           `help:"Most events that Kafka has not acknowledged yet; above it the answer is 503. 0 for 4096." default:"0" placeholder:"N" group:"Webhooks"`
	MaxConnections int           `help:"Most open connections; further ones wait. 0 for 8192." default:"0" placeholder:"N" group:"Webhooks"`
	IngressLinger  time.Duration `help:"How long an event waits at most, while others are not acknowledged yet, to be sent in one batch with the next." default:"5ms" placeholder:"TIME" group:"Webhooks"`
}

// aliases parses --event-aliases.
func (f ingestFlags) aliases() (ingress.Aliases, error) {
	aliases, err := ingress.ParseAliases(f.EventAliases)
	if err != nil {
		return nil, usagef("--event-aliases %w", err)
	}
	return aliases, nil
}

// An ingestCommand receives webhooks.
type ingestCommand struct {
	roleFlags
	ingestFlags
	drainFlags
}

// Run receives webhooks until ctx ends.
func (c *ingestCommand) Run(ctx context.Context, con console) error {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		heapReserve := make([]byte, ingress.HeapReserve)
		defer runtime.KeepAlive(heapReserve)
	}
	scheme, err := c.scheme()
	if err != nil {
		return err
	}
	secrets, err := c.secrets(scheme)
	if err != nil {
		return err
	}
	return c.runRole(ctx, con, topology.Streams.IngestRole, func(h *host) ([]service, error) {
		h.delay = c.DrainDelay
		webhooks, err := c.ingress(ctx, h, scheme, secrets)
		return []service{webhooks}, err
	})
}

// ingress builds the service that receives webhooks. It accepts requests once the gate is open. When ctx ends it
// finishes open requests, waits until the events in flight are acknowledged, and closes the producer.
func (f ingestFlags) ingress(ctx context.Context, h *host, scheme ingress.Scheme, secrets []ingress.Secret) (service,
	error,
) {
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
	topic, log := h.streams.Events, h.log.With("role", "ingress")
	checker, err := kafka.NewTopicChecker(h.kafka, []topology.Topic{topic})
	if err != nil {
		return service{}, err
	}
	producer, err := kafka.NewProducer(h.kafka, kgo.ProducerLinger(0))
	if err != nil {
		return service{}, err
	}
	server, err := ingress.New(ingress.Config{
		Scheme: scheme, Secrets: secrets, Aliases: aliases,
		Topic: topic.Name, Partitions: topic.Partitions, Producer: producer, Linger: f.IngressLinger,
		Check: checker.Topics,
		Rate:  f.WorkspaceRate, Burst: f.WorkspaceBurst,
		MaxInFlight: f.MaxInFlight,
		Log:         log, Metrics: h.registry,
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
	h.readiness.Add("ingress", h.gate.ready(server.Ready))
	return service{name: "ingress", addr: listener.Addr().String(), run: func(ctx context.Context) error {
		defer checker.Close()
		bounded := ingress.HTTPServer("", h.closeConnections(h.gate.handler(server.Handler())), h.log)
		return errors.Join(serveHTTP(ctx, listener, bounded, log), closeIngress(ctx, server, log))
	}}, nil
}

// closeIngress waits for the events in flight. If the brokers do not acknowledge them, their senders have been answered
// 503 and send them again.
func closeIngress(ctx context.Context, server *ingress.Server, log *slog.Logger) error {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Close(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		log.WarnContext(ctx, "stopped with events that Kafka has not acknowledged; their senders were answered 503",
			"error", err)
		return nil
	}
	return err
}

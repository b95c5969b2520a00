// Command nokafka is `tidemark ingest` without Kafka: the same HTTP server, with a producer that acknowledges at once and
// keeps nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/ingress"
	"tidemark/telemetry"
)

// An acknowledger is an ingress.Producer.
type acknowledger struct{ offset atomic.Int64 }

func (a *acknowledger) TryProduce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error)) {
	record.Offset = a.offset.Add(1)
	promise(record, nil)
}

func (*acknowledger) Close() {}

func main() {
	if err := run(); err != nil {
		slog.Error("stopped", "error", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("ingress-addr", "", "for webhooks")
	admin := flag.String("admin-addr", "", "for /readyz")
	partitions := flag.Int("partitions", 8, "that events are divided into")
	flag.Parse()
	heapReserve := make([]byte, ingress.HeapReserve)
	defer runtime.KeepAlive(heapReserve)
	secrets, err := ingress.ParseSecrets(ingress.Scheme{}, os.Getenv("TIDEMARK_WEBHOOK_SECRETS"))
	if err != nil {
		return err
	}
	registry, log := prometheus.NewRegistry(), slog.Default()
	server, err := ingress.New(ingress.Config{
		Secrets: secrets, Topic: "none", Partitions: *partitions, Producer: &acknowledger{},
		Check: func(context.Context) error { return nil }, Log: log, Metrics: registry,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	webhooks := ingress.HTTPServer(*addr, server.Handler(), log)
	probes := ingress.HTTPServer(*admin, telemetry.AdminHandler(registry, &telemetry.Readiness{}), log)
	ended := make(chan error, 2)
	for _, s := range []*http.Server{webhooks, probes} {
		go func() { ended <- s.ListenAndServe() }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(webhooks.Shutdown(limit), probes.Shutdown(limit))
}

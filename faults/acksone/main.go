// Command acksone is the ingress with one mistake: it answers 200 when the leader alone has the event.
//
// It promises to differ from the product in the acknowledgements that it asks for, and in nothing else. It is never part of
// a release: the fault harness must find it guilty of losing what it acknowledged.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/ingress"
	"tidemark/kafka/producer"
	"tidemark/topology"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "acksone:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("acksone", flag.ContinueOnError)
	brokers := flags.String("brokers", "", "brokers, separated by commas")
	topic := flags.String("topic", "", "the events topic")
	addr := flags.String("addr", "", "where to listen for webhooks")
	if err := flags.Parse(args); err != nil {
		return err
	}
	scheme, err := ingress.ParseScheme("fastio", "")
	if err != nil {
		return err
	}
	secrets, err := ingress.ParseSecrets(scheme, os.Getenv("TIDEMARK_WEBHOOK_SECRETS"))
	if err != nil {
		return err
	}
	server, err := ingress.New(ingress.Config{
		Scheme: scheme, Secrets: secrets, Brokers: strings.Split(*brokers, ","), Topic: *topic, Producer: producer.Builder(open, time.Millisecond, 0),
		Check: func(context.Context) error { return nil }, Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	listening := &http.Server{Addr: *addr, Handler: server.Handler(), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = listening.Close() }) // the process ends with it
	if err := listening.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}

// open makes the product's producer, with the mistake: later options win. Without all acknowledgements it cannot be idempotent, and
// keeps the order by one request at a time.
func open(more ...kgo.Opt) (*kgo.Client, error) {
	options := slices.Concat(producer.Options(topology.MaxMessageBytes), more)
	return kgo.NewClient(append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))...)
}

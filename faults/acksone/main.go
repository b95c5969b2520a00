// Command acksone is the ingress with one mistake: it answers 200 when the leader alone has the event.
//
// It promises to differ from the product in the acknowledgements that it asks for, and in nothing else. It is never part of
// a release: the fault harness must find it guilty of losing what it acknowledged.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"tidemark/ingress"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
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
		Scheme: scheme, Secrets: secrets, Brokers: strings.Split(*brokers, ","), Topic: *topic, Producer: producerBuilder,
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

// producerBuilder makes the mistake.
func producerBuilder(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
	byKey := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int {
			h := hasher()
			_, _ = h.Write(r.Key) // a hash never fails: see hash.Hash
			return int(h.Sum32() % uint32(n))
		}
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID(clientID), kgo.RecordPartitioner(byKey),
		kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1),
		kgo.ProducerLinger(time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return nil, err
	}
	return producer{client}, nil
}

type producer struct{ client *kgo.Client }

func (p producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	record := &kgo.Record{Topic: topic, Key: []byte(key), Value: value}
	for name, value := range headers {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: value})
	}
	p.client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
		finish(&sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Offset: r.Offset}, err)
	})
	return promise
}

func (p producer) Close() error {
	p.client.Close()
	return nil
}

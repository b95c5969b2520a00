// Command control is the files group built wrongly, in one of four ways, to show that the crash test finds each of them.
//
// It promises to differ from the product in how it publishes and commits, and in nothing else: the same topics, group, fold,
// codecs, hasher, producer and client settings. What happens to a folder does not reach its entries: that would need the product's
// store, and no mistake is about it. It is never part of a release.
package main

import (
	"context"
	"flag"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/topology"

	"github.com/lovoo/goka"
	"github.com/lovoo/goka/storage"
)

// A mistake is one way of getting it wrong. All of them publish in goka's own order: the row goes to the local store first,
// then to the changelog, and the outputs are not ordered with either.
type mistake struct {
	name string
	says string
	// stock leaves out the wrapper that commits only the contiguous finished prefix: goka marks each event as it is finished,
	// and sarama commits the largest mark.
	stock bool
	// redo gives the outputs of an event that is found in the row again, from the row as it is now; else it is dropped.
	redo bool
	// early finishes an event before what it emitted is acknowledged.
	early bool
}

var mistakes = []mistake{
	{name: "stock-group", says: "goka's own group, which commits past unfinished events", stock: true, redo: true},
	{name: "seen-return", says: "goka's order; an event found in the row is dropped"},
	{name: "seen-redo", says: "goka's order; an event found in the row is done again from the current row", redo: true},
	{name: "commit-early", says: "goka's order; offsets are committed before the acknowledgements", redo: true, early: true},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "control:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("control", flag.ContinueOnError)
	brokers := flags.String("brokers", "", "brokers, separated by commas")
	prefix := flags.String("topic-prefix", "", "prefix of all topics")
	partitions := flags.Int("partitions", 32, "partitions of every topic")
	dir := flags.String("data", "", "folder of the local store")
	name := flags.String("mistake", "", "which mistake to make")
	if err := flags.Parse(args); err != nil {
		return err
	}
	i := slices.IndexFunc(mistakes, func(m mistake) bool { return m.name == *name })
	if i < 0 {
		return fmt.Errorf("no mistake %q among %+v", *name, mistakes)
	}
	streams, err := topology.New(*prefix, topology.Sizing{Partitions: *partitions, Replication: 1, MinISR: 1})
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	conf := kafka.Config{Brokers: strings.Split(*brokers, ","), ClientID: "control"}
	ids, err := kafka.TopicIDs(ctx, conf, streams.Events.Name)
	if err != nil {
		return err
	}
	log.InfoContext(ctx, "starting", "mistake", *name, "cluster", ids[streams.Events.Name].Cluster)
	f := &files{streams: streams, mistake: mistakes[i], logID: ids[streams.Events.Name].Topic, log: log}
	options := append(epochs.ClientOptions(conf.Cluster(), kafka.FileHasher, log),
		goka.WithProducerBuilder(f.producer(kafka.ProducerBuilder(conf, 2*time.Millisecond, 0))),
		goka.WithStorageBuilder(storage.DefaultBuilder(filepath.Join(*dir, "control"))),
		goka.WithConsumerGroupBuilder(f.group(conf)))
	processor, err := goka.NewProcessor(conf.Brokers, f.graph(), options...)
	if err != nil {
		return err
	}
	return processor.Run(ctx)
}

// producer makes the mistake of commit-early.
func (f *files) producer(inner goka.ProducerBuilder) goka.ProducerBuilder {
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		p, err := inner(brokers, clientID, hasher)
		if err != nil || !f.mistake.early {
			return p, err
		}
		return eager{p}, nil
	}
}

// eager calls everything sent that it was given.
type eager struct{ inner goka.Producer }

func (e eager) Emit(topic, key string, value []byte) *goka.Promise {
	return e.EmitWithHeaders(topic, key, value, nil)
}

func (e eager) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	e.inner.EmitWithHeaders(topic, key, value, headers)
	promise, finish := goka.NewPromiseWithFinisher()
	finish(nil, nil)
	return promise
}

func (e eager) Close() error { return e.inner.Close() }

// Command bench measures tidemark on one machine, against a real cluster.
//
//	go run ./bench compare   [-events N] [-reps N]    tidemark beside Kafka Streams, goka and a bound; a report
//	go run ./bench ingress   [-seconds S] [-connections N]   webhooks/s, CPU per webhook and latency, beside no Kafka
//	go run ./bench search    [-events N] [-plugins DIR]   documents/s into OpenSearch, beside the stock connector
//	go run ./bench searchable [-seconds S] [-rate N]  ms from a webhook to the answer of a search that has the file
//	go run ./bench feed      [-seconds S]             1,000 readers of changes; a resync of 100,000 files
//	go run ./bench overload  [-seconds S] [-slow N]   the ingress with a hot workspace, no broker, slow clients
//
// compare is `make bench`. Its short form, which takes four minutes and whose figures mean nothing, and one part of it,
// which leaves the others in the report as they are:
//
//	make bench BENCH='-events 100000 -reps 1 -foreign 1 -report .cache/bench'
//	make bench BENCH='-parts latency,recovery'
//
// It runs the real binary as a process of its own, counts the output records before it reports a rate, and prints one
// JSON object a line. It makes no claim about absolute speed: compare figures of one machine and one hour.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"tidemark/e2e/rig"
)

// A setup has the flags of all measurements.
type setup struct {
	brokers    []string
	binary     string
	dir        string
	partitions int
	events     int
	files      int
	workspaces int
	added      float64
	seed       uint64

	seconds     int
	rate        float64
	connections int
	slowClients int
	parts       string

	searchURL, plugins string
	tasks, rounds      int

	reps         int
	foreign      float64
	only, report string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	measurements := map[string]func(context.Context, setup) (result, error){
		"compare": compare, "ingress": ingress, "overload": overloaded, "search": search, "searchable": searchable,
		"feed": feed,
	}
	if len(args) == 0 || measurements[args[0]] == nil {
		return errors.New("usage: bench compare|ingress|overload|search|searchable|feed [flags]")
	}
	var s setup
	flags := flag.NewFlagSet("bench "+args[0], flag.ContinueOnError)
	brokers := flags.String("brokers", os.Getenv("KAFKA_BROKERS"), "the cluster; default $KAFKA_BROKERS")
	flags.StringVar(&s.binary, "binary", "", "a tidemark binary; built from this source when empty")
	flags.IntVar(&s.partitions, "partitions", 8, "of each topic")
	flags.IntVar(&s.events, "events", 1_000_000, "to fold")
	flags.IntVar(&s.files, "files", 200_000, "at most")
	flags.Float64Var(&s.added, "added", 0.2, "share of events that add a file, as long as there may be more")
	flags.IntVar(&s.workspaces, "workspaces", 1000, "chosen by Zipf's law")
	flags.Uint64Var(&s.seed, "seed", 42, "of the input")
	flags.IntVar(&s.seconds, "seconds", 15, "of load")
	flags.Float64Var(&s.rate, "rate", 200, "events a second of searchable")
	flags.IntVar(&s.connections, "connections", 32, "of ingress load")
	flags.StringVar(&s.parts, "parts", "",
		"of compare: throughput, instances, recovery, latency, ingress, growth; "+
			"of overload: hot_workspace, two_instances, slow_clients, broker_away; of search: tidemark, connect; "+
			"all when empty")
	flags.IntVar(&s.slowClients, "slow", 2000, "clients of overload that send a byte a second")
	flags.StringVar(&s.searchURL, "search-url", os.Getenv("OPENSEARCH_URL"), "of search; default $OPENSEARCH_URL")
	flags.StringVar(&s.plugins, "plugins", "", "of search: a folder for Kafka Connect's plugin.path")
	flags.IntVar(&s.tasks, "tasks", 2, "of search: tasks.max of the connector")
	flags.IntVar(&s.rounds, "rounds", 3, "of search")
	flags.IntVar(&s.reps, "reps", 3, "of compare and ingress: runs of each variant")
	flags.Float64Var(&s.foreign, "foreign", 0.1, "of compare: a run is discarded above this share of the CPU")
	flags.StringVar(&s.only, "only", "", "of compare: names of variants; all when empty")
	flags.StringVar(&s.report, "report", "docs", "of compare: the folder of the report")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	// which starts and kills its own
	if s.brokers = strings.Split(*brokers, ","); *brokers == "" && args[0] != "overload" {
		return errors.New("no cluster: set -brokers or KAFKA_BROKERS, for example after `make kafka-start`")
	}
	dir, err := os.MkdirTemp("", "tidemark-bench")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // in the temporary folder: at worst it stays
	s.dir = dir
	if s.binary == "" {
		if s.binary, err = rig.Build(dir, "tidemark/cmd/tidemark"); err != nil {
			return err
		}
	}
	figures, err := measurements[args[0]](ctx, s)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

// A result is one line of figures, by name with its unit.
type result map[string]any

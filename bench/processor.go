package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// An installation has the topics of one measurement.
type installation struct {
	setup
	prefix string
	topics oracle.Topics
	client *kgo.Client
	unique int // events that are no repeats
	files  int
}

// install creates topics with a name of their own and fills the input.
func (s setup) install(ctx context.Context) (_ *installation, err error) {
	i := &installation{setup: s, prefix: fmt.Sprintf("bench%d", time.Now().UnixNano())}
	i.topics = oracle.TopicsOf(i.prefix)
	if err := rig.CreateTopics(ctx, s.binary, i.flags()...); err != nil {
		return nil, err
	}
	if i.client, err = rig.Client(s.brokers); err != nil {
		return nil, err
	}
	i.unique, i.files, err = s.fill(ctx, i.topics.Events)
	return i, err
}

// close deletes the topics.
func (i *installation) close(ctx context.Context) error {
	defer i.client.Close()
	return rig.DeleteTopics(ctx, i.client, i.topics)
}

// flags are what every command needs.
func (i *installation) flags() []string {
	return []string{
		"--brokers", strings.Join(i.brokers, ","), "--topic-prefix", i.prefix,
		"--partitions", strconv.Itoa(i.partitions), "--replication", "1", "--min-insync", "1",
	}
}

// process starts the groups.
func (i *installation) process(flags ...string) (*rig.Program, error) {
	command := slices.Concat([]string{"process", "--groups", i.groups}, flags, i.flags())
	p := rig.New(i.binary, i.dir, "process", command...).Store()
	return p, p.Start()
}

// promise are the flags of the groups whose rate or latency is measured.
func (s setup) promise() []string {
	return []string{"--guarantee", s.guarantee, "--instance-id", "bench", "--epoch", s.epoch.String()}
}

// awaitGroup waits until the files group has committed all of its input.
func (i *installation) awaitGroup(ctx context.Context) error {
	_, err := rig.Until(ctx, patience, func() (bool, error) {
		lag, err := rig.Lag(ctx, i.client, i.prefix+"-files", i.topics.Events)
		return lag == 0 && err == nil, nil // else the group does not exist yet
	})
	if err != nil {
		return fmt.Errorf("the files group has not committed its input: %w", err)
	}
	return nil
}

const (
	patience   = 10 * time.Minute
	drainLimit = 90 * time.Second
)

// stop ends a process with SIGTERM; it must drain.
func stop(p *rig.Program) error {
	_, err := p.Term(drainLimit)
	return err
}

// processor measures the files group from the first index record to the last commit.
func processor(ctx context.Context, s setup) (result, error) {
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	p, err := i.process(s.promise()...)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	_, err = rig.Until(ctx, patience, func() (bool, error) {
		return rig.End(ctx, i.client, i.topics.Index) > 0, p.Signal(0)
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the first index record: %w", err)
	}
	begin, before := time.Now(), p.Usage()
	if err := i.awaitGroup(ctx); err != nil {
		return nil, err
	}
	took, used := time.Since(begin), p.Usage()
	index := 0 // without the markers of transactions
	for partition := range s.partitions {
		if err := oracle.Each(ctx, s.brokers, i.topics.Index, partition, func(*kgo.Record) { index++ }); err != nil {
			return nil, err
		}
	}
	if index != i.unique {
		return nil, fmt.Errorf("the index topic has %d records, want %d: no rate of tidemark", index, i.unique)
	}
	rows := rig.End(ctx, i.client, i.topics.Files)
	if err := stop(p); err != nil {
		return nil, err
	}
	return result{
		"measured": "processor", "guarantee": s.guarantee, "epoch": s.epoch.String(), "events": s.events,
		"files":  i.files,
		"groups": s.groups, "partitions": s.partitions,
		"seconds": took.Seconds(), "events_per_s": per(float64(s.events), took.Seconds()),
		"cpu_s_per_million": per((used.CPU-before.CPU).Seconds()*1e6, float64(s.events)),
		"peak_rss_mb":       int(used.PeakMB),
		"index_records":     index, "table_records": rows,
	}, i.close(ctx)
}

// recovery measures how long an instance with an empty disk takes until it is ready again.
func recovery(ctx context.Context, s setup) (result, error) {
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	p, err := i.process()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := errors.Join(i.awaitGroup(ctx), stop(p)); err != nil {
		return nil, err
	}
	figures := result{
		"measured": "recovery", "files": i.files,
		"changelog_records": rig.End(ctx, i.client, i.topics.Files),
	}
	for _, how := range []string{"kept", "wiped"} {
		if how == "wiped" {
			if err := rig.Wipe(p.Data); err != nil {
				return nil, err
			}
		}
		begin := time.Now()
		if err := p.Start(); err != nil {
			return nil, err
		}
		if _, err := p.AwaitReady(ctx, patience); err != nil {
			return nil, err
		}
		figures["seconds_store_"+how] = per(time.Since(begin).Seconds(), 1)
		figures["peak_rss_mb_store_"+how] = int(p.Usage().PeakMB)
		if err := stop(p); err != nil {
			return nil, err
		}
	}
	return figures, i.close(ctx)
}

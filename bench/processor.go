package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/topology"
)

// A cluster is the topics of one measurement.
type cluster struct {
	streams topology.Streams
	admin   *kadm.Client
	unique  int // events that are no repeats
	files   int
}

// prepare makes topics of a name of their own and fills the input.
func (s setup) prepare(ctx context.Context) (*cluster, error) {
	size := topology.Sizing{Partitions: s.partitions, Replication: 1, MinISR: 1}
	streams, err := topology.New(fmt.Sprintf("bench%d", time.Now().UnixNano()), size)
	if err != nil {
		return nil, err
	}
	config := kafka.Config{Brokers: s.brokers, ClientID: "bench"}
	if _, err := kafka.ApplyTopics(ctx, config, streams.Topics()); err != nil {
		return nil, err
	}
	options, err := config.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("start client: %w", err)
	}
	c := &cluster{streams: streams, admin: kadm.NewClient(client)}
	c.unique, c.files, err = s.fill(ctx, streams.Events)
	return c, err
}

// close removes the topics.
func (c *cluster) close(ctx context.Context) error {
	var names []string
	for _, t := range c.streams.Topics() {
		names = append(names, t.Name)
	}
	_, err := c.admin.DeleteTopics(ctx, names...)
	c.admin.Close()
	if err != nil {
		return fmt.Errorf("delete the topics of this run: %w", err)
	}
	return nil
}

// processor measures the files group from the first index record to the last commit.
func processor(ctx context.Context, s setup) (result, error) {
	c, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	p, err := s.process(ctx, c)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	if err := await(ctx, func() (bool, error) { n, err := c.records(ctx, c.streams.Index.Name); return n > 0, err }); err != nil {
		return nil, err
	}
	begin, before := time.Now(), p.usage()
	if err := await(ctx, func() (bool, error) { return c.committed(ctx) }); err != nil {
		return nil, err
	}
	took, used := time.Since(begin), p.usage().minus(before)
	index, err := s.committedRecords(ctx, c.streams.Index.Name)
	if err != nil {
		return nil, err
	}
	if index != int64(c.unique) {
		return nil, fmt.Errorf("the index topic has %d records, want %d: the rate would be another program's", index, c.unique)
	}
	rows, err := c.records(ctx, c.streams.Files.Name)
	if err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	return result{
		"measured": "processor", "guarantee": s.guarantee, "epoch": s.epoch.String(), "events": s.events, "files": c.files, "groups": s.groups, "partitions": s.partitions,
		"seconds": took.Seconds(), "events_per_s": per(float64(s.events), took.Seconds()),
		"cpu_s_per_million": per(used.cpu.Seconds()*1e6, float64(s.events)), "peak_rss_mb": used.peakMB,
		"index_records": index, "table_records": rows,
	}, c.close(ctx)
}

// recovery measures how long an instance with an empty disk takes until it is ready again.
func recovery(ctx context.Context, s setup) (result, error) {
	c, err := s.prepare(ctx)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "data")
	p, err := s.start(ctx, c, "process", "--groups", s.groups, "--data", data)
	if err != nil {
		return nil, err
	}
	defer p.kill()
	if err := await(ctx, func() (bool, error) { return c.committed(ctx) }); err != nil {
		return nil, err
	}
	if err := p.stop(); err != nil {
		return nil, err
	}
	rows, err := c.records(ctx, c.streams.Files.Name)
	if err != nil {
		return nil, err
	}
	figures := result{"measured": "recovery", "files": c.files, "changelog_records": rows}
	for _, how := range []string{"kept", "wiped"} {
		if how == "wiped" {
			if err := os.RemoveAll(data); err != nil {
				return nil, fmt.Errorf("wipe the store: %w", err)
			}
		}
		begin := time.Now()
		again, err := s.start(ctx, c, "process", "--groups", s.groups, "--data", data)
		if err != nil {
			return nil, err
		}
		defer again.kill()
		if err := await(ctx, again.ready); err != nil {
			return nil, err
		}
		figures["seconds_store_"+how] = per(time.Since(begin).Seconds(), 1)
		figures["peak_rss_mb_store_"+how] = again.usage().peakMB
		if err := again.stop(); err != nil {
			return nil, err
		}
	}
	return figures, c.close(ctx)
}

// committedRecords reads a topic and counts what it is handed: the markers of transactions have offsets, too.
func (s setup) committedRecords(ctx context.Context, topic string) (n int64, err error) {
	config := kafka.Config{Brokers: s.brokers, ClientID: "bench"}
	all, err := kafka.Extent(ctx, config, topic)
	if err != nil {
		return 0, err
	}
	err = kafka.Read(ctx, config, topic, all, func(*kgo.Record) error { n++; return nil })
	return n, err
}

// records returns how many records a topic has taken.
func (c *cluster) records(ctx context.Context, topic string) (int64, error) {
	ends, err := c.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("look up %s: %w", topic, err)
	}
	n := int64(0)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	return n, nil
}

// committed says whether the files group has committed all of its input.
func (c *cluster) committed(ctx context.Context) (bool, error) {
	ends, err := c.admin.ListEndOffsets(ctx, c.streams.Events.Name)
	if err != nil {
		return false, fmt.Errorf("look up the input: %w", err)
	}
	commits, err := c.admin.FetchOffsets(ctx, c.streams.FilesGroup)
	if err != nil {
		return false, nil // the group does not exist yet
	}
	done := true
	ends.Each(func(o kadm.ListedOffset) {
		at, ok := commits.Lookup(o.Topic, o.Partition)
		done = done && (o.Offset == 0 || ok && at.At >= o.Offset)
	})
	return done, nil
}

// await asks ten times a second, for at most ten minutes.
func await(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

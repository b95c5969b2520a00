package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/topology"
)

// A tailCommand prints the records of a topic.
type tailCommand struct {
	clusterFlags
	prefixFlags
	outputFlags
	Topic     string `arg:"" help:"Topic, with or without the prefix: events, files-table, index, notify, dlq or workspaces-table."`
	From      string `help:"Where to begin in each partition: start, end, or an offset." default:"end" placeholder:"WHERE" env:"-"`
	Partition *int32 `help:"Only this partition." placeholder:"N" env:"-"`
	UntilEnd  bool   `help:"Stop at the end of the topic as it is now." env:"-"`
	Limit     int    `help:"Stop after so many records; 0 for no limit." default:"0" placeholder:"N" env:"-"`
}

// Run prints until it has reached what the flags say, or ctx ends, which is no failure: nobody tails for ever.
func (c *tailCommand) Run(ctx context.Context, con console) error {
	topic, err := c.topic()
	if err != nil {
		return err
	}
	if c.Limit < 0 {
		return usagef("--limit %d: want 0 or more", c.Limit)
	}
	config, err := c.config()
	if err != nil {
		return err
	}
	options, err := config.Franz()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(options,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record: its offset says that the end is reached
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	begin, end, err := c.bounds(ctx, kadm.NewClient(client), topic.Name)
	if err == nil {
		client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic.Name: begin.offsets()})
		err = c.follow(ctx, client, begin, end, newRecordPrinter(con.out, c.Output))
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *tailCommand) topic() (topology.Topic, error) {
	streams, err := topology.New(c.TopicPrefix, topology.Single)
	if err != nil {
		return topology.Topic{}, usageError{err}
	}
	topic, known := streams.Find(c.Topic)
	if !known {
		var names []string
		for _, t := range streams.Topics() {
			names = append(names, t.Name)
		}
		return topology.Topic{}, usagef("topic %q is not one of tidemark's: %s", c.Topic, strings.Join(names, ", "))
	}
	return topic, nil
}

// A bound is an offset in each partition.
type bound map[int32]int64

func (b bound) offsets() map[int32]kgo.Offset {
	offsets := map[int32]kgo.Offset{}
	for partition, offset := range b {
		offsets[partition] = kgo.NewOffset().At(offset)
	}
	return offsets
}

// bounds returns where to begin, and where the topic ends now: at the last stable offset, which is all that can be read.
func (c *tailCommand) bounds(ctx context.Context, admin *kadm.Client, topic string) (begin, end bound, err error) {
	starts, err := listed(topic)(admin.ListStartOffsets(ctx, topic))
	if err != nil {
		return nil, nil, err
	}
	ends, err := listed(topic)(admin.ListCommittedOffsets(ctx, topic))
	if err != nil {
		return nil, nil, err
	}
	if c.Partition != nil {
		only := *c.Partition
		if _, known := ends[only]; !known {
			return nil, nil, usagef("--partition %d: topic %s has partitions 0 to %d", only, topic, len(ends)-1)
		}
		starts, ends = bound{only: starts[only]}, bound{only: ends[only]}
	}
	switch c.From {
	case "start":
		return starts, ends, nil
	case "end":
		return ends, ends, nil
	}
	offset, err := strconv.ParseInt(c.From, 10, 64)
	if err != nil || offset < 0 {
		return nil, nil, usagef("--from %q: want start, end or an offset", c.From)
	}
	begin = bound{}
	for partition := range ends { // an offset outside of the partition means its nearest end, not an error in one of many
		begin[partition] = min(max(offset, starts[partition]), ends[partition])
	}
	return begin, ends, nil
}

func listed(topic string) func(kadm.ListedOffsets, error) (bound, error) {
	return func(offsets kadm.ListedOffsets, err error) (bound, error) {
		if err == nil {
			err = offsets.Error()
		}
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("topic %s does not exist: create it with `tidemark topics apply`", topic)
		}
		if err != nil {
			return nil, fmt.Errorf("look up topic %s: %w", topic, err)
		}
		b := bound{}
		offsets.Each(func(o kadm.ListedOffset) { b[o.Partition] = o.Offset })
		return b, nil
	}
}

// follow prints records as they come until every partition has reached its end, or the limit is reached.
func (c *tailCommand) follow(ctx context.Context, client *kgo.Client, begin, end bound, out *recordPrinter) error {
	unfinished := map[int32]bool{}
	for partition, offset := range end {
		if begin[partition] < offset {
			unfinished[partition] = true
		}
	}
	for printed := 0; !c.UntilEnd || len(unfinished) > 0; {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("read partition %d of %s: %w", errs[0].Partition, errs[0].Topic, errs[0].Err)
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			if r.Offset+1 >= end[r.Partition] {
				delete(unfinished, r.Partition)
			}
			if r.Attrs.IsControl() || c.UntilEnd && r.Offset >= end[r.Partition] {
				continue
			}
			if err := out.print(r); err != nil {
				return err
			}
			if printed++; printed == c.Limit {
				return out.flush()
			}
		}
		if err := out.flush(); err != nil { // somebody may be watching
			return err
		}
	}
	return nil
}

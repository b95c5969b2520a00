package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
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
	err = c.tail(ctx, config, topic.Name, newRecordPrinter(con.out, c.Output))
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *tailCommand) tail(ctx context.Context, config kafka.Config, topic string, out *recordPrinter) error {
	spans, err := c.spans(ctx, config, topic)
	if err != nil {
		return err
	}
	begin := map[int32]kgo.Offset{}
	for partition, span := range spans {
		begin[partition] = kgo.NewOffset().At(span.From)
	}
	options, err := config.Franz()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(options,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record: its offset says that the end is reached
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: begin}),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	return c.follow(ctx, client, spans, out)
}

func (c *tailCommand) topic() (topology.Topic, error) {
	streams, err := c.names()
	if err != nil {
		return topology.Topic{}, err
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

// spans returns where to begin, and where the topic ends now.
func (c *tailCommand) spans(ctx context.Context, config kafka.Config, topic string) (kafka.Spans, error) {
	spans, err := kafka.Extent(ctx, config, topic)
	if err != nil {
		return nil, err
	}
	if c.Partition != nil {
		only, known := spans[*c.Partition]
		if !known {
			return nil, usagef("--partition %d: topic %s has partitions 0 to %d", *c.Partition, topic, len(spans)-1)
		}
		spans = kafka.Spans{*c.Partition: only}
	}
	var from int64
	switch c.From {
	case "start":
	case "end":
		from = math.MaxInt64
	default:
		if from, err = strconv.ParseInt(c.From, 10, 64); err != nil || from < 0 {
			return nil, usagef("--from %q: want start, end or an offset", c.From)
		}
	}
	for partition, span := range spans { // an offset outside of the partition means its nearest end, not an error in one of many
		spans[partition] = kafka.Span{From: min(max(from, span.From), span.To), To: span.To}
	}
	return spans, nil
}

// follow prints records as they come until every partition has reached its end, or the limit is reached.
func (c *tailCommand) follow(ctx context.Context, client *kgo.Client, spans kafka.Spans, out *recordPrinter) error {
	unfinished := map[int32]bool{}
	for partition, span := range spans {
		if span.From < span.To {
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
			if r.Offset+1 >= spans[r.Partition].To {
				delete(unfinished, r.Partition)
			}
			if r.Attrs.IsControl() || c.UntilEnd && r.Offset >= spans[r.Partition].To {
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

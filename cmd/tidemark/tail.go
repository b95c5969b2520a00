package main

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

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

// Run prints records up to the end or the limit that the flags set, or until ctx ends, which is not an error.
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
	follower, err := kafka.Follow(config, topic, spans)
	if err != nil {
		return err
	}
	defer follower.Close()
	return c.follow(ctx, follower, spans, out)
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

// spans returns the offset at which each partition begins, and its end now.
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
	for partition, span := range spans { // not every partition has the offset: the nearest one counts
		spans[partition] = kafka.Span{From: min(max(from, span.From), span.To), To: span.To}
	}
	return spans, nil
}

// follow prints records until the limit is reached, or with --until-end every partition was read to its end.
func (c *tailCommand) follow(
	ctx context.Context, follower *kafka.Follower, spans kafka.Spans, out *recordPrinter,
) error {
	unfinished := map[int32]bool{}
	for partition, span := range spans {
		if span.From < span.To {
			unfinished[partition] = true
		}
	}
	for printed := 0; !c.UntilEnd || len(unfinished) > 0; {
		records, err := follower.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
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
		if err := out.flush(); err != nil { // a person may be watching
			return err
		}
	}
	return nil
}

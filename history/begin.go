package history

import (
	"context"
	"time"

	"tidemark/kafka"
)

// margin is how many notices before the first one that is kept are read: after a failed send, or from a former owner of
// the partition, notices come in another order than their positions. An owner has fewer in flight.
const margin = 1024

// begin returns where each partition is read on.
func (c *Copy) begin(ctx context.Context) (kafka.Spans, error) {
	conf, streams := c.conf.Kafka, c.conf.Streams
	events, err := kafka.Extent(ctx, conf, streams.Events.Name)
	if err != nil {
		return nil, err
	}
	notices, err := kafka.Extent(ctx, conf, streams.Notify.Name)
	if err != nil {
		return nil, err
	}
	kept, before := time.Now().Add(-c.conf.Keep), int64(margin)
	switch first, found, err := kafka.FirstTime(ctx, conf, streams.Events.Name); {
	case err != nil:
		return nil, err
	case !found:
		first = time.Now()
		fallthrough
	case first.After(kept):
		// The events topic may be a recreated one. Notices from before its first event would have positions in the one
		// before.
		kept, before = first, 0
	}
	first, err := kafka.OffsetsAt(ctx, conf, streams.Notify.Name, kept)
	if err != nil {
		return nil, err
	}
	spans := kafka.Spans{}
	for i := range c.partitions {
		number := int32(i)
		at := max(notices[number].From, first[number]-before)
		next, err := c.Resume(number, notices[number], at, events[number].To-1, kept)
		if err != nil {
			return nil, err
		}
		spans[number] = kafka.Span{From: next}
	}
	return spans, nil
}

// Resume returns the offset from which a partition is read on. If its store is empty, or retention has removed notices
// that were not read, that is first. Then lastEvent is the offset of the last event: all notices of later events are
// behind first, as are those that were written since a time.
func (c *Copy) Resume(number int32, topic kafka.Span, first, lastEvent int64, since time.Time) (next int64, err error) {
	p := c.partitions[number]
	p.oldest = 0
	offset, ok, err := c.store.Offset(number)
	if err != nil {
		return 0, err
	}
	next = offset + 1
	if !ok || next < topic.From {
		next, p.bounds = first, bounds{before: lastEvent, since: since.UnixMilli()}
		if topic.From == 0 && first == 0 {
			p.bounds.since = 0
		}
		if err := c.reset(p, next); err != nil {
			return 0, err
		}
	} else if p.bounds, err = loadBounds(c.store, number); err != nil {
		return 0, err
	}
	next = min(next, topic.To) // the end may be from a stale leader: what is read again is recognized
	p.setNext(next)
	return next, nil
}

package history

import (
	"context"
	"time"

	"tidemark/kafka"
)

// After a failed send, or from a former owner of the partition, notices come in another order than their positions. So
// the first notices that are read may be late ones, and later ones than those be missing. The first margin records, but
// none later than marginTime after the first, count as such. An owner has fewer in flight, and not for so long.
const (
	margin     = 1024
	marginTime = time.Hour
)

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
	firstEvent, found, err := kafka.FirstTime(ctx, conf, streams.Events.Name)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if !found {
		firstEvent = now
	}
	from, before := c.readFrom(now, firstEvent)
	first, err := kafka.OffsetsAt(ctx, conf, streams.Notify.Name, from)
	if err != nil {
		return nil, err
	}
	spans := kafka.Spans{}
	for i := range c.partitions {
		number := int32(i)
		at := max(notices[number].From, first[number]-before)
		next, err := c.Resume(number, notices[number], at, events[number].To-1, from)
		if err != nil {
			return nil, err
		}
		spans[number] = kafka.Span{From: next}
	}
	return spans, nil
}

// readFrom returns the time since which notices were written that are read, and how many before them are read too.
func (c *Copy) readFrom(now, firstEvent time.Time) (from time.Time, before int64) {
	from = now.Add(-max(c.conf.Keep, ActivityKept))
	if firstEvent.After(from) {
		// The events topic may be a recreated one. Notices from before its first event would have positions in the one
		// before.
		return firstEvent, 0
	}
	return from, margin
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
		next = first
		if err := c.reset(p, topic, first, lastEvent, since); err != nil {
			return 0, err
		}
	} else if p.bounds, err = loadBounds(c.store, number); err != nil {
		return 0, err
	}
	next = min(next, topic.To) // the end may be from a stale leader: what is read again is recognized
	p.setNext(next)
	return next, nil
}

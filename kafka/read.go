package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Span is a part of a partition: the offsets from From up to To, without To.
type Span struct{ From, To int64 }

// Spans are the parts of a topic's partitions, by partition.
type Spans map[int32]Span

// Len returns how many offsets the spans hold. Not each need have a record.
func (s Spans) Len() (n int64) {
	for _, span := range s {
		n += max(0, span.To-span.From)
	}
	return n
}

// Extent returns what of a topic can be read now: from what retention has left up to the last stable offset. An empty
// partition is there with an empty span, so the number of spans is that of the partitions.
func Extent(ctx context.Context, c Config, topic string) (Spans, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.extent(ctx, topic)
}

func (a *admin) extent(ctx context.Context, topic string) (Spans, error) {
	starts, err := a.ListStartOffsets(ctx, topic)
	if err = a.lookedUp(topic, starts, err); err != nil {
		return nil, err
	}
	ends, err := a.ListCommittedOffsets(ctx, topic)
	if err = a.lookedUp(topic, ends, err); err != nil {
		return nil, err
	}
	spans := Spans{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		spans[end.Partition] = Span{From: start.Offset, To: end.Offset}
	})
	return spans, nil
}

// OffsetsAt returns the offset of the first record of each partition that is not older than at, and the partition's end where
// there is none.
func OffsetsAt(ctx context.Context, c Config, topic string, at time.Time) (map[int32]int64, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	listed, err := a.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topic)
	if err = a.lookedUp(topic, listed, err); err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets, nil
}

func (a *admin) lookedUp(topic string, listed kadm.ListedOffsets, err error) error {
	if err == nil {
		err = listed.Error()
	}
	switch {
	case err == nil && len(listed[topic]) == 0, errors.Is(err, kerr.UnknownTopicOrPartition):
		return missing(topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return unreadable(topic)
	case err != nil:
		return a.fail("look up topic "+topic, err)
	}
	return nil
}

func unreadable(topic string) error {
	return fmt.Errorf("topic %s: this user may not read it: grant the ACL operation Read", topic)
}

// silence is how long nothing may come before Read asks whether retention has taken what it waits for.
const silence = 5 * time.Second

// fetchBytes is how much a broker sends of a partition at a time. With the client's own 1 MiB the reading of a single partition
// is a request and a pause for each thousand records.
func fetchBytes(partitions int) int32 { return max(1<<20, 4<<20/int32(partitions)) }

// Read hands the committed records in spans to each, in the order of their partitions, and returns when all were handed over or
// each returns an error. What retention took away meanwhile is not missed.
func Read(ctx context.Context, c Config, topic string, spans Spans, each func(*kgo.Record) error) error {
	r := &reading{topic: topic, spans: spans, unread: map[int32]bool{}}
	from := map[int32]kgo.Offset{}
	for partition, span := range spans {
		if span.From < span.To {
			r.unread[partition] = true
			from[partition] = kgo.NewOffset().At(span.From)
		}
	}
	if len(from) == 0 {
		return nil
	}
	a, err := c.admin(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record: its offset says that the end is reached
		kgo.FetchMaxPartitionBytes(fetchBytes(len(from))),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
	)
	if err != nil {
		return err
	}
	defer a.Close()
	r.admin = a
	return r.run(ctx, each)
}

// A reading is one call of Read.
type reading struct {
	admin  *admin
	topic  string
	spans  Spans
	unread map[int32]bool // the partitions whose spans have not been read to the end
}

func (r *reading) run(ctx context.Context, each func(*kgo.Record) error) error {
	for len(r.unread) > 0 {
		poll, cancel := context.WithTimeout(ctx, silence)
		fetches := r.admin.client.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, failed := range fetches.Errors() {
			switch {
			case errors.Is(failed.Err, context.DeadlineExceeded):
			case errors.Is(failed.Err, kerr.TopicAuthorizationFailed):
				return unreadable(failed.Topic)
			default:
				return r.admin.fail(fmt.Sprintf("read partition %d of %s", failed.Partition, failed.Topic), failed.Err)
			}
		}
		if fetches.NumRecords() == 0 {
			if err := r.forget(ctx); err != nil {
				return err
			}
		}
		for records := fetches.RecordIter(); !records.Done(); {
			record := records.Next()
			if !r.unread[record.Partition] {
				continue
			}
			if span := r.spans[record.Partition]; record.Offset < span.To && !record.Attrs.IsControl() {
				if err := each(record); err != nil {
					return err
				}
			}
			if record.Offset+1 >= r.spans[record.Partition].To {
				r.done(record.Partition)
			}
		}
	}
	return nil
}

func (r *reading) done(partition int32) {
	delete(r.unread, partition)
	r.admin.client.RemoveConsumePartitions(map[string][]int32{r.topic: {partition}})
}

// forget takes partitions off the list whose span retention has deleted.
func (r *reading) forget(ctx context.Context) error {
	now, err := r.admin.extent(ctx, r.topic)
	if err != nil {
		return err
	}
	for partition := range r.unread {
		if now[partition].From >= r.spans[partition].To {
			r.done(partition)
		}
	}
	return nil
}

// NewProducer returns a producer for callers that choose the partition of each record themselves: acknowledged by all in-sync
// replicas, idempotent, in order per partition.
func NewProducer(c Config) (*kgo.Client, error) {
	return newProducer(c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

// Committed returns the offsets that a group has committed in a topic, with their metadata. A group that never committed
// there has none.
func Committed(ctx context.Context, c Config, group, topic string) (map[int32]kadm.Offset, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	fetched, err := a.FetchOffsetsForTopics(ctx, group, topic)
	if err == nil {
		err = fetched.Error()
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound): // a group that never ran: some brokers say so, others send nothing
		return nil, nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return nil, fmt.Errorf("group %s: this user may not see what it committed: grant the ACL operation Describe", group)
	case err != nil:
		return nil, a.fail("look up what group "+group+" committed", err)
	}
	offsets := map[int32]kadm.Offset{}
	for partition, o := range fetched[topic] {
		if o.At >= 0 {
			offsets[partition] = o.Offset
		}
	}
	return offsets, nil
}

// Commit sets what a group without members has committed.
func Commit(ctx context.Context, c Config, group string, offsets ...kadm.Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	a, err := c.admin()
	if err != nil {
		return err
	}
	defer a.Close()
	commit := kadm.Offsets{}
	for _, o := range offsets {
		commit.Add(o)
	}
	answers, err := a.CommitOffsets(ctx, group, commit)
	if err == nil {
		err = answers.Error()
	}
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return fmt.Errorf("group %s: this user may not commit to it: grant the ACL operation Read", group)
	case errors.Is(err, kerr.UnknownMemberID):
		return fmt.Errorf("group %s has members: stop them first", group)
	case err != nil:
		return a.fail("commit for group "+group, err)
	}
	return nil
}

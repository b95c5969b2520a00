package committed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
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

// silence is how long nothing may come before Read asks whether retention has taken what it waits for.
const idleTimeout = 5 * time.Second

// fetchBytes is how much a broker sends of a partition at a time. With the client's own 1 MiB the reading of a single partition
// is a request and a pause for each thousand records.
func fetchBytes(partitions int) int32 { return max(1<<20, 4<<20/int32(partitions)) }

// A FetchError says what a part of a topic could not be read for. Partition is -1 when it was none in particular.
type FetchError struct {
	Topic     string
	Partition int32
	Err       error
}

func (e *FetchError) Error() string {
	if e.Partition < 0 {
		return fmt.Sprintf("read %s: %v", e.Topic, e.Err)
	}
	return fmt.Sprintf("read partition %d of %s: %v", e.Partition, e.Topic, e.Err)
}

func (e *FetchError) Unwrap() error { return e.Err }

// Read hands the committed records in spans to each, in the order of their partitions, and returns when all were handed over or
// each returns an error. What retention took away meanwhile is not missed. A failed fetch is a *FetchError.
//
// The client is opened with options of Read's own, and closed.
func Read(ctx context.Context, open func(...kgo.Opt) (*kgo.Client, error), topic string, spans Spans, each func(*kgo.Record) error) error {
	r := &spanReader{topic: topic, spans: spans, unread: map[int32]bool{}}
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
	client, err := open(
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record: its offset says that the end is reached
		kgo.FetchMaxPartitionBytes(fetchBytes(len(from))),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	r.client = client
	return r.run(ctx, each)
}

// A reading is one call of Read.
type spanReader struct {
	client *kgo.Client
	topic  string
	spans  Spans
	unread map[int32]bool // the partitions whose spans have not been read to the end
}

func (r *spanReader) run(ctx context.Context, each func(*kgo.Record) error) error {
	for len(r.unread) > 0 {
		poll, cancel := context.WithTimeout(ctx, idleTimeout)
		fetches := r.client.PollFetches(poll)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return &FetchError{Topic: failed.Topic, Partition: failed.Partition, Err: failed.Err}
			}
		}
		if fetches.NumRecords() == 0 {
			if err := r.dropDeleted(ctx); err != nil {
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
				r.finish(record.Partition)
			}
		}
	}
	return nil
}

func (r *spanReader) finish(partition int32) {
	delete(r.unread, partition)
	r.client.RemoveConsumePartitions(map[string][]int32{r.topic: {partition}})
}

// forget takes partitions off the list whose span retention has deleted.
func (r *spanReader) dropDeleted(ctx context.Context) error {
	starts, err := kadm.NewClient(r.client).ListStartOffsets(ctx, r.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return &FetchError{Topic: r.topic, Partition: -1, Err: err}
	}
	for partition := range r.unread {
		if start, found := starts.Lookup(r.topic, partition); found && start.Offset >= r.spans[partition].To {
			r.finish(partition)
		}
	}
	return nil
}

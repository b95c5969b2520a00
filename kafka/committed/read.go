package committed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Span is a part of a partition: the offsets from From up to but not including To.
type Span struct{ From, To int64 }

// Spans are the parts of a topic's partitions, by partition.
type Spans map[int32]Span

// Len returns the number of offsets in the spans. Not each of them need have a record.
func (s Spans) Len() (n int64) {
	for _, span := range s {
		n += max(0, span.To-span.From)
	}
	return n
}

// idleTimeout is how long Read waits for records before it checks whether retention has deleted what it waits for.
const idleTimeout = 5 * time.Second

// fetchBytes is how much of a partition a broker sends at a time. With kgo's 1 MiB, reading a single partition would
// take a request and a pause for every thousand records.
func fetchBytes(partitions int) int32 { return max(1<<20, 4<<20/int32(partitions)) }

// A FetchError says why a partition could not be read. Partition is -1 when the error is about the topic.
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

// Read calls each for the committed records in spans, in offset order per partition, and returns when all are read or
// each returns an error. Records that retention deletes meanwhile are skipped. A failed fetch is a *FetchError.
//
// The client is opened with additional options of Read, and closed.
func Read(ctx context.Context, open func(...kgo.Opt) (*kgo.Client, error), topic string, spans Spans,
	each func(*kgo.Record) error,
) error {
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
		// the last record may be a transaction marker: its offset shows that the end is reached
		kgo.KeepControlRecords(),
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

// A spanReader is one call of Read.
type spanReader struct {
	client *kgo.Client
	topic  string
	spans  Spans
	unread map[int32]bool // partitions that are not read to the end of their spans
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

// dropDeleted finishes the partitions whose spans retention has deleted.
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

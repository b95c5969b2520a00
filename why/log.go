package why

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka"
	"tidemark/kafka/committed"
)

// A partitionLog reads the committed records of one partition of a topic from any offset on, without a consumer.
type partitionLog struct {
	client    *kgo.Client
	topic     kadm.TopicDetail
	partition int32
	span      kafka.Span // from the log start offset to the last stable offset, as of when it was opened
	since     int64      // offset of the first record that was written since a time
	err       error      // why the log cannot be read; the other fields are not set then
}

// clockSkew is how far the clocks of two brokers may be apart.
const clockSkew = 10 * time.Minute

// open looks up a partition of some topics: their ends, and where the records begin that were written since a time. A
// topic that does not exist, or may not be read, has a log with that error.
func (t *Tracer) open(ctx context.Context, partition int32, since time.Time, topics ...string) (
	map[string]*partitionLog, error,
) {
	listed, err := t.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	starts, err1 := t.admin.ListStartOffsets(ctx, topics...)
	ends, err2 := t.admin.ListCommittedOffsets(ctx, topics...)
	written, err3 := t.admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topics...)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	logs := map[string]*partitionLog{}
	for _, name := range topics {
		from, err1 := offsetOf(starts, name, partition)
		to, err2 := offsetOf(ends, name, partition)
		at, err3 := offsetOf(written, name, partition)
		if err := cmp.Or(listed[name].Err, err1, err2, err3); err != nil {
			err = fmt.Errorf("%s, partition %d: %w", name, partition, err)
			if !errors.Is(err, kerr.UnknownTopicOrPartition) && !errors.Is(err, kerr.TopicAuthorizationFailed) {
				return nil, err
			}
			logs[name] = &partitionLog{err: err}
			continue
		}
		logs[name] = &partitionLog{
			client: t.client, topic: listed[name], partition: partition,
			span: kafka.Span{From: from, To: to}, since: min(max(at, from), to),
		}
	}
	return logs, nil
}

func offsetOf(listed kadm.ListedOffsets, topic string, partition int32) (int64, error) {
	o, found := listed.Lookup(topic, partition)
	if !found {
		return 0, kerr.UnknownTopicOrPartition
	}
	return o.Offset, o.Err
}

// fetchBytes is how much is asked for. A broker sends the first batch whatever its size.
const fetchBytes = 256 << 10

// from returns records at an offset and behind it, and the offset behind the last one. It returns no record at the end.
func (l *partitionLog) from(ctx context.Context, offset int64) ([]*kgo.Record, int64, error) {
	if l.err != nil {
		return nil, 0, l.err
	}
	for offset < l.span.To {
		request := kmsg.NewPtrFetchRequest()
		request.MaxBytes, request.MinBytes, request.MaxWaitMillis, request.IsolationLevel = fetchBytes, 1, 500, 1
		leader := l.topic.Partitions[l.partition].Leader
		answers, err := committed.FetchFromLeader(ctx, l.client, leader, l.topic, request,
			map[int32]int64{l.partition: offset}, fetchBytes)
		if err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", l.topic.Topic, err)
		}
		if len(answers) != 1 {
			return nil, 0, fmt.Errorf("read %s: %d answers for one partition", l.topic.Topic, len(answers))
		}
		read, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
			Offset: offset, Topic: l.topic.Topic, Partition: l.partition, IsolationLevel: kgo.ReadCommitted(),
		}, &answers[0], kgo.DefaultDecompressor(), nil)
		if read.Err != nil {
			return nil, 0, fmt.Errorf("read partition %d of %s: %w", l.partition, l.topic.Topic, read.Err)
		}
		for i, r := range read.Records {
			if r.Offset >= l.span.To {
				read.Records = read.Records[:i]
				break
			}
		}
		if len(read.Records) > 0 {
			return read.Records, next, nil
		}
		if next <= offset {
			return nil, offset, nil // the leader has nothing more to send now
		}
		offset = next
	}
	return nil, offset, nil
}

// read calls each with the records from an offset on, until it returns false, at most `most` of them. It reports
// whether there are more.
func (l *partitionLog) read(ctx context.Context, offset int64, most int, each func(*kgo.Record) bool) (bool, error) {
	for {
		records, next, err := l.from(ctx, offset)
		if err != nil || len(records) == 0 {
			return false, err
		}
		for _, r := range records {
			if most--; most < 0 {
				return true, nil
			}
			if !each(r) {
				return false, nil
			}
		}
		offset = next
	}
}

// disorder is how far the outputs of a partition may be out of order, in offsets of the events topic: that many may be
// unacknowledged, and are written once more after a failure. See docs/design.md.
const disorder = 1024

// An output is what is looked for in a partition of outputs.
type output struct {
	event int64                   // offset of the event that it follows from
	is    func(*kgo.Record) bool  // reports whether a record is the output
	after func(*kgo.Record) int64 // returns the offset of the event that a record follows from, or unordered
}

// unordered is the event of a record that says nothing about the order, as one of another producer.
const unordered = -1

// A found is the result of a search for an output.
type found struct {
	record *kgo.Record // nil: none
	later  int64       // offset of the first output of a later event that was seen, or the end
	cut    bool        // too much was to be read: there may be one
}

// find searches the records since the log's time first, and then those before: a producer's clock may have been ahead.
func (l *partitionLog) find(ctx context.Context, o output) (found, error) {
	f, err := l.findIn(ctx, l.since, l.span.To, o)
	if err != nil || f.record != nil || f.cut || l.since == l.span.From {
		return f, err
	}
	before, err := l.findIn(ctx, l.span.From, l.since, o)
	return found{before.record, f.later, before.cut}, err
}

// findIn searches the records from low up to but not including end. Outputs are in the order of their events but for
// disorder, so it is a binary search with a scan at its end.
func (l *partitionLog) findIn(ctx context.Context, low, end int64, o output) (f found, err error) {
	for high := end; high-low > 2*disorder; { // outputs before low are of events before o.event-disorder
		middle := low + (high-low)/2
		var at, of int64 = 0, unordered
		more, err := l.read(ctx, middle, maxScan, func(r *kgo.Record) bool {
			if r.Offset < high {
				at, of = r.Offset, o.after(r)
			}
			return r.Offset < high && of == unordered
		})
		if err != nil {
			return f, err
		}
		if more { // none of them says anything
			return found{later: end, cut: true}, nil
		}
		if of != unordered && of < o.event-disorder {
			low = at + 1
		} else {
			high = middle
		}
	}
	f.later = end
	ahead := 0 // outputs of events that are too late to be before it
	f.cut, err = l.read(ctx, low, maxScan, func(r *kgo.Record) bool {
		if r.Offset >= end {
			return false
		}
		if o.is(r) {
			f.record = r
			return false
		}
		of := o.after(r)
		if of > o.event && f.later == end {
			f.later = r.Offset
		}
		if of > o.event+disorder {
			ahead++
		}
		// The first ones may be of an events topic that was recreated.
		return ahead <= 2*disorder
	})
	return f, err
}

// maxScan bounds how many records are read one by one.
const maxScan = 20_000

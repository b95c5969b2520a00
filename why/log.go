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
	since     int64      // offset of the first record that was written after a time
	err       error      // why the log cannot be read; the other fields are not set then
}

// clockSkew is how far the clocks of two brokers may be apart.
const clockSkew = 10 * time.Minute

// open looks up a partition of some topics: their ends, and where the records begin that were written after a time. A
// topic that does not exist, or may not be read, has a log with that error.
func (t *Tracer) open(ctx context.Context, partition int32, after time.Time, topics ...string) (
	map[string]*partitionLog, error,
) {
	listed, err := t.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up topics: %w", err)
	}
	after = after.Add(-clockSkew)
	starts, err1 := t.admin.ListStartOffsets(ctx, topics...)
	ends, err2 := t.admin.ListCommittedOffsets(ctx, topics...)
	since, err3 := t.admin.ListOffsetsAfterMilli(ctx, after.UnixMilli(), topics...)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	logs := map[string]*partitionLog{}
	for _, name := range topics {
		from, err1 := offsetOf(starts, name, partition)
		to, err2 := offsetOf(ends, name, partition)
		written, err3 := offsetOf(since, name, partition)
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
			span: kafka.Span{From: from, To: to}, since: min(max(written, from), to),
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

// unread is what a sourceOf returns for a record that says nothing about the order, as one of another producer.
const unread = -1

// A sourceOf returns the offset of the event that an output follows from, or unread.
type sourceOf func(*kgo.Record) int64

// find returns the output of an event, nil if there is none, and the offset of the first output of a later event, or
// the end. It looks at the records since the log's time first, since an events topic that was recreated has the same
// offsets again, and then at those before, since a producer's clock may have been ahead.
func (l *partitionLog) find(ctx context.Context, event int64, source sourceOf) (
	found *kgo.Record, later int64, err error,
) {
	found, later, err = l.findIn(ctx, l.since, l.span.To, event, source)
	if err == nil && found == nil && l.since > l.span.From {
		found, _, err = l.findIn(ctx, l.span.From, l.since, event, source)
	}
	return found, later, err
}

// findIn searches the records from low up to but not including end. Outputs are in the order of their events but for
// disorder, so it is a binary search with a scan at its end.
func (l *partitionLog) findIn(ctx context.Context, low, end, event int64, source sourceOf) (
	found *kgo.Record, later int64, err error,
) {
	for high := end; high-low > 2*disorder; { // outputs before low are of events before event-disorder
		middle := low + (high-low)/2
		var at, of int64 = 0, unread
		if _, err := l.read(ctx, middle, int(high-middle), func(r *kgo.Record) bool {
			if r.Offset < high {
				at, of = r.Offset, source(r)
			}
			return r.Offset < high && of == unread
		}); err != nil {
			return nil, 0, err
		}
		if of != unread && of < event-disorder {
			low = at + 1
		} else {
			high = middle
		}
	}
	later = end
	_, err = l.read(ctx, low, maxScan, func(r *kgo.Record) bool {
		of := source(r)
		if r.Offset >= end {
			return false
		}
		if of == event {
			found = r
			return false
		}
		if of > event && later == end {
			later = r.Offset
		}
		return of <= event+disorder
	})
	return found, later, err
}

// maxScan bounds how many records are read one by one.
const maxScan = 20_000

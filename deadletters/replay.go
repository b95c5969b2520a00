package deadletters

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/replay"
	"tidemark/topology"
)

// A SinkRetry returns the record that gives a source record to the named sink once more. Its topic must keep the order
// of the source's keys. The sink must ignore a record that is older than what its destination has. An error says why
// the record cannot be retried, and its entry stays open.
type SinkRetry func(sink string, source *kgo.Record) (*kgo.Record, error)

// SinkRetryTo returns the SinkRetry of sinks that read the topic SinkRetry. The record goes to the partition of its
// source, with headers that ParseRetry reads. known reports whether there is a sink of that name.
func SinkRetryTo(streams topology.Streams, known func(sink string) bool) SinkRetry {
	return func(sink string, source *kgo.Record) (*kgo.Record, error) {
		if !known(sink) {
			return nil, fmt.Errorf("this release has no sink %q that takes records back: "+
				"replay it with the release that wrote it, or drop it", sink)
		}
		from := Source{Topic: source.Topic, Partition: source.Partition, Offset: source.Offset}
		if _, first, again := ParseRetry(source); again { // it was rejected, replayed, and rejected again
			from = first
		}
		headers := slices.DeleteFunc(slices.Clone(source.Headers), func(h kgo.RecordHeader) bool {
			return h.Key == topology.HeaderRetrySink || h.Key == topology.HeaderRetrySource
		})
		return &kgo.Record{
			Topic: streams.SinkRetry.Name, Partition: source.Partition, Key: source.Key, Value: source.Value,
			Headers: append(headers,
				kgo.RecordHeader{Key: topology.HeaderRetrySink, Value: []byte(sink)},
				kgo.RecordHeader{Key: topology.HeaderRetrySource, Value: []byte(from.Text(""))}),
		}, nil
	}
}

// ParseRetry returns for which sink a record of SinkRetry is, and where its source record was; ok is false for any
// other record.
func ParseRetry(r *kgo.Record) (sink string, source Source, ok bool) {
	headers := headersOf(r)
	sink = headers[topology.HeaderRetrySink]
	source, err := ParseSource(headers[topology.HeaderRetrySource], "")
	return sink, source, err == nil && sink != ""
}

// RetrySinks has Replay send the records that retry returns for entries of sinks, instead of those that sinks read.
func (q *Queue) RetrySinks(retry SinkRetry) { q.sinkRetry = retry }

// toEvents returns the record that puts an entry into the events topic again, or why the entry is skipped.
func (q *Queue) toEvents(e *Entry, dead *kgo.Record, partitions int, force bool) (again *kgo.Record, why string) {
	if e.Topic != q.Events() {
		return nil, fmt.Sprintf("it is from %s: only records of %s can be replayed", e.Topic, q.Events())
	}
	if why := omitted(e, dead, false); why != "" {
		return nil, why
	}
	from := "dlq " + e.ID
	again, _, err := replay.Record(dead.Value, dead.Headers, q.Events(), partitions, from)
	switch {
	case err == nil:
		return again, ""
	case !force:
		return nil, "it would be dead-lettered again: " + err.Error()
	case int(e.Partition) >= partitions:
		return nil, fmt.Sprintf("%s has no partition %d", q.Events(), e.Partition)
	}
	if why := omitted(e, dead, true); why != "" {
		return nil, why
	}
	again = sourceRecord(e, dead)
	again.Headers = replay.Headers(dead.Headers, nil, from)
	return again, ""
}

// toSink returns the record that gives an entry to its sink again, or why the entry is skipped.
func (q *Queue) toSink(ctx context.Context, e *Entry, dead *kgo.Record, counts map[string]int) (
	again *kgo.Record, why string,
) {
	if why := omitted(e, dead, true); why != "" {
		return nil, why
	}
	again, err := q.sinkRetry(e.Sink, sourceRecord(e, dead))
	if err != nil {
		return nil, err.Error()
	}
	if again.Partition, err = q.sinkPartition(ctx, e, again, counts); err != nil {
		return nil, err.Error()
	}
	return again, ""
}

// sinkPartition returns the partition of a record for a sink. That of the source is kept, unless the source is of
// another prefix: `topics repartition` copied the entry. counts are partition counts by topic, as far as known.
func (q *Queue) sinkPartition(ctx context.Context, e *Entry, again *kgo.Record, counts map[string]int) (int32, error) {
	if counts[again.Topic] == 0 {
		spans, err := kafka.Extent(ctx, q.kafka, again.Topic)
		if err != nil {
			return 0, err
		}
		counts[again.Topic] = len(spans)
	}
	if _, ours := q.streams.Find(e.Topic); !ours {
		return kafka.FilePartition(again.Key, counts[again.Topic]), nil
	}
	if int(again.Partition) >= counts[again.Topic] {
		return 0, fmt.Errorf("%s has no partition %d", again.Topic, again.Partition)
	}
	return again.Partition, nil
}

// omitted returns why an entry without its value, or if all is set without any part, cannot be replayed; else nothing.
func omitted(e *Entry, dead *kgo.Record, all bool) string {
	headers := headersOf(dead)
	for _, part := range []struct{ name, header string }{
		{"value", topology.HeaderValueOmitted},
		{"key", topology.HeaderKeyOmitted},
		{"headers", topology.HeaderHeadersOmitted},
	} {
		if length := headers[part.header]; length != "" && (all || part.name == "value") {
			return fmt.Sprintf("too large to keep: %s bytes of its %s; the source record is at %s until it expires",
				length, part.name, e.Place())
		}
	}
	return ""
}

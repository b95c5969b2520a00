package deadletters

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/replay"
	"tidemark/topology"
)

// A SinkRetry returns the record that gives a source record to the named sink once more. Its topic must keep the order
// of the source's keys. The sink must ignore a record that is older than what its destination has. An error says why
// the record cannot be retried, and its entry stays open.
type SinkRetry func(sink string, source *kgo.Record) (*kgo.Record, error)

// RetrySinks has Replay send the records that retry returns. Without it Replay skips entries of sinks.
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
func (q *Queue) toSink(e *Entry, dead *kgo.Record) (again *kgo.Record, why string) {
	if q.sinkRetry == nil {
		return nil, fmt.Sprintf("the sink %s rejected it, and this release has no sinks: "+
			"replay it with the release that wrote it, or drop it", e.Sink)
	}
	if why := omitted(e, dead, true); why != "" {
		return nil, why
	}
	again, err := q.sinkRetry(e.Sink, sourceRecord(e, dead))
	if err != nil {
		return nil, err.Error()
	}
	return again, ""
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

package why

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// progressEvery is the interval of progress reports.
const progressEvery = 2 * time.Second

// A reading reads records of a topic: those since a time, up to the end when it was looked up.
type reading struct {
	search  Search
	topic   string
	spans   kafka.Spans
	records int64
}

// allPartitions looks up the spans of all partitions.
func (s Search) allPartitions(ctx context.Context, topic string, since time.Time) (*reading, error) {
	spans, err := kafka.Extent(ctx, s.Kafka, topic)
	if err != nil {
		return nil, err
	}
	if !since.IsZero() {
		begin, err := kafka.OffsetsAt(ctx, s.Kafka, topic, since)
		if err != nil {
			return nil, err
		}
		for partition, span := range spans {
			spans[partition] = kafka.Span{From: min(max(span.From, begin[partition]), span.To), To: span.To}
		}
	}
	return &reading{search: s, topic: topic, spans: spans}, nil
}

// onePartition looks up the span of one partition.
func (s Search) onePartition(ctx context.Context, topic string, partition int32, since time.Time) (*reading, error) {
	r, err := s.allPartitions(ctx, topic, since)
	if err != nil {
		return nil, err
	}
	span, ok := r.spans[partition]
	if !ok {
		return nil, fmt.Errorf("topic %s has no partition %d: it needs as many as the events topic", topic, partition)
	}
	r.spans = kafka.Spans{partition: span}
	return r, nil
}

// span returns what was read.
func (r *reading) span() Span {
	if len(r.spans) == 1 {
		for partition, span := range r.spans {
			return Span{Topic: r.topic, Partition: partition, From: span.From, To: span.To, Records: r.records}
		}
	}
	return Span{Topic: r.topic, Partition: -1, Records: r.records}
}

// read calls each with every record, of each partition in order.
func (r *reading) read(ctx context.Context, each func(*kgo.Record) error) error {
	return r.readSpans(ctx, r.spans, each)
}

// readMore reads what was written since read.
func (r *reading) readMore(ctx context.Context, each func(*kgo.Record) error) error {
	now, err := kafka.Extent(ctx, r.search.Kafka, r.topic)
	if err != nil {
		return err
	}
	more := kafka.Spans{}
	for partition, span := range r.spans {
		to := max(span.To, now[partition].To)
		more[partition] = kafka.Span{From: span.To, To: to}
		r.spans[partition] = kafka.Span{From: span.From, To: to}
	}
	return r.readSpans(ctx, more, each)
}

func (r *reading) readSpans(ctx context.Context, spans kafka.Spans, each func(*kgo.Record) error) error {
	total, last := spans.Len(), time.Now()
	done := map[int32]int64{} // offsets passed, by partition
	return kafka.Read(ctx, r.search.Kafka, r.topic, spans, func(record *kgo.Record) error {
		r.records++
		done[record.Partition] = record.Offset + 1 - spans[record.Partition].From
		if r.search.Progress != nil && r.records%1024 == 0 && time.Since(last) >= progressEvery {
			last = time.Now()
			passed := int64(0)
			for _, n := range done {
				passed += n
			}
			r.search.Progress(r.topic, passed, total)
		}
		return each(record)
	})
}

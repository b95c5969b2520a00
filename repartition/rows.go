package repartition

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/diff"
	"tidemark/file"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// copyRows copies the newest row of every key of both tables, and writes an index record for each file. Every run
// writes all of them again, with the same content.
func (r *run) copyRows(ctx context.Context) error {
	r.summary.Misplaced = 0
	err := r.copyTable(ctx, r.From.Workspaces, r.To.Workspaces, diff.Workspaces, nil)
	if err != nil {
		return err
	}
	index := func(record *kgo.Record, row diff.Row) error {
		state, is := row.(*tidemarkv1.FileState)
		if !is {
			return fmt.Errorf("a row of %s is a %T", r.From.Files.Name, row)
		}
		if state.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
			return nil // the index has files only
		}
		value, err := codecs.Index{}.Encode(file.IndexOf(state))
		if err != nil {
			return err
		}
		return r.writer.put(ctx, &kgo.Record{
			Topic: r.To.Index.Name, Partition: record.Partition, Key: record.Key, Value: value,
			Timestamp: record.Timestamp,
		})
	}
	return r.copyTable(ctx, r.From.Files, r.To.Files, diff.Files, index)
}

// copyTable copies the newest row of each key, one old partition after the other, and calls also with each new record
// and row.
func (r *run) copyTable(
	ctx context.Context, from, to topology.Topic, kind diff.Kind, also func(*kgo.Record, diff.Row) error,
) error {
	spans, err := kafka.Extent(ctx, r.Kafka, from.Name)
	if err != nil {
		return err
	}
	for partition := range int32(len(spans)) {
		part := kafka.Spans{partition: spans[partition]}
		newest, err := r.newest(ctx, from.Name, part, kind)
		if err != nil {
			return err
		}
		err = kafka.Read(ctx, r.Kafka, from.Name, part, func(record *kgo.Record) error {
			if at, known := newest[string(record.Key)]; !known || at.offset != record.Offset {
				return nil
			}
			r.report(Rows)
			row, err := kind.Decode(record)
			if err != nil {
				return err
			}
			r.translateRow(row)
			value, err := proto.Marshal(row)
			if err != nil {
				return fmt.Errorf("encode the row %q of %s: %w", record.Key, from.Name, err)
			}
			moved := &kgo.Record{
				Topic: to.Name, Partition: kafka.FilePartition(record.Key, to.Partitions),
				Key: record.Key, Value: value, Timestamp: record.Timestamp,
			}
			if err := r.writer.put(ctx, moved); err != nil || also == nil {
				return err
			}
			return also(moved, row)
		})
		if err == nil {
			err = r.writer.flush(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// A version is the number of folded events of the newest row of a key, and its offset.
type version struct{ folded, offset int64 }

// newest returns the newest row of each key.
func (r *run) newest(
	ctx context.Context, topic string, part kafka.Spans, kind diff.Kind,
) (map[string]version, error) {
	newest := map[string]version{}
	return newest, kafka.Read(ctx, r.Kafka, topic, part, func(record *kgo.Record) error {
		key := string(record.Key)
		if kafka.FilePartition(record.Key, r.hashed) != record.Partition {
			r.summary.Misplaced++
			return nil
		}
		if record.Value == nil {
			return nil // another producer's: the groups write none, and undo it
		}
		row, err := kind.Decode(record)
		if err != nil {
			return err
		}
		if known, there := newest[key]; !there || diff.Folded(row) >= known.folded {
			newest[key] = version{diff.Folded(row), record.Offset}
		}
		return nil
	})
}

// compare compares both tables with the old ones, row by row and in every field, after translating the old positions.
func (r *run) compare(ctx context.Context) error {
	r.report(Comparing)
	for _, table := range []struct {
		from, to topology.Topic
		kind     diff.Kind
		summary  *diff.Summary
	}{
		{r.From.Workspaces, r.To.Workspaces, diff.Workspaces, &r.summary.Workspaces},
		{r.From.Files, r.To.Files, diff.Files, &r.summary.Files},
	} {
		// Else the comparison would miss the last rows.
		if _, err := kafka.StableExtent(ctx, r.Kafka, table.to.Name); err != nil {
			return err
		}
		c := &diff.Comparison{
			Kafka: r.Kafka, Kind: table.kind, Translate: func(row diff.Row) { r.translateRow(row) },
			A: diff.Table{Group: table.from.Name, Topic: table.from.Name, Partitions: r.hashed},
			B: diff.Table{Group: table.to.Name, Topic: table.to.Name, Partitions: table.to.Partitions},
		}
		summary, err := c.Run(ctx, func(d diff.Difference) error {
			if len(r.summary.Different) < 10 {
				r.summary.Different = append(r.summary.Different, d)
			}
			return nil
		})
		if err != nil {
			return err
		}
		*table.summary = *summary
	}
	if n := r.summary.Workspaces.Different + r.summary.Files.Different; n > 0 {
		return fmt.Errorf("%w in %d rows: start again; if they still differ, something else has written to %s or %s",
			ErrDiffer, n, r.To.Files.Name, r.To.Workspaces.Name)
	}
	return nil
}

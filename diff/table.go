package diff

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Row is a row of either kind of table.
type Row interface {
	proto.Message
	GetVersion() int64
	GetPosition() *tidemarkv1.Position
	GetLogId() string
}

// Folded returns how many events were folded into a row, with those that changed nothing visible. Of two rows of a key
// the one with more is newer.
func Folded(r Row) int64 {
	if s, ok := r.(interface{ GetSilent() int64 }); ok {
		return r.GetVersion() + s.GetSilent()
	}
	return r.GetVersion()
}

// A Kind returns an empty row of one kind.
type Kind func() Row

// Files is the kind of a table of files.
func Files() Row { return new(tidemarkv1.FileState) }

// Workspaces is the kind of a table of workspaces.
func Workspaces() Row { return new(tidemarkv1.WorkspaceState) }

// Decode returns the row in a record of a table.
func (k Kind) Decode(record *kgo.Record) (Row, error) {
	r := k()
	if err := proto.Unmarshal(record.Value, r); err != nil {
		return nil, fmt.Errorf("%s, partition %d, offset %d, key %q: this is not a row: %w",
			record.Topic, record.Partition, record.Offset, record.Key, err)
	}
	return r, nil
}

// A Table is the table of a group.
type Table struct {
	Group string
	Topic string
	Input string // the topic whose offsets the group commits

	// Partitions is the number that keys are hashed over, if tables with different numbers are compared. Rows in a
	// wrong partition are ignored. If it is 0, both topics must have the same number of partitions.
	Partitions int
}

// TableOf returns the table of a group, named with or without the prefix.
func TableOf(s topology.Streams, group string) (Table, error) {
	group, table := s.Group(group)
	if group == s.WorkspacesGroup {
		return Table{}, fmt.Errorf("the table of %s has workspaces: only tables of files can be compared", group)
	}
	return Table{Group: group, Topic: table, Input: s.Events.Name}, nil
}

// readRows calls each with the rows of a table that are to be compared, in order, so that the newest row of a key
// mostly comes last. The row of a tombstone is nil.
func (p *part) readRows(ctx context.Context, t Table, spans kafka.Spans, each func(key string, r Row) error) error {
	return kafka.Read(ctx, p.Kafka, t.Topic, spans, func(record *kgo.Record) error {
		key := string(record.Key)
		if p.WorkspaceID != "" {
			if workspace, _, err := tidemarkv1.SplitKey(key); err != nil || workspace != p.WorkspaceID {
				return nil
			}
		}
		if t.Partitions > 0 && kafka.FilePartition(record.Key, t.Partitions) != record.Partition {
			return nil
		}
		if record.Value == nil {
			if p.Translate != nil {
				return nil // another producer's, which is not copied
			}
			return each(key, nil)
		}
		r, err := p.Kind.Decode(record)
		if err != nil {
			return err
		}
		if p.Translate != nil && t.Topic == p.A.Topic {
			p.Translate(r)
		}
		return each(key, r)
	})
}

// A digest is kept of each row to find those that differ.
type digest struct {
	folded int64
	offset int64 // of its position; -1 if that is in an events topic that was deleted
	hash   uint64
}

// digests returns the digest of the newest row of each key.
func (p *part) digests(ctx context.Context, t Table, spans kafka.Spans) (map[string]digest, error) {
	digests := map[string]digest{}
	err := p.readRows(ctx, t, spans, func(key string, r Row) error {
		if r == nil {
			delete(digests, key)
			return nil
		}
		folded := Folded(r)
		if known, found := digests[key]; found && folded < known.folded { // a former owner's: views ignore it too
			return nil
		}
		offset := r.GetPosition().GetOffset()
		if id := r.GetLogId(); id != "" && id != p.eventsID {
			offset = -1
		}
		hash, err := p.hash(r)
		digests[key] = digest{folded, offset, hash}
		return err
	})
	return digests, err
}

// rows returns the newest row of each of some keys.
func (p *part) rows(ctx context.Context, t Table, spans kafka.Spans, wanted map[string]bool) (map[string]Row, error) {
	rows := map[string]Row{}
	err := p.readRows(ctx, t, spans, func(key string, r Row) error {
		switch known := rows[key]; {
		case !wanted[key]:
		case r == nil:
			delete(rows, key)
		case known == nil || Folded(r) >= Folded(known):
			rows[key] = r
		}
		return nil
	})
	return rows, err
}

// Package comparison tells in what two tables of the same kind differ.
//
// It promises to compare the newest row of every key, partition by partition, in memory that grows with the keys of one partition
// and not with their rows, and never to call a row different because one of the two groups has read further than the other:
// such rows are counted apart. Of two tables that were given other numbers of partitions, it compares as many as can hold the same
// keys at a time. It changes nothing.
package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Bookkeeping are the fields that legitimately differ between a live table and one that was rebuilt: the id of the log, when the
// events topic was made anew since, and the dedupe window, which begins with the first event that a group has read.
var Bookkeeping = []string{"log_id", "seen"}

// A Row is a row of either kind of table.
type Row interface {
	proto.Message
	GetVersion() int64
	GetPosition() *tidemarkv1.Position
	GetLogId() string
}

// Folded is how many events were folded into a row, also those that changed nothing that is shown: of two rows of a key the one
// with more is newer.
func Folded(r Row) int64 {
	if s, ok := r.(interface{ GetSilent() int64 }); ok {
		return r.GetVersion() + s.GetSilent()
	}
	return r.GetVersion()
}

// A Kind makes an empty row of one kind.
type Kind func() Row

// Files are the rows of a table of files.
func Files() Row { return new(tidemarkv1.FileState) }

// Workspaces are the rows of a table of workspaces.
func Workspaces() Row { return new(tidemarkv1.WorkspaceState) }

// Decode returns the row in a record of a table.
func (k Kind) Decode(record *kgo.Record) (Row, error) {
	r := k()
	if err := proto.Unmarshal(record.Value, r); err != nil {
		return nil, fmt.Errorf("%s, partition %d, offset %d, key %q: this is no row: %w",
			record.Topic, record.Partition, record.Offset, record.Key, err)
	}
	return r, nil
}

// A Table is the table of a group.
type Table struct {
	Group string
	Topic string
	Input string // the topic whose offsets the group commits

	// Partitions is how many its keys are hashed over, where it must be as many as another table's no longer: rows elsewhere than
	// their keys belong are passed over. 0 is as many as it has, which then must be those of the other table.
	Partitions int
}

// TableOf returns the table of a group, named with or without the prefix.
func TableOf(s topology.Streams, group string) (Table, error) {
	group, table := s.Group(group)
	if group == s.WorkspacesGroup {
		return Table{}, fmt.Errorf("the table of %s holds workspaces: only tables of files can be compared", group)
	}
	return Table{Group: group, Topic: table, Input: s.Events.Name}, nil
}

// A Comparison compares two tables.
type Comparison struct {
	Kafka       kafka.Config
	A, B        Table
	Kind        Kind     // nil: Files
	Ignore      []string // fields
	WorkspaceID string   // only its rows; empty is all
	// Moved makes a row of A what it is to be in B. It is for copies of tables whose groups do not run, so all rows are compared;
	// nil compares them as they are.
	Moved func(Row)
}

// A Difference is a row that differs.
type Difference struct {
	Partition   int32   `json:"partition"` // modulo the greatest common divisor where the tables have not as many
	Key         string  `json:"key"`
	WorkspaceID string  `json:"workspace_id"`
	FileID      string  `json:"file_id,omitempty"`
	OnlyIn      string  `json:"only_in,omitempty"` // the group that alone has the row
	Fields      []Field `json:"fields,omitempty"`
}

// A Field is one in which two rows differ, as its JSON values; null is absent.
type Field struct {
	Name string `json:"field"`
	A    any    `json:"a"`
	B    any    `json:"b"`
}

// A Summary counts what was compared.
type Summary struct {
	Equal     int `json:"equal"`
	Different int `json:"different"`
	// Moving rows were not compared: one of the groups has folded an event that the other has not come to.
	Moving int `json:"moving"`
	// BehindA and BehindB are those of Moving which group A, or B, has not come to.
	BehindA int `json:"behind_a"`
	BehindB int `json:"behind_b"`
}

// ErrField says that no row has a field of that name.
var ErrField = errors.New("no such field")

// Run hands each difference to each, by partition and key.
func (c *Comparison) Run(ctx context.Context, each func(Difference) error) (*Summary, error) {
	if c.Kind == nil {
		c.Kind = Files
	}
	fields := c.Kind().ProtoReflect().Descriptor().Fields()
	for _, name := range c.Ignore {
		if fields.ByName(protoreflect.Name(name)) == nil {
			return nil, fmt.Errorf("%w: %q", ErrField, name)
		}
	}
	p := &part{Comparison: c, summary: &Summary{}, seed: maphash.MakeSeed()}
	var err error
	if c.Moved == nil {
		if p.frontiers, err = c.frontiers(ctx); err != nil { // before the tables: what a group has committed is in its table by now
			return nil, err
		}
		if p.log, err = kafka.TopicID(ctx, c.Kafka, c.A.Input); err != nil {
			return nil, err
		}
	}
	a, err := kafka.Extent(ctx, c.Kafka, c.A.Topic)
	if err != nil {
		return nil, err
	}
	b, err := kafka.Extent(ctx, c.Kafka, c.B.Topic)
	if err != nil {
		return nil, err
	}
	if c.Moved == nil && len(a) != len(b) {
		return nil, fmt.Errorf("%s has %d partitions, %s has %d: their keys lie apart", c.A.Topic, len(a), c.B.Topic, len(b))
	}
	classes := gcd(cmp.Or(c.A.Partitions, len(a)), cmp.Or(c.B.Partitions, len(b)))
	for class := range int32(classes) {
		if c.WorkspaceID != "" && class != kafka.Partition(c.WorkspaceID, classes) {
			continue
		}
		p.class, p.a, p.b, p.frontier = class, ofClass(a, class, classes), ofClass(b, class, classes), p.frontiers[class]
		if err := p.run(ctx, each); err != nil {
			return p.summary, err
		}
	}
	return p.summary, nil
}

// gcd is how many classes of partitions there are that have keys in common: a key whose hash is h lies in partition h mod n of
// n, and h mod n and h mod m have the same remainder by the greatest common divisor of n and m.
func gcd(n, m int) int {
	for m != 0 {
		n, m = m, n%m
	}
	return n
}

// ofClass returns the partitions of a class.
func ofClass(all kafka.Spans, class int32, classes int) kafka.Spans {
	of := kafka.Spans{}
	for partition, span := range all {
		if partition%int32(classes) == class {
			of[partition] = span
		}
	}
	return of
}

// A frontier is up to where groups have read a partition.
type frontier struct{ a, b int64 }

// beyond reports whether one of them has not come to an offset.
func (f frontier) beyond(offset int64) bool { return offset >= min(f.a, f.b) }

// frontiers returns up to where both groups have read, by partition.
func (c *Comparison) frontiers(ctx context.Context) (map[int32]frontier, error) {
	a, err := kafka.Committed(ctx, c.Kafka, c.A.Group, c.A.Input)
	if err != nil {
		return nil, err
	}
	b, err := kafka.Committed(ctx, c.Kafka, c.B.Group, c.B.Input)
	if err != nil {
		return nil, err
	}
	for _, missing := range []struct {
		table Table
		none  bool
	}{{c.A, len(a) == 0}, {c.B, len(b) == 0}} {
		if missing.none {
			return nil, fmt.Errorf("group %s has committed nothing in %s: it does not exist, never ran, or was idle for so long that the brokers forgot it",
				missing.table.Group, missing.table.Input)
		}
	}
	frontiers := map[int32]frontier{}
	for partition, o := range a {
		frontiers[partition] = frontier{a: o.At, b: b[partition].At}
	}
	for partition, o := range b {
		frontiers[partition] = frontier{a: a[partition].At, b: o.At}
	}
	return frontiers, nil
}

// A part is the comparison of the partitions that have keys in common: mostly one of each table.
type part struct {
	*Comparison
	a, b      kafka.Spans
	class     int32
	frontiers map[int32]frontier // nil: no row is beyond any
	frontier  frontier
	log       string // id of the events topic
	summary   *Summary
	seed      maphash.Seed
}

// beyond reports whether one of the groups has not come to an offset.
func (p *part) beyond(offset int64) bool { return p.frontiers != nil && p.frontier.beyond(offset) }

// A sum stands for a row of which only equality matters.
type sum struct {
	folded  int64
	offset  int64 // of its position; -1 when that is in another log than the present one
	content uint64
}

func (p *part) run(ctx context.Context, each func(Difference) error) error {
	a, err := p.sums(ctx, p.A, p.a)
	if err != nil {
		return err
	}
	b, err := p.sums(ctx, p.B, p.b)
	if err != nil {
		return err
	}
	var differ []odd
	for key, left := range a {
		right, both := b[key]
		switch {
		case both && left.content == right.content:
			p.summary.Equal++
		case p.beyond(left.offset) || both && p.beyond(right.offset):
			p.moving(max(left.offset, right.offset))
		case both:
			differ = append(differ, odd{key: key})
		default:
			differ = append(differ, odd{key, p.A.Group})
		}
	}
	for key, right := range b {
		if _, both := a[key]; both {
			continue
		}
		if p.beyond(right.offset) {
			p.moving(right.offset)
		} else {
			differ = append(differ, odd{key, p.B.Group})
		}
	}
	clear(a)
	clear(b)
	slices.SortFunc(differ, func(x, y odd) int { return strings.Compare(x.key, y.key) })
	for odds := range slices.Chunk(differ, 10_000) { // whose rows are kept in memory
		if err := p.explain(ctx, odds, each); err != nil {
			return err
		}
	}
	return nil
}

// moving counts a row that cannot be compared, and who has not come to its event.
func (p *part) moving(offset int64) {
	p.summary.Moving++
	if offset >= p.frontier.a {
		p.summary.BehindA++
	}
	if offset >= p.frontier.b {
		p.summary.BehindB++
	}
}

// An odd is a key whose rows differ.
type odd struct {
	key    string
	onlyIn string // the group that alone has the row
}

// newest reads parts of a table and hands over what may be the newest row of each key, later ones last; a nil row is deleted.
func (p *part) newest(ctx context.Context, t Table, spans kafka.Spans, each func(key string, r Row) error) error {
	return kafka.Read(ctx, p.Kafka, t.Topic, spans, func(record *kgo.Record) error {
		if workspace, _, err := tidemarkv1.SplitKey(string(record.Key)); p.WorkspaceID != "" && (err != nil || workspace != p.WorkspaceID) {
			return nil
		}
		if t.Partitions > 0 && kafka.FilePartition(record.Key, t.Partitions) != record.Partition {
			return nil
		}
		if record.Value == nil && p.Moved != nil {
			return nil // a copy passes over another writer's null
		}
		if record.Value == nil {
			return each(string(record.Key), nil)
		}
		r, err := p.Kind.Decode(record)
		if err != nil {
			return err
		}
		if p.Moved != nil && t.Topic == p.A.Topic {
			p.Moved(r)
		}
		return each(string(record.Key), r)
	})
}

func (p *part) sums(ctx context.Context, t Table, spans kafka.Spans) (map[string]sum, error) {
	sums := map[string]sum{}
	err := p.newest(ctx, t, spans, func(key string, r Row) error {
		if r == nil {
			delete(sums, key)
			return nil
		}
		if known, there := sums[key]; there && Folded(r) < known.folded { // a late writer's: views pass it over too
			return nil
		}
		offset := r.GetPosition().GetOffset()
		if id := r.GetLogId(); id != "" && id != p.log {
			offset = -1 // of a log that is gone: no group will come to it
		}
		folded := Folded(r)
		content, err := p.content(r)
		sums[key] = sum{folded, offset, content}
		return err
	})
	return sums, err
}

// content is the hash of what is compared of a row.
func (p *part) content(r Row) (uint64, error) {
	m := r.ProtoReflect()
	for _, name := range p.Ignore {
		if field := m.Descriptor().Fields().ByName(protoreflect.Name(name)); field != nil {
			m.Clear(field)
		}
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode a row: %w", err)
	}
	return maphash.Bytes(p.seed, b), nil
}

// explain reads the rows of some keys again and says in what they differ.
func (p *part) explain(ctx context.Context, odds []odd, each func(Difference) error) error {
	wanted := make(map[string]bool, len(odds))
	for _, o := range odds {
		wanted[o.key] = true
	}
	a, err := p.rows(ctx, p.A, p.a, wanted)
	if err != nil {
		return err
	}
	b, err := p.rows(ctx, p.B, p.b, wanted)
	if err != nil {
		return err
	}
	for _, o := range odds {
		d := Difference{Partition: p.class, Key: o.key, OnlyIn: o.onlyIn}
		if d.WorkspaceID, d.FileID, err = tidemarkv1.SplitKey(o.key); err != nil {
			d.WorkspaceID, d.FileID = "", "" // a foreign writer's
		}
		left, right := a[o.key], b[o.key]
		if (left == nil) != (o.onlyIn == p.B.Group) || (right == nil) != (o.onlyIn == p.A.Group) {
			p.summary.Moving++ // a newer row came, and compaction took the one that was to be compared
			continue
		}
		if o.onlyIn == "" {
			d.Fields = p.fields(left, right)
		}
		p.summary.Different++
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

func (p *part) rows(ctx context.Context, t Table, spans kafka.Spans, wanted map[string]bool) (map[string]Row, error) {
	rows := map[string]Row{}
	err := p.newest(ctx, t, spans, func(key string, r Row) error {
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

// fields lists the fields in which two rows differ, in the order of the row's definition.
func (p *part) fields(a, b Row) []Field {
	left, right := a.ProtoReflect(), b.ProtoReflect()
	var found []Field
	for i := range left.Descriptor().Fields().Len() {
		field := left.Descriptor().Fields().Get(i)
		if slices.Contains(p.Ignore, string(field.Name())) {
			continue
		}
		if left.Has(field) != right.Has(field) || !left.Get(field).Equal(right.Get(field)) {
			found = append(found, Field{string(field.Name()), show(left, field), show(right, field)})
		}
	}
	return found
}

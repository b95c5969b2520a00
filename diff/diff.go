// Package diff compares two tables of the same kind, row by row.
//
// It compares the newest row of every key, one partition at a time. Memory grows with the keys of one partition, not
// with their rows. Rows that one of the groups has not read as far as the other are not called different: they are
// counted separately. If the tables have different numbers of partitions, those that can have keys in common are
// compared together. It changes nothing.
package diff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Comparison compares two tables.
type Comparison struct {
	Kafka       kafka.Config
	A, B        Table
	Kind        Kind     // nil: Files
	Ignore      []string // fields
	WorkspaceID string   // only its rows; empty: all rows
	// Translate changes a row of A to what it must be in B, which is a copy of A. The groups must not run: all rows are
	// compared.
	Translate func(Row)
}

// A Difference is a row that differs.
type Difference struct {
	Partition   int32   `json:"partition"` // modulo the greatest common divisor of the tables' numbers of partitions
	Key         string  `json:"key"`
	WorkspaceID string  `json:"workspace_id"`
	FileID      string  `json:"file_id,omitempty"`
	OnlyIn      string  `json:"only_in,omitempty"` // the only group that has the row
	Fields      []Field `json:"fields,omitempty"`
}

// A Field is a field in which two rows differ. Its values are encoded as JSON; nil is an absent field.
type Field struct {
	Name string `json:"field"`
	A    any    `json:"a"`
	B    any    `json:"b"`
}

// A Summary counts rows.
type Summary struct {
	Equal     int `json:"equal"`
	Different int `json:"different"`
	// NotCompared rows have folded an event that one of the groups has not read.
	NotCompared int `json:"moving"`
	// BehindA and BehindB are those of NotCompared that group A, or B, has not read.
	BehindA int `json:"behind_a"`
	BehindB int `json:"behind_b"`
}

// ErrField is returned when rows have no field of a name in Ignore.
var ErrField = errors.New("no such field")

// Run calls each with every difference, by partition and key.
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
	var committed map[int32]commits
	var err error
	if c.Translate == nil {
		// Before the tables: a table has all that its group has committed.
		if committed, err = c.commits(ctx); err != nil {
			return nil, err
		}
		if p.eventsID, err = kafka.TopicID(ctx, c.Kafka, c.A.Input); err != nil {
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
	if c.Translate == nil && len(a) != len(b) {
		return nil, fmt.Errorf("%s has %d partitions, %s has %d: they cannot be compared",
			c.A.Topic, len(a), c.B.Topic, len(b))
	}
	classes := gcd(cmp.Or(c.A.Partitions, len(a)), cmp.Or(c.B.Partitions, len(b)))
	for class := range int32(classes) {
		if c.WorkspaceID != "" && class != kafka.Partition(c.WorkspaceID, classes) {
			continue
		}
		p.class, p.a, p.b, p.commits = class, ofClass(a, class, classes), ofClass(b, class, classes), committed[class]
		if err := p.run(ctx, each); err != nil {
			return p.summary, err
		}
	}
	return p.summary, nil
}

// gcd returns the greatest common divisor. It is the number of classes of partitions that have keys in common: a key
// with the hash h is in partition h mod n of n, and h mod n and h mod m have the same remainder modulo the gcd of n and
// m.
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

// commits are the offsets of a partition that both groups read next.
type commits struct{ a, b int64 }

// commits returns the commits of both groups, by partition.
func (c *Comparison) commits(ctx context.Context) (map[int32]commits, error) {
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
			return nil, fmt.Errorf("group %s has committed nothing in %s: it does not exist, has never run, "+
				"or its commits have expired",
				missing.table.Group, missing.table.Input)
		}
	}
	both := map[int32]commits{}
	for partition, o := range a {
		both[partition] = commits{a: o.At, b: b[partition].At}
	}
	for partition, o := range b {
		both[partition] = commits{a: a[partition].At, b: o.At}
	}
	return both, nil
}

// A part compares partitions that can have keys in common: mostly one of each table.
type part struct {
	*Comparison
	a, b     kafka.Spans
	class    int32
	commits  commits
	eventsID string // id of the events topic
	summary  *Summary
	seed     maphash.Seed
}

// unread reports whether one of the groups has not read an offset.
func (p *part) unread(offset int64) bool {
	return p.Translate == nil && offset >= min(p.commits.a, p.commits.b)
}

func (p *part) run(ctx context.Context, each func(Difference) error) error {
	a, err := p.digests(ctx, p.A, p.a)
	if err != nil {
		return err
	}
	b, err := p.digests(ctx, p.B, p.b)
	if err != nil {
		return err
	}
	var found []mismatch
	for key, left := range a {
		right, both := b[key]
		switch {
		case both && left.hash == right.hash:
			p.summary.Equal++
		case p.unread(left.offset) || both && p.unread(right.offset):
			p.notCompared(max(left.offset, right.offset))
		case both:
			found = append(found, mismatch{key: key})
		default:
			found = append(found, mismatch{key, p.A.Group})
		}
	}
	for key, right := range b {
		if _, both := a[key]; both {
			continue
		}
		if p.unread(right.offset) {
			p.notCompared(right.offset)
		} else {
			found = append(found, mismatch{key, p.B.Group})
		}
	}
	clear(a)
	clear(b)
	slices.SortFunc(found, func(x, y mismatch) int { return strings.Compare(x.key, y.key) })
	for some := range slices.Chunk(found, 10_000) { // their rows are kept in memory
		if err := p.explain(ctx, some, each); err != nil {
			return err
		}
	}
	return nil
}

// notCompared counts a row that cannot be compared, and which groups have not read its event.
func (p *part) notCompared(offset int64) {
	p.summary.NotCompared++
	if offset >= p.commits.a {
		p.summary.BehindA++
	}
	if offset >= p.commits.b {
		p.summary.BehindB++
	}
}

// A mismatch is a key whose rows differ.
type mismatch struct {
	key    string
	onlyIn string // the only group that has a row
}

// hash returns a hash of the fields of a row that are compared.
func (p *part) hash(r Row) (uint64, error) {
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

// explain reads the rows of some keys again and reports in which fields they differ.
func (p *part) explain(ctx context.Context, some []mismatch, each func(Difference) error) error {
	wanted := make(map[string]bool, len(some))
	for _, m := range some {
		wanted[m.key] = true
	}
	a, err := p.rows(ctx, p.A, p.a, wanted)
	if err != nil {
		return err
	}
	b, err := p.rows(ctx, p.B, p.b, wanted)
	if err != nil {
		return err
	}
	for _, m := range some {
		d := Difference{Partition: p.class, Key: m.key, OnlyIn: m.onlyIn}
		if d.WorkspaceID, d.FileID, err = tidemarkv1.SplitKey(m.key); err != nil {
			d.WorkspaceID, d.FileID = "", "" // another producer's
		}
		left, right := a[m.key], b[m.key]
		if (left == nil) != (m.onlyIn == p.B.Group) || (right == nil) != (m.onlyIn == p.A.Group) {
			p.summary.NotCompared++ // compaction has removed a row in favour of a newer one
			continue
		}
		if m.onlyIn == "" {
			d.Fields = p.fields(left, right)
		}
		p.summary.Different++
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

// fields lists the fields in which two rows differ, in the order of the message.
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

package deadletters

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// inOrder returns the entries in the order of replay, which does not depend on what is selected of them.
//
// A workspace's entries mostly come from one partition, whose order is theirs. Records that a foreign producer put into a wrong
// partition were ordered with the others by nothing but time, so that decides between partitions: a record counts as no earlier
// than those before it in its partition.
func inOrder(entries []*Entry) []*Entry {
	slices.SortFunc(entries, bySource)
	type ranked struct {
		*Entry
		at time.Time
	}
	ranks := make([]ranked, len(entries))
	for i, e := range entries {
		ranks[i] = ranked{e, e.First}
		if i > 0 && entries[i-1].Source.Topic == e.Source.Topic && entries[i-1].Source.Partition == e.Source.Partition {
			ranks[i].at = later(e.First, ranks[i-1].at)
		}
	}
	slices.SortStableFunc(ranks, func(a, b ranked) int { return cmp.Or(a.at.Compare(b.at), bySource(a.Entry, b.Entry)) })
	for i, e := range ranks {
		entries[i] = e.Entry
	}
	return entries
}

// bySource orders by position; of two logs at the same position the older one first.
func bySource(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.Source.Topic, b.Source.Topic), cmp.Compare(a.Source.Partition, b.Source.Partition),
		cmp.Compare(a.Source.Offset, b.Source.Offset), cmp.Compare(a.at.offset, b.at.offset))
}

// How much is read at a time of entries whose values are wanted.
const (
	chunkEntries = 256
	chunkBytes   = 8 << 20
)

// chunks cuts entries into parts whose values fit into memory, of at most most entries.
func chunks(entries []*Entry, most int) [][]*Entry {
	var parts [][]*Entry
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && n < most && (n == 0 || size+entries[n].size <= chunkBytes) {
			size += entries[n].size
			n++
		}
		parts = append(parts, entries[:n])
		entries = entries[n:]
	}
	return parts
}

// ErrNoEntry says that no record with that source position was dead-lettered, or that retention has taken it.
var ErrNoEntry = errors.New("there is no such dead letter, or retention has taken it")

// errEnough ends a reading that has found all.
var errEnough = errors.New("enough")

// records reads the records of entries, which lie close together when they are in the order of replay.
func (q *Queue) records(ctx context.Context, entries []*Entry) (map[place]*kgo.Record, error) {
	wanted := make(map[place]bool, len(entries))
	spans := kafka.Spans{}
	for _, e := range entries {
		wanted[e.at] = true
		span, begun := spans[e.at.partition]
		if !begun {
			span = kafka.Span{From: e.at.offset, To: e.at.offset + 1}
		}
		spans[e.at.partition] = kafka.Span{From: min(span.From, e.at.offset), To: max(span.To, e.at.offset+1)}
	}
	found := make(map[place]*kgo.Record, len(entries))
	err := kafka.Read(ctx, q.kafka, q.streams.DLQ.Name, spans, func(r *kgo.Record) error {
		if at := (place{r.Partition, r.Offset}); wanted[at] {
			found[at] = r
		}
		if len(found) == len(wanted) {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return found, nil
}

// Records hands each entry and its record to each, in the order given.
func (q *Queue) Records(ctx context.Context, entries []*Entry, each func(*Entry, *kgo.Record) error) error {
	for _, part := range chunks(entries, chunkEntries) {
		records, err := q.records(ctx, part)
		if err != nil {
			return err
		}
		for _, e := range part {
			r := records[e.at]
			if r == nil {
				continue // retention took it since it was listed
			}
			if err := each(e, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Find returns the entry of a source record, resolved or not, and its record in the topic of the dead letters.
func (q *Queue) Find(ctx context.Context, source Source) (*Entry, *kgo.Record, error) {
	entries, err := q.Entries(ctx, Filter{Sources: []Source{source}, All: true})
	if err != nil {
		return nil, nil, err
	}
	var record *kgo.Record
	if len(entries) > 0 {
		newest := entries[len(entries)-1]
		err = q.Records(ctx, []*Entry{newest}, func(_ *Entry, r *kgo.Record) error {
			record = r
			return nil
		})
		if err != nil {
			return nil, nil, err
		}
		if record != nil {
			return newest, record, nil
		}
	}
	return nil, nil, fmt.Errorf("%s: %w", source.Text(q.Events()), ErrNoEntry)
}

// A Group is the entries of one reason.
type Group struct {
	Reason  string
	Entries int
	Records int // in the topic: more than entries when some were dead-lettered more than once
	First   time.Time
	Last    time.Time
	Example *Entry // the newest
}

// Groups gathers entries by reason, the largest group first.
func Groups(entries []*Entry) []Group {
	byReason := map[string]*Group{}
	var order []*Group
	for _, e := range entries {
		g := byReason[e.Reason]
		if g == nil {
			g = &Group{Reason: e.Reason, First: e.First, Last: e.Last, Example: e}
			byReason[e.Reason] = g
			order = append(order, g)
		}
		g.Entries++
		g.Records += e.Times
		g.First, g.Last = earlier(g.First, e.First), later(g.Last, e.Last)
		if !e.Last.Before(g.Example.Last) {
			g.Example = e
		}
	}
	slices.SortFunc(order, func(a, b *Group) int { return cmp.Or(b.Entries-a.Entries, cmp.Compare(a.Reason, b.Reason)) })
	groups := make([]Group, len(order))
	for i, g := range order {
		groups[i] = *g
	}
	return groups
}

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

// inOrder returns the entries in replay order, which does not depend on the filter.
//
// A workspace's entries mostly come from one partition, and keep its order. Nothing but time orders them with records
// that a foreign producer put into a wrong partition. So time decides between partitions: a record's time is at least
// that of the records before it in its partition.
func inOrder(entries []*Entry) []*Entry {
	slices.SortFunc(entries, bySource)
	type ranked struct {
		*Entry
		at time.Time
	}
	ranks := make([]ranked, len(entries))
	for i, e := range entries {
		ranks[i] = ranked{e, e.First}
		if i > 0 && entries[i-1].Topic == e.Topic && entries[i-1].Partition == e.Partition {
			ranks[i].at = later(e.First, ranks[i-1].at)
		}
	}
	slices.SortStableFunc(ranks, func(a, b ranked) int {
		return cmp.Or(a.at.Compare(b.at), bySource(a.Entry, b.Entry))
	})
	for i, e := range ranks {
		entries[i] = e.Entry
	}
	return entries
}

// bySource orders by source position. Of two entries at one position the one that was dead-lettered first comes first.
func bySource(a, b *Entry) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition),
		cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.first.offset, b.first.offset))
}

// Limits of what is read at a time when values are needed.
const (
	chunkEntries = 256
	chunkBytes   = 8 << 20
)

// chunks cuts entries into parts of at most most entries, and of a bounded size in bytes.
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

// ErrNoEntry is returned when no record of that source was dead-lettered, or when its entry has expired.
var ErrNoEntry = errors.New("there is no such dead letter, or it has expired")

// errFoundAll stops reading early.
var errFoundAll = errors.New("all records were found")

// records reads the records of entries. Those that are neighbours in replay order mostly have near offsets.
func (q *Queue) records(ctx context.Context, entries []*Entry) (map[dlqPosition]*kgo.Record, error) {
	wanted := make(map[dlqPosition]bool, len(entries))
	spans := kafka.Spans{}
	for _, e := range entries {
		wanted[e.first] = true
		span, found := spans[e.first.partition]
		if !found {
			span = kafka.Span{From: e.first.offset, To: e.first.offset + 1}
		}
		spans[e.first.partition] = kafka.Span{From: min(span.From, e.first.offset), To: max(span.To, e.first.offset+1)}
	}
	found := make(map[dlqPosition]*kgo.Record, len(entries))
	err := kafka.Read(ctx, q.kafka, q.streams.DLQ.Name, spans, func(r *kgo.Record) error {
		if at := (dlqPosition{r.Partition, r.Offset}); wanted[at] {
			found[at] = r
		}
		if len(found) == len(wanted) {
			return errFoundAll
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFoundAll) {
		return nil, err
	}
	return found, nil
}

// Records calls each with every entry and its record, in the order given. Entries that have expired are skipped.
func (q *Queue) Records(ctx context.Context, entries []*Entry, each func(*Entry, *kgo.Record) error) error {
	for _, part := range chunks(entries, chunkEntries) {
		records, err := q.records(ctx, part)
		if err != nil {
			return err
		}
		for _, e := range part {
			r := records[e.first]
			if r == nil {
				continue
			}
			if err := each(e, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Find returns the entry of a source, resolved or not, and its record in the dead letters' topic.
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

// A Group is the entries of one reason, and of one sink.
type Group struct {
	Reason  string    `json:"reason"`
	Sink    string    `json:"sink,omitempty"`
	Entries int       `json:"entries"`
	Records int       `json:"records"` // more than entries when a source record was dead-lettered more than once
	First   time.Time `json:"first_failed_at"`
	Last    time.Time `json:"last_failed_at"`
	Example *Entry    `json:"example"` // the newest
}

// Groups groups entries by reason and sink, the largest group first.
func Groups(entries []*Entry) []Group {
	type key struct{ reason, sink string }
	groupOf := map[key]*Group{}
	var order []*Group
	for _, e := range entries {
		g := groupOf[key{e.Reason, e.Sink}]
		if g == nil {
			g = &Group{Reason: e.Reason, Sink: e.Sink, First: e.First, Last: e.Last, Example: e}
			groupOf[key{e.Reason, e.Sink}] = g
			order = append(order, g)
		}
		g.Entries++
		g.Records += e.Times
		g.First, g.Last = earlier(g.First, e.First), later(g.Last, e.Last)
		if !e.Last.Before(g.Example.Last) {
			g.Example = e
		}
	}
	slices.SortFunc(order, func(a, b *Group) int {
		return cmp.Or(b.Entries-a.Entries, cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Sink, b.Sink))
	})
	groups := make([]Group, len(order))
	for i, g := range order {
		groups[i] = *g
	}
	return groups
}

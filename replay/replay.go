// Package replay sends events of the past through tidemark again: into their own topic, or into a table of another group that
// can be compared with the live one.
//
// It promises that a run reads what was there when it began, in the order of each workspace; that what it puts into the topic is
// the events' bytes, marked by a header; and that a run which was cut short goes on where it stopped when it is started again
// with the same words. What lies between the last commit and the cut is sent twice, and told by its event id.
//
// It folds nothing itself: package processors does, and cmd brings the two together.
package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Selection says which events are meant. Its texts are a person's words: a run that is started again is known by them.
type Selection struct {
	From        string   `json:"from,omitempty"` // start (or empty), a time, how long ago, or positions; the event there is in
	To          string   `json:"to,omitempty"`   // end (or empty), a time, how long ago, or positions; the event there is not in
	WorkspaceID string   `json:"workspace_id,omitempty"`
	Events      []string `json:"events,omitempty"` // names of events; none is all
}

// String says the selection in a line.
func (s Selection) String() string {
	parts := []string{"from " + orElse(s.From, "start"), "to " + orElse(s.To, "end")}
	if s.WorkspaceID != "" {
		parts = append(parts, fmt.Sprintf("workspace %q", s.WorkspaceID))
	}
	if len(s.Events) > 0 {
		parts = append(parts, "events "+strings.Join(s.Events, ","))
	}
	return strings.Join(parts, ", ")
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Wants says whether an event is selected, wherever it lies.
func (s Selection) Wants(e *tidemarkv1.Event) bool {
	return (s.WorkspaceID == "" || s.WorkspaceID == e.GetWorkspaceId()) && (len(s.Events) == 0 || slices.Contains(s.Events, e.GetEvent()))
}

// A BadBound says that a text is no place to begin or end at.
type BadBound struct{ Name, Text, Why string }

// Error says what to write instead.
func (e *BadBound) Error() string {
	return fmt.Sprintf("%s %q: %s", e.Name, e.Text, e.Why)
}

// Spans looks up what the selection means in a topic as it is now. A partition whose selected part holds nothing yet has an empty
// span, at the offset where that part begins.
func (s Selection) Spans(ctx context.Context, conf kafka.Config, topic string, now time.Time) (kafka.Spans, error) {
	extent, err := kafka.Extent(ctx, conf, topic)
	if err != nil {
		return nil, err
	}
	find := func(name, text string) (bounds, error) {
		b, err := parseBound(name, text, now)
		if err != nil || b.at.IsZero() {
			return b, err
		}
		b.offsets, err = kafka.OffsetsAt(ctx, conf, topic, b.at)
		return b, err
	}
	from, err := find("from", s.From)
	if err != nil {
		return nil, err
	}
	to, err := find("to", s.To)
	if err != nil {
		return nil, err
	}
	if err := s.check(from, to, topic, extent); err != nil {
		return nil, err
	}
	spans := kafka.Spans{}
	for partition, span := range extent {
		if s.WorkspaceID != "" && partition != kafka.Partition(s.WorkspaceID, len(extent)) {
			continue
		}
		begin, in := from.of(partition, span.From)
		end, also := to.of(partition, span.To)
		if !from.at.IsZero() {
			begin = min(begin, span.To) // behind an open transaction's records there is nothing to begin with yet
		}
		if begin, end = max(begin, span.From), min(end, span.To); in && also && begin <= end {
			spans[partition] = kafka.Span{From: begin, To: end}
		}
	}
	return spans, nil
}

// check refuses positions that cannot be meant: what they select is nothing, and nothing done would look like success.
func (s Selection) check(from, to bounds, topic string, extent kafka.Spans) error {
	for _, b := range []bounds{from, to} {
		for p, offset := range b.positions() {
			span, there := extent[p]
			switch home := kafka.Partition(s.WorkspaceID, len(extent)); {
			case !there:
				return &BadBound{b.name, b.text, fmt.Sprintf("%s has partitions 0 to %d", topic, len(extent)-1)}
			case offset > span.To:
				return &BadBound{b.name, b.text, fmt.Sprintf("partition %d of %s ends at offset %d", p, topic, span.To)}
			case s.WorkspaceID != "" && p != home:
				return &BadBound{b.name, b.text, fmt.Sprintf("the events of workspace %s are in partition %d", s.WorkspaceID, home)}
			}
		}
	}
	for p, end := range to.positions() {
		begin, also := from.positions()[p]
		switch {
		case from.positions() != nil && !also:
			return &BadBound{to.name, to.text, fmt.Sprintf("--from does not name partition %d", p)}
		case also && begin > end:
			return &BadBound{to.name, to.text, fmt.Sprintf("--from begins behind it in partition %d", p)}
		}
	}
	return nil
}

// bounds are one end of the selection, by partition.
type bounds struct {
	name, text string
	at         time.Time       // when it is a time
	offsets    map[int32]int64 // nil: the end of the topic that the name says
}

// positions are the offsets that the selection names; nil when it names none.
func (b bounds) positions() map[int32]int64 {
	if !b.at.IsZero() {
		return nil
	}
	return b.offsets
}

// of returns the bound of a partition, or false when the selection names other partitions only.
func (b bounds) of(partition int32, otherwise int64) (int64, bool) {
	if b.offsets == nil {
		return otherwise, true
	}
	offset, named := b.offsets[partition]
	return offset, named
}

func parseBound(name, text string, now time.Time) (bounds, error) {
	b := bounds{name: name, text: text}
	if text == "" || name == "from" && text == "start" || name == "to" && text == "end" {
		return b, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		b.at = now.Add(-ago)
		return b, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(form, text); err == nil {
			b.at = at
			return b, nil
		}
	}
	b.offsets = map[int32]int64{}
	for position := range strings.SplitSeq(text, ",") {
		p, err := tidemarkv1.ParsePosition(position)
		if err != nil {
			return b, &BadBound{name, text, "want a time like 2026-11-24T12:00:00Z, a day like 2026-11-24, how long ago, like 2h, or positions, like 7:1234,8:56"}
		}
		if _, twice := b.offsets[p.GetPartition()]; twice {
			return b, &BadBound{name, text, fmt.Sprintf("partition %d is named twice", p.GetPartition())}
		}
		b.offsets[p.GetPartition()] = p.GetOffset()
	}
	return b, nil
}

// Progress is how far a run is, counted in offsets.
type Progress struct{ Done, Total int64 }

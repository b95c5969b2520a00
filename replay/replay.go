// Package replay processes events of the past again: it appends them to the events topic ([Republish]), or folds them
// into a table of another group ([Rebuild]).
//
// A run reads up to where the topic ended when it began, in the order of each workspace. Republished events have the
// same value and a replay header. An interrupted run continues when it is started again with the same selection. Events
// after its last commit are sent twice; the second is a duplicate by its event id.
//
// The package folds nothing: cmd passes it the group that does.
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

// A Selection selects events. It keeps the texts as a person typed them: they identify a run that is started again.
type Selection struct {
	From        string   `json:"from,omitempty"` // start (or empty), a time, how long ago, or positions; inclusive
	To          string   `json:"to,omitempty"`   // end (or empty), a time, how long ago, or positions; exclusive
	WorkspaceID string   `json:"workspace_id,omitempty"`
	Events      []string `json:"events,omitempty"` // event types; empty: all
}

// String returns the selection in one line.
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

// Wants reports whether the workspace and the type of an event are selected.
func (s Selection) Wants(e *tidemarkv1.Event) bool {
	return (s.WorkspaceID == "" || s.WorkspaceID == e.GetWorkspaceId()) &&
		(len(s.Events) == 0 || slices.Contains(s.Events, e.GetEvent()))
}

// A BadBound is the error for a From or To that cannot be used.
type BadBound struct{ Name, Text, Why string }

// Error returns the bound and what to write instead.
func (e *BadBound) Error() string {
	return fmt.Sprintf("%s %q: %s", e.Name, e.Text, e.Why)
}

// Spans returns the selected offsets of a topic as it is now. A partition whose selected part has no records yet has an
// empty span, at the offset where that part begins.
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
			begin = min(begin, span.To) // the time may be found behind the last stable offset
		}
		if begin, end = max(begin, span.From), min(end, span.To); in && also && begin <= end {
			spans[partition] = kafka.Span{From: begin, To: end}
		}
	}
	return spans, nil
}

// check refuses positions that select nothing, which would look like success.
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
				why := fmt.Sprintf("the events of workspace %s are in partition %d", s.WorkspaceID, home)
				return &BadBound{b.name, b.text, why}
			}
		}
	}
	for p, end := range to.positions() {
		begin, also := from.positions()[p]
		switch {
		case from.positions() != nil && !also:
			return &BadBound{to.name, to.text, fmt.Sprintf("--from does not name partition %d", p)}
		case also && begin > end:
			return &BadBound{to.name, to.text, fmt.Sprintf("--from is after it in partition %d", p)}
		}
	}
	return nil
}

// bounds are one end of the selection, by partition.
type bounds struct {
	name, text string
	at         time.Time       // zero unless the bound is a time
	offsets    map[int32]int64 // nil: the beginning or the end of the topic
}

// positions returns the offsets that the selection names; nil if it names none.
func (b bounds) positions() map[int32]int64 {
	if !b.at.IsZero() {
		return nil
	}
	return b.offsets
}

// of returns the bound of a partition, or false if the selection names other partitions only.
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
			return b, &BadBound{name, text, "want a time like 2026-11-24T12:00:00Z, a day like 2026-11-24, " +
				"how long ago, like 2h, or positions, like 7:1234,8:56"}
		}
		if _, twice := b.offsets[p.GetPartition()]; twice {
			return b, &BadBound{name, text, fmt.Sprintf("partition %d is named twice", p.GetPartition())}
		}
		b.offsets[p.GetPartition()] = p.GetOffset()
	}
	return b, nil
}

// Progress is the progress of a run, in offsets or entries.
type Progress struct{ Done, Total int64 }

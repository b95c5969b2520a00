// Package why finds out what was done with the events of one file (Follow), or with one event (Tracer). It reads topics
// only: no role has to run.
//
// The verdict of an event follows from the notice or dead letter of its position, from the group's commit, and from the
// ids that were accepted before it. Follow reads one partition of each topic, and all of the dead letters, up to their
// ends when it begins, and keeps only what may be about the file in memory. A Tracer searches. The package changes
// nothing and joins no group.
package why

import (
	"context"
	"fmt"
	"time"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Verdict is what was done with an event.
type Verdict string

// The verdicts.
const (
	Accepted     Verdict = "accepted"      // folded into the row
	Late         Verdict = "late"          // folded, but newer events came before it and kept what they set
	Duplicate    Verdict = "duplicate"     // its id was accepted before; it has no effect
	Passed       Verdict = "passed"        // it touches no row; it has only a notice
	Unchanged    Verdict = "unchanged"     // folded, but it changed nothing visible and gave no version
	DeadLettered Verdict = "dead_lettered" // it could not be folded: see its reason
	Pending      Verdict = "pending"       // the files group has not committed past it
	NoTrace      Verdict = "no_trace"      // committed, without a notice, a dead letter or an earlier copy
)

// An Event is one event of the file, in the order of the log.
type Event struct {
	EventID    string     `json:"event_id"`
	Position   string     `json:"position"`
	Event      string     `json:"event"`
	SentAt     *time.Time `json:"sent_at"` // by the sender's clock; null if the event has none
	ReceivedAt time.Time  `json:"received_at"`
	Verdict    Verdict    `json:"verdict"`
	Reason     string     `json:"reason,omitempty"`  // of a dead letter
	Detail     string     `json:"detail,omitempty"`  // for people
	Version    *int64     `json:"version,omitempty"` // of the row after this event
	// Unreadable are the fields that have a value which cannot be read. They count as absent.
	Unreadable []string `json:"unreadable,omitempty"`
	// SentEvent is the sender's event type, if the ingress mapped it to Event.
	SentEvent string `json:"sent_event,omitempty"`
}

// A Span is what was read of one partition, or of all partitions of the dead letters.
type Span struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"` // -1: all
	From      int64  `json:"from"`
	To        int64  `json:"to"` // exclusive
	Records   int64  `json:"records"`
}

// String returns the span for people.
func (s Span) String() string {
	if s.Partition < 0 {
		return fmt.Sprintf("%s, all partitions: %d records", s.Topic, s.Records)
	}
	return fmt.Sprintf("%s, partition %d, offsets %d to %d: %d records", s.Topic, s.Partition, s.From, s.To, s.Records)
}

// A Finding is the result besides the events.
type Finding struct {
	Row       *tidemarkv1.FileState // nil: the table has none
	Agreement Agreement
	Why       string // the agreement in words
	Commit    int64  // the files group's, in the events partition; -1: none
	Read      []Span
	Events    int // how many were reported
}

// An Agreement is the result of comparing the row with the last notice.
type Agreement string

// The agreements.
const (
	Agrees    Agreement = "yes"
	Disagrees Agreement = "no"
	Unknown   Agreement = "unknown" // nothing to compare
)

// A Search is what to look for, and where.
type Search struct {
	Kafka               kafka.Config
	Streams             topology.Streams
	WorkspaceID, FileID string
	Since               time.Time // zero: from the beginning
	// Progress is called every few seconds, with offsets of a topic that is being read.
	Progress func(topic string, done, total int64)
}

// Follow calls report with each event of the file in the order of the log, and returns the rest of the result. Dead
// letters of the file whose source records are in another partition, or have expired, are reported last.
func Follow(ctx context.Context, s Search, report func(Event) error) (f Finding, err error) {
	name := s.Streams.Events.Name
	extent, err := kafka.Extent(ctx, s.Kafka, name)
	if err != nil {
		return f, err
	}
	partition := kafka.Partition(s.WorkspaceID, len(extent))
	id, err := kafka.TopicID(ctx, s.Kafka, name)
	if err != nil {
		return f, err
	}
	// The commit is read first: the notices of all events before it are in the records that are read later.
	commits, err := kafka.Committed(ctx, s.Kafka, s.Streams.FilesGroup, name)
	if err != nil {
		return f, err
	}
	commit := int64(-1)
	if o, ok := commits[partition]; ok {
		commit = o.At
	}
	e := newEvidence(s, partition, id, commit)
	read, err := e.gather(ctx, s)
	if err != nil {
		return f, err
	}
	log, err := s.onePartition(ctx, name, partition, s.Since)
	if err != nil {
		return f, err
	}
	e.report = report
	if err := log.read(ctx, e.event); err != nil {
		return f, err
	}
	if err := e.reportOthers(); err != nil {
		return f, err
	}
	f = Finding{Row: e.row, Commit: commit, Events: e.reported}
	f.Agreement, f.Why = e.agreement()
	f.Read = append([]Span{log.span()}, read...)
	return f, nil
}

// since returns the time to read outputs from: they are written after the event, but maybe by another clock.
func (s Search) since() time.Time {
	if s.Since.IsZero() {
		return s.Since
	}
	return s.Since.Add(-time.Minute)
}

// gather reads everything but the events.
func (e *evidence) gather(ctx context.Context, s Search) ([]Span, error) {
	notices, err := s.onePartition(ctx, s.Streams.Notify.Name, e.partition, s.since())
	if err != nil {
		return nil, err
	}
	e.noticesFrom = notices.spans[e.partition].From
	if err := notices.read(ctx, e.notice); err != nil {
		return nil, err
	}
	dead, err := s.allPartitions(ctx, s.Streams.DLQ.Name, s.since())
	if err != nil {
		return nil, err
	}
	if err := dead.read(ctx, e.deadLetter); err != nil {
		return nil, err
	}
	table, err := s.onePartition(ctx, s.Streams.Files.Name, e.partition, time.Time{})
	if err != nil {
		return nil, err
	}
	if err := table.read(ctx, e.rowRecord); err != nil {
		return nil, err
	}
	if err := e.catchUp(ctx, notices, table); err != nil {
		return nil, err
	}
	return []Span{notices.span(), dead.span(), table.span()}, nil
}

// catchUp reads more if the row does not agree with the notices: a processor may have written meanwhile, and a row is
// written after its notice.
func (e *evidence) catchUp(ctx context.Context, notices, table *reading) error {
	if agreement, _ := e.agreement(); agreement == Agrees || e.row == nil && len(e.notices) == 0 {
		return nil
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := table.readMore(ctx, e.rowRecord); err != nil { // the table first: a row's notice is older than the row
		return err
	}
	return notices.readMore(ctx, e.notice)
}

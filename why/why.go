// Package trail tells what became of the events of one file, read from the topics alone.
//
// It promises that its answer needs nobody who is running: an event's verdict follows from the notice or dead letter at its
// position, from the group's commit, and from the ids accepted before it. It reads one partition of each topic, and of the dead
// letters all, as they are when it begins, and keeps in memory only what is about the file, or may be. It changes nothing, joins no group,
// and decides no rule: what an event does is for package file.
package why

import (
	"context"
	"fmt"
	"time"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Verdict says what became of an event.
type Verdict string

// The verdicts.
const (
	Accepted     Verdict = "accepted"      // folded into the row
	Late         Verdict = "late"          // folded, but newer events came before it and kept what they set
	Duplicate    Verdict = "duplicate"     // its id was accepted before: without effect
	Passed       Verdict = "passed"        // touches no row: a notice, and nothing else
	Unchanged    Verdict = "unchanged"     // folded, but the row showed that already: it gave no version
	DeadLettered Verdict = "dead_lettered" // not understood: see its reason
	Pending      Verdict = "pending"       // the files group has not committed past it
	NoTrace      Verdict = "no_trace"      // committed past, without a notice, a dead letter or an earlier copy in what was read
)

// An Event is one event of the file, in the order of the log.
type Event struct {
	EventID    string     `json:"event_id"`
	Position   string     `json:"position"`
	Event      string     `json:"event"`
	SentAt     *time.Time `json:"sent_at"` // by the sender's clock; null when it says none
	ReceivedAt time.Time  `json:"received_at"`
	Verdict    Verdict    `json:"verdict"`
	Reason     string     `json:"reason,omitempty"`  // of a dead letter
	Detail     string     `json:"detail,omitempty"`  // for people
	Version    *int64     `json:"version,omitempty"` // the row's, which this event gave it
	// Unreadable names the fields that were there, could not be read, and count as absent.
	Unreadable []string `json:"unreadable,omitempty"`
	// SentEvent is the sender's name of what happened, where the ingress took it for Event.
	SentEvent string `json:"sent_event,omitempty"`
}

// A Span is what was read of one partition, or for the dead letters of all.
type Span struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"` // -1: all
	From      int64  `json:"from"`
	To        int64  `json:"to"` // exclusive
	Records   int64  `json:"records"`
}

// String says the span for people.
func (s Span) String() string {
	if s.Partition < 0 {
		return fmt.Sprintf("%s, all partitions: %d records", s.Topic, s.Records)
	}
	return fmt.Sprintf("%s, partition %d, offsets %d to %d: %d records", s.Topic, s.Partition, s.From, s.To, s.Records)
}

// A Finding is what there is besides the events.
type Finding struct {
	Row       *tidemarkv1.FileState // nil: the table has none
	Agreement Agreement
	Why       string // the agreement in words
	Commit    int64  // the files group's, in the events partition; -1: none
	Looked    []Span
	Events    int // how many were told
}

// An Agreement says whether the row is what the last notice says it is.
type Agreement string

// The agreements.
const (
	Agrees    Agreement = "yes"
	Disagrees Agreement = "no"
	Unknown   Agreement = "unknown" // there is nothing to compare
)

// A Search says where to look.
type Search struct {
	Kafka               kafka.Config
	Streams             topology.Streams
	WorkspaceID, FileID string
	Since               time.Time // zero: from the beginning
	// Progress is called now and then: how far the reading of a topic has come.
	Progress func(topic string, done, total int64)
}

// Follow calls tell with each event of the file in the order of the log, and returns what else there is of it. A dead letter
// whose source is in another partition, or gone, is told last, if anything that was kept of it says that it is the file's.
func Follow(ctx context.Context, s Search, tell func(Event) error) (f Finding, err error) {
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
	// The commit first: all that it covers has its notice in what is read after it.
	commits, err := kafka.Committed(ctx, s.Kafka, s.Streams.FilesGroup, name)
	if err != nil {
		return f, err
	}
	commit := int64(-1)
	if o, ok := commits[partition]; ok {
		commit = o.At
	}
	e := newEvidence(s, partition, id, commit)
	looked, err := e.gather(ctx, s)
	if err != nil {
		return f, err
	}
	log, err := s.one(ctx, name, partition, s.Since)
	if err != nil {
		return f, err
	}
	e.tell = tell
	if err := log.read(ctx, e.event); err != nil {
		return f, err
	}
	if err := e.rest(); err != nil {
		return f, err
	}
	f = Finding{Row: e.row, Commit: commit, Events: e.told}
	f.Agreement, f.Why = e.agreement()
	f.Looked = append([]Span{log.looked()}, looked...)
	return f, nil
}

// since is where to begin in what is written after the event: brokers and processors have clocks of their own.
func (s Search) since() time.Time {
	if s.Since.IsZero() {
		return s.Since
	}
	return s.Since.Add(-time.Minute)
}

// gather reads all but the events: what tells their verdicts.
func (e *evidence) gather(ctx context.Context, s Search) ([]Span, error) {
	notices, err := s.one(ctx, s.Streams.Notify.Name, e.partition, s.since())
	if err != nil {
		return nil, err
	}
	e.noticesFrom = notices.spans[e.partition].From
	if err := notices.read(ctx, e.notice); err != nil {
		return nil, err
	}
	dead, err := s.all(ctx, s.Streams.DLQ.Name, s.since())
	if err != nil {
		return nil, err
	}
	if err := dead.read(ctx, e.deadLetter); err != nil {
		return nil, err
	}
	table, err := s.one(ctx, s.Streams.Files.Name, e.partition, time.Time{})
	if err != nil {
		return nil, err
	}
	if err := table.read(ctx, e.rowRecord); err != nil {
		return nil, err
	}
	if err := e.catchUp(ctx, notices, table); err != nil {
		return nil, err
	}
	return []Span{notices.looked(), dead.looked(), table.looked()}, nil
}

// catchUp reads on when a processor has written between the readings of the notices and of the table: a row comes a moment
// after its notice.
func (e *evidence) catchUp(ctx context.Context, notices, table *reading) error {
	if agreement, _ := e.agreement(); agreement == Agrees || e.row == nil && len(e.notices) == 0 {
		return nil
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := table.on(ctx, e.rowRecord); err != nil { // the table first: its rows' notices are older than they
		return err
	}
	return notices.on(ctx, e.notice)
}

// Package deadletters shows what could not be folded, and lets a person put it back or let it go.
//
// It promises that an entry is one source record, however often it was dead-lettered; that nothing is sent or marked unless the
// caller says so; that entries go back in their workspace's order, byte for byte; and that a run which was cut short can be
// repeated: what it had sent is known by its event id. It deletes nothing: an entry is resolved by a marker behind it in the
// dead letters' own topic, and leaves with it when retention takes both.
//
// It does not decide what a dead letter is: package processors does.
package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// What an entry can be resolved as.
const (
	Replayed = "replayed"
	Dropped  = "dropped"
)

// A Source is where an entry's record came from: its identity.
type Source struct {
	Topic     string
	Partition int32
	Offset    int64
}

// Text returns the position as people type it: "7:1234" in the events topic, "topic/7:1234" in any other.
func (s Source) Text(events string) string {
	at := (&tidemarkv1.Position{Partition: s.Partition, Offset: s.Offset}).Text()
	if s.Topic == events {
		return at
	}
	return s.Topic + "/" + at
}

// ParseSource is the inverse of Text.
func ParseSource(text, events string) (Source, error) {
	topic, at := events, text
	if i := strings.LastIndexByte(text, '/'); i >= 0 {
		topic, at = text[:i], text[i+1:]
	}
	p, err := tidemarkv1.ParsePosition(at)
	if err != nil || topic == "" {
		return Source{}, fmt.Errorf("%q is no entry: want the position of its source record, for example 7:1234 in %s, or topic/7:1234", text, events)
	}
	return Source{Topic: topic, Partition: p.GetPartition(), Offset: p.GetOffset()}, nil
}

// An Entry is one source record that was dead-lettered.
type Entry struct {
	Source      Source
	Reason      string // empty for a record that tidemark did not put there
	Message     string // what to mend
	WorkspaceID string // as far as it can be told
	EventID     string // as far as it can be told
	First, Last time.Time
	Times       int    // how often the same record was dead-lettered
	Resolved    string // Replayed, Dropped or empty
	ReplayedTo  string // position in the events topic

	// ValueOmitted is the length of a value that was too large to keep; it lies at Source, until retention takes it.
	ValueOmitted int64

	at    place // of the first of its records in the topic of the dead letters
	last  place // of the last of them
	size  int
	print uint64 // of key and value: another record at the same source position is of another log
	older *Entry // at the same source position, of another log
}

// A place is where a record lies in the topic of the dead letters.
type place struct {
	partition int32
	offset    int64
}

// Place returns the position of the entry in the topic of the dead letters.
func (e *Entry) Place() string {
	return (&tidemarkv1.Position{Partition: e.at.partition, Offset: e.at.offset}).Text()
}

// A Filter selects entries: those that match all that is set.
type Filter struct {
	Reasons     []string // any of them
	WorkspaceID string
	EventID     string
	Sources     []Source  // any of them
	Since       time.Time // dead-lettered at or after
	All         bool      // also those that are resolved
}

// matcher returns what tells whether an entry matches.
func (f *Filter) matcher() func(*Entry) bool {
	named := make(map[Source]bool, len(f.Sources))
	for _, source := range f.Sources {
		named[source] = true
	}
	return func(e *Entry) bool {
		switch {
		case e.Resolved != "" && !f.All,
			len(f.Reasons) > 0 && !slices.Contains(f.Reasons, e.Reason),
			f.WorkspaceID != "" && f.WorkspaceID != e.WorkspaceID,
			f.EventID != "" && f.EventID != e.EventID,
			len(named) > 0 && !named[e.Source],
			!f.Since.IsZero() && e.Last.Before(f.Since):
			return false
		}
		return true
	}
}

// A Queue is the dead letters of an installation.
type Queue struct {
	kafka   kafka.Config
	streams topology.Streams
	seed    maphash.Seed
}

// New returns the dead letters of streams, which it reads when it is asked. Of the streams only the names count: partitions are
// the cluster's to tell.
func New(conf kafka.Config, streams topology.Streams) *Queue {
	return &Queue{kafka: conf, streams: streams, seed: maphash.MakeSeed()}
}

// Events returns the name of the topic whose positions need no topic before them.
func (q *Queue) Events() string { return q.streams.Events.Name }

// Entries returns the entries that match, in the order in which they are to be replayed: that of their source partition, and
// across partitions by the time of their first failure. It keeps no values, so it costs some 300 bytes for each entry, and 2 KB at most.
func (q *Queue) Entries(ctx context.Context, f Filter) ([]*Entry, error) {
	all, err := q.all(ctx)
	if err != nil {
		return nil, err
	}
	matches := f.matcher()
	return slices.DeleteFunc(all, func(e *Entry) bool { return !matches(e) }), nil
}

// ErrBadCursor says that a cursor is none, or that retention has taken the entry that it names.
var ErrBadCursor = errors.New("begin without a cursor: this one is none, or retention has taken the entry it names")

// A Page is a part of a list of entries.
type Page struct {
	Entries []*Entry
	Next    string // cursor of the page after, empty at the end
	Total   int    // entries that match, on all pages
}

// Page returns at most limit of the entries that match, in the order of Entries, those behind the cursor if there is one. What is
// resolved between two pages shifts nothing. Every page costs what Entries costs.
func (q *Queue) Page(ctx context.Context, f Filter, cursor string, limit int) (*Page, error) {
	all, err := q.all(ctx)
	if err != nil {
		return nil, err
	}
	var found []*Entry
	matches, begin := f.matcher(), 0
	if cursor != "" {
		begin = -1
	}
	for _, e := range all {
		if matches(e) {
			found = append(found, e)
		}
		if cursor != "" && e.Place() == cursor {
			begin = len(found)
		}
	}
	if begin < 0 {
		return nil, ErrBadCursor
	}
	page := &Page{Entries: found[begin:], Total: len(found)}
	if len(page.Entries) > limit {
		page.Entries = page.Entries[:limit]
		page.Next = page.Entries[limit-1].Place()
	}
	return page, nil
}

// all returns all entries in the order of Entries.
func (q *Queue) all(ctx context.Context) ([]*Entry, error) {
	spans, err := kafka.Extent(ctx, q.kafka, q.streams.DLQ.Name)
	if err != nil {
		return nil, err
	}
	s := &scan{queue: q, last: map[Source]*Entry{}}
	err = kafka.Read(ctx, q.kafka, q.streams.DLQ.Name, spans, func(r *kgo.Record) error {
		s.add(r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return inOrder(s.entries), nil
}

// A scan collects entries from records.
type scan struct {
	queue   *Queue
	entries []*Entry
	last    map[Source]*Entry // by position, the newest
}

func (s *scan) add(r *kgo.Record) {
	headers := headersOf(r)
	source := sourceOf(r, headers)
	known := s.last[source]
	if as := headers[topology.HeaderResolved]; as != "" {
		for e := known; e != nil; e = e.older {
			if marks(r, headers, e.at, e.last) {
				e.Resolved, e.ReplayedTo = as, headers[topology.HeaderReplayedTo]
			}
		}
		return
	}
	failed := failedAt(r, headers)
	print := s.queue.print(r)
	if known != nil && known.print == print {
		known.Times++
		known.First, known.Last = earlier(known.First, failed), later(known.Last, failed)
		known.last = place{r.Partition, r.Offset}
		return
	}
	e := &Entry{
		Source: source, Reason: headers[topology.HeaderReason], Message: headers[topology.HeaderMessage], First: failed, Last: failed, Times: 1,
		at: place{r.Partition, r.Offset}, last: place{r.Partition, r.Offset}, size: len(r.Key) + len(r.Value), print: print, older: known,
	}
	workspace, event := about(r, headers)
	e.WorkspaceID, e.EventID, e.Message = short(workspace), short(event), short(e.Message)
	e.ValueOmitted, _ = strconv.ParseInt(headers[topology.HeaderValueOmitted], 10, 64) // of any other it is 0
	s.last[source] = e
	s.entries = append(s.entries, e)
}

// marks reports whether a marker is that of the entry whose records lie from first to last: others at the same source position
// are of another log. A marker that does not say is of all of them, as they were written once.
func marks(marker *kgo.Record, headers map[string]string, first, last place) bool {
	entry, err := strconv.ParseInt(headers[topology.HeaderEntry], 10, 64)
	return err != nil || marker.Partition == first.partition && first.offset <= entry && entry <= last.offset
}

func (q *Queue) print(r *kgo.Record) uint64 {
	var h maphash.Hash
	h.SetSeed(q.seed)
	h.Write(strconv.AppendInt(nil, int64(len(r.Key)), 10))
	h.Write(r.Key)
	h.Write(r.Value)
	for _, header := range r.Headers { // all that is known of what was not kept
		switch header.Key {
		case topology.HeaderValueOmitted, topology.HeaderKeyOmitted, topology.HeaderHeadersOmitted:
			h.WriteString(header.Key)
			h.Write(header.Value)
		}
	}
	return h.Sum64()
}

func headersOf(r *kgo.Record) map[string]string {
	headers := make(map[string]string, len(r.Headers))
	for _, h := range r.Headers {
		headers[h.Key] = string(h.Value)
	}
	return headers
}

// sourceOf reads where a record came from. One that does not say so came from where it is.
func sourceOf(r *kgo.Record, headers map[string]string) Source {
	partition, err1 := strconv.ParseInt(headers[topology.HeaderPartition], 10, 32)
	offset, err2 := strconv.ParseInt(headers[topology.HeaderOffset], 10, 64)
	if headers[topology.HeaderTopic] == "" || err1 != nil || err2 != nil {
		return Source{r.Topic, r.Partition, r.Offset}
	}
	return Source{headers[topology.HeaderTopic], int32(partition), offset}
}

func failedAt(r *kgo.Record, headers map[string]string) time.Time {
	if at, err := time.Parse(time.RFC3339, headers[topology.HeaderFirstFailedAt]); err == nil {
		return at.UTC()
	}
	return r.Timestamp.UTC()
}

// about finds the workspace and the event that a record is about, even if it is no event.
func about(r *kgo.Record, headers map[string]string) (workspace, event string) {
	if e, err := codecs.ParseEvent(r.Value); err == nil {
		return e.GetWorkspaceId(), e.GetEventId()
	}
	var loose struct {
		Workspace json.RawMessage `json:"workspace_id"`
		Event     json.RawMessage `json:"event_id"`
	}
	_ = json.Unmarshal(r.Value, &loose) // what cannot be read has no ids in it: then key and headers are all there is
	text := func(raw json.RawMessage, other string) (s string) {
		if json.Unmarshal(raw, &s) != nil || s == "" {
			return other
		}
		return s
	}
	return text(loose.Workspace, string(r.Key)), text(loose.Event, headers[topology.HeaderEventID])
}

// longest is how much is kept of a text that a foreign producer may have made long: no id of an event is longer.
const longest = 512

func short(text string) string {
	if len(text) <= longest {
		return text
	}
	return strings.ToValidUTF8(text[:longest], "") + "…"
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

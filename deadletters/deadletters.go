// Package deadletters builds dead letters, lists them, replays them and marks them as dropped.
//
// An entry is one source record, and the sink that rejected it if one did, however often the record was dead-lettered.
// Nothing is sent or marked unless the caller asks for it. Entries are replayed in the order of their workspace, byte
// for byte. A run that was cut short can be repeated: a record that was sent twice is dropped by its event id, or by
// its version in a sink. The package deletes nothing: an entry is resolved by a resolution record after it in the dead
// letters' topic, and both expire by retention.
//
// Processors and sinks decide which records are dead letters.
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

// The ways to resolve an entry.
const (
	Replayed = "replayed"
	Dropped  = "dropped"
)

// A Source is the position of an entry's source record and the sink that rejected the record. It identifies the entry.
type Source struct {
	Topic     string `json:"-"`
	Partition int32  `json:"-"`
	Offset    int64  `json:"-"`
	Sink      string `json:"sink,omitempty"` // empty for a record that could not be folded
}

// Text returns the source as people type it: "7:1234" in the events topic, "topic/7:1234" in any other,
// "topic/7:1234@search" when the sink search rejected the record.
func (s Source) Text(events string) string {
	text := (&tidemarkv1.Position{Partition: s.Partition, Offset: s.Offset}).Text()
	if s.Topic != events {
		text = s.Topic + "/" + text
	}
	if s.Sink != "" {
		text += "@" + s.Sink
	}
	return text
}

// Place returns where the source record is, for people.
func (s Source) Place() string {
	return fmt.Sprintf("offset %d of partition %d of %s", s.Offset, s.Partition, s.Topic)
}

// ParseSource is the inverse of Text.
func ParseSource(text, events string) (Source, error) {
	at, sink, named := strings.Cut(text, "@")
	topic, position, other := strings.Cut(at, "/")
	if !other {
		topic, position = events, at
	}
	p, err := tidemarkv1.ParsePosition(position)
	if err != nil || topic == "" || named && sink == "" {
		return Source{}, fmt.Errorf("%q is not an entry: want the position of its source record: 7:1234 in %s, "+
			"topic/7:1234 elsewhere, topic/7:1234@search if the sink search rejected it", text, events)
	}
	return Source{Topic: topic, Partition: p.GetPartition(), Offset: p.GetOffset(), Sink: sink}, nil
}

// An Entry is one source record that was dead-lettered.
type Entry struct {
	ID      string `json:"entry"`             // Source.Text
	Reason  string `json:"reason"`            // empty for a record that tidemark did not put there
	Message string `json:"message,omitempty"` // what to fix
	Source
	Answer      string    `json:"answer,omitempty"`       // the destination's, if a sink rejected the record
	WorkspaceID string    `json:"workspace_id,omitempty"` // empty if it cannot be read
	EventID     string    `json:"event_id,omitempty"`     // empty if it cannot be read
	First       time.Time `json:"first_failed_at"`
	Last        time.Time `json:"last_failed_at"`
	Times       int       `json:"times"`                 // how often the same record was dead-lettered
	DLQPosition string    `json:"dlq_position"`          // of the first time
	Resolved    string    `json:"resolved,omitempty"`    // Replayed, Dropped or empty
	ReplayedTo  string    `json:"replayed_to,omitempty"` // position of the replayed record, in the form of ID

	// ValueOmitted is the length of a value that was too large to keep; the record is at Source until it expires.
	ValueOmitted int64 `json:"value_omitted,omitempty"`

	first dlqPosition // of its records
	last  dlqPosition
	size  int

	fingerprint uint64 // another record at the same source position is of a topic that was recreated
	older       *Entry // with the same source, of the topic before it was recreated
}

// A dlqPosition is the position of a record in the dead letters' topic.
type dlqPosition struct {
	partition int32
	offset    int64
}

// A Filter selects the entries that match all of its fields that are set.
type Filter struct {
	Reasons     []string // any of them
	Sinks       []string // any of them
	WorkspaceID string
	EventID     string
	Sources     []Source  // any of them
	Since       time.Time // dead-lettered at or after
	All         bool      // also those that are resolved
}

// matcher returns a function that reports whether an entry matches.
func (f *Filter) matcher() func(*Entry) bool {
	named := make(map[Source]bool, len(f.Sources))
	for _, source := range f.Sources {
		named[source] = true
	}
	return func(e *Entry) bool {
		switch {
		case e.Resolved != "" && !f.All,
			len(f.Reasons) > 0 && !slices.Contains(f.Reasons, e.Reason),
			len(f.Sinks) > 0 && !slices.Contains(f.Sinks, e.Sink),
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
	kafka     kafka.Config
	streams   topology.Streams
	seed      maphash.Seed
	sinkRetry SinkRetry
}

// New returns the dead letters of streams, which are read by each call. Only the names of streams are used: the
// partition counts are looked up in the cluster.
func New(conf kafka.Config, streams topology.Streams) *Queue {
	return &Queue{
		kafka: conf, streams: streams, seed: maphash.MakeSeed(), sinkRetry: SinkRetryTo(streams, streams.RetriesTo),
	}
}

// Events returns the name of the events topic, which positions are in when they name no topic.
func (q *Queue) Events() string { return q.streams.Events.Name }

// Entries returns the entries that match, in replay order: that of their source partition, and across partitions by the
// time of their first failure. It keeps no values: an entry takes about 350 bytes, and 3 KB at most.
func (q *Queue) Entries(ctx context.Context, f Filter) ([]*Entry, error) {
	all, err := q.all(ctx)
	if err != nil {
		return nil, err
	}
	matches := f.matcher()
	return slices.DeleteFunc(all, func(e *Entry) bool { return !matches(e) }), nil
}

// errBadCursor is returned for a cursor that is malformed, or whose entry has expired.
var errBadCursor = errors.New("start again without a cursor: this one is malformed, or its entry has expired")

// A page is a part of a list of entries.
type page struct {
	Entries []*Entry `json:"entries"`
	Next    *string  `json:"next_cursor"` // nil at the end
	Total   int      `json:"total"`       // entries that match, on all pages
}

// page returns at most limit of the entries that match, in the order of Entries, from behind the cursor if there is
// one. Entries that are resolved between two pages do not shift the next page. Every page costs what Entries costs.
func (q *Queue) page(ctx context.Context, f Filter, cursor string, limit int) (*page, error) {
	all, err := q.all(ctx)
	if err != nil {
		return nil, err
	}
	found := []*Entry{}
	matches, begin := f.matcher(), 0
	if cursor != "" {
		begin = -1
	}
	for _, e := range all {
		if matches(e) {
			found = append(found, e)
		}
		if cursor != "" && e.DLQPosition == cursor {
			begin = len(found)
		}
	}
	if begin < 0 {
		return nil, errBadCursor
	}
	p := &page{Entries: found[begin:], Total: len(found)}
	if len(p.Entries) > limit {
		p.Entries = p.Entries[:limit]
		p.Next = &p.Entries[limit-1].DLQPosition
	}
	return p, nil
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
			if resolves(r, headers, e.first, e.last) {
				e.Resolved, e.ReplayedTo = as, headers[topology.HeaderReplayedTo]
			}
		}
		return
	}
	failed := failedAt(r, headers)
	fingerprint := s.queue.fingerprint(r)
	if known != nil && known.fingerprint == fingerprint {
		known.Times++
		known.First, known.Last = earlier(known.First, failed), later(known.Last, failed)
		known.last = dlqPosition{r.Partition, r.Offset}
		return
	}
	at := dlqPosition{r.Partition, r.Offset}
	shownAt := &tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}
	workspace, event := idsOf(r, headers)
	e := &Entry{
		ID: source.Text(s.queue.Events()), Source: source, Reason: headers[topology.HeaderReason],
		Message:     truncated(headers[topology.HeaderMessage], maxShown),
		Answer:      truncated(headers[topology.HeaderAnswer], maxShown),
		WorkspaceID: truncated(workspace, maxShown), EventID: truncated(event, maxShown),
		First: failed, Last: failed, Times: 1, DLQPosition: shownAt.Text(),
		first: at, last: at, size: len(r.Key) + len(r.Value), fingerprint: fingerprint, older: known,
	}
	e.ValueOmitted, _ = strconv.ParseInt(headers[topology.HeaderValueOmitted], 10, 64) // of any other it is 0
	s.last[source] = e
	s.entries = append(s.entries, e)
}

// resolves reports whether a resolution record resolves the entry whose records are first to last. Other entries of the
// same source are of a topic that was recreated. A resolution record without dlq.entry resolves all of them.
func resolves(resolution *kgo.Record, headers map[string]string, first, last dlqPosition) bool {
	entry, err := strconv.ParseInt(headers[topology.HeaderEntry], 10, 64)
	return err != nil || resolution.Partition == first.partition && first.offset <= entry && entry <= last.offset
}

// fingerprint returns a hash of a record's key and value.
func (q *Queue) fingerprint(r *kgo.Record) uint64 {
	var h maphash.Hash
	h.SetSeed(q.seed)
	h.Write(strconv.AppendInt(nil, int64(len(r.Key)), 10))
	h.Write(r.Key)
	h.Write(r.Value)
	for _, header := range r.Headers { // of parts that were left out only the length is known
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

// sourceOf returns the source of a dead letter: its own position if the headers have none.
func sourceOf(r *kgo.Record, headers map[string]string) Source {
	partition, err1 := strconv.ParseInt(headers[topology.HeaderPartition], 10, 32)
	offset, err2 := strconv.ParseInt(headers[topology.HeaderOffset], 10, 64)
	if headers[topology.HeaderTopic] == "" || err1 != nil || err2 != nil {
		return Source{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset}
	}
	return Source{headers[topology.HeaderTopic], int32(partition), offset, headers[topology.HeaderSink]}
}

func failedAt(r *kgo.Record, headers map[string]string) time.Time {
	if at, err := time.Parse(time.RFC3339, headers[topology.HeaderFirstFailedAt]); err == nil {
		return at.UTC()
	}
	return r.Timestamp.UTC()
}

// idsOf returns the workspace and the event of a record, as far as they can be read if it is not an event.
func idsOf(r *kgo.Record, headers map[string]string) (workspace, event string) {
	if e, err := codecs.ParseEvent(r.Value); err == nil {
		return e.GetWorkspaceId(), e.GetEventId()
	}
	var loose struct {
		Workspace json.RawMessage `json:"workspace_id"`
		Event     json.RawMessage `json:"event_id"`
	}
	_ = json.Unmarshal(r.Value, &loose) // an error leaves the key and the headers
	text := func(raw json.RawMessage, other string) (s string) {
		if json.Unmarshal(raw, &s) != nil || s == "" {
			return other
		}
		return s
	}
	fromKey := string(r.Key)
	if headers[topology.HeaderSink] != "" { // sinks read topics keyed workspace/file
		if id, _, err := tidemarkv1.SplitKey(fromKey); err == nil {
			fromKey = id
		}
	}
	return text(loose.Workspace, fromKey), text(loose.Event, headers[topology.HeaderEventID])
}

// maxShown bounds the texts that an Entry keeps, in bytes. No valid id is longer.
const maxShown = 512

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

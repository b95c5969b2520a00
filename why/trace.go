package why

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Tracer finds out what was done with single events. It reads topics and commits with one client, and joins no group.
// What a call reads does not depend on how long the topics are.
type Tracer struct {
	client  *kgo.Client
	admin   *kadm.Client
	streams topology.Streams
	events  string // id of the events topic
	known   Known
}

// Known returns the present row of an event's file, once it includes the event's position, and the position of the
// first event with the same id, empty if that is not known. A nil row is a file without one.
type Known func(ctx context.Context, file, eventID string) (row *tidemarkv1.FileState, first string, err error)

// NewTracer returns a Tracer of streams. events is the id of the events topic.
func NewTracer(client *kgo.Client, streams topology.Streams, events string, known Known) *Tracer {
	return &Tracer{client: client, admin: kadm.NewClient(client), streams: streams, events: events, known: known}
}

// A Trace is what was done with one event.
type Trace struct {
	Event
	FileID      string
	Value       []byte             // as it is in the events topic
	Notice      *tidemarkv1.Notice // nil: none
	Cause       string             // position of the folder's event that it follows from; empty: none
	DuplicateOf string             // position of the event with the same id, if it is known
	ReplayOf    string             // where it was replayed from: a position, or "dlq " and an entry; empty: nowhere
	DeadLetter  string             // the entry, as dlq commands take it; empty: none
	Sinks       []SinkResult       // in the order of their groups' names
}

// Errors of Trace.
var (
	ErrNoEvent = errors.New("there is no such event")     // of this workspace, at this position
	ErrExpired = errors.New("the event has been deleted") // by the retention of the events topic
)

// Trace finds out what was done with the event of a workspace at a position.
func (t *Tracer) Trace(ctx context.Context, workspace string, at *tidemarkv1.Position) (*Trace, error) {
	// The commits are read first: the outputs of all events before them are in the logs that are opened later.
	commits, err := t.commits(ctx)
	if err != nil {
		return nil, err
	}
	record, err := t.event(ctx, workspace, at)
	if err != nil {
		return nil, err
	}
	found := t.describe(record)
	s, after := t.streams, record.Timestamp
	if found.ReceivedAt.Before(after) { // the timestamp may be by a producer's clock
		after = found.ReceivedAt
	}
	logs, err := t.open(ctx, at.GetPartition(), after, s.Notify.Name, s.Index.Name, s.DLQ.Name,
		s.Deliveries.Name)
	if err != nil {
		return nil, err
	}
	notices := logs[s.Notify.Name]
	noticed, noticesAfter, err := notices.find(ctx, record.Offset, noticeSourceOf(at.GetPartition()))
	if err != nil {
		return nil, err
	}
	dead, err := deadLettersIn(ctx, logs[s.DLQ.Name])
	if err != nil {
		return nil, err
	}
	e := newEvidence(Search{Streams: s, WorkspaceID: workspace, FileID: found.FileID}, record.Partition, t.events,
		commits.offset(s.FilesGroup, s.Events.Name, record.Partition))
	e.noticesFrom = notices.span.From
	if err := t.gather(ctx, e, found, record, noticed, dead); err != nil {
		return nil, err
	}
	e.judge(&found.Event, record)
	found.DuplicateOf = e.accepted[found.EventID]
	if found.DuplicateOf == found.Position {
		found.DuplicateOf = ""
	}
	r := &results{
		tracer: t, trace: found, record: record, notice: noticed, noticesAfter: noticesAfter,
		dead: dead, commits: commits, logs: logs,
	}
	return found, r.read(ctx)
}

// event returns the record of an event.
func (t *Tracer) event(ctx context.Context, workspace string, at *tidemarkv1.Position) (*kgo.Record, error) {
	name := t.streams.Events.Name
	logs, err := t.open(ctx, at.GetPartition(), time.Now(), name)
	if err != nil {
		return nil, err
	}
	log := logs[name]
	if at.GetOffset() < log.span.From {
		return nil, ErrExpired
	}
	records, _, err := log.from(ctx, at.GetOffset())
	switch {
	case err != nil:
		return nil, err
	case len(records) == 0, records[0].Offset != at.GetOffset(),
		workspaceOf(records[0]) != workspace, headerOf(records[0], topology.HeaderWalk) != "":
		return nil, ErrNoEvent
	}
	return records[0], nil
}

// workspaceOf returns the workspace of an event: the JSON's, or the record's key if the value is not an event.
func workspaceOf(r *kgo.Record) string {
	if event, err := codecs.ParseEvent(r.Value); err == nil {
		return event.GetWorkspaceId()
	}
	return string(r.Key)
}

// describe returns what the record itself says.
func (t *Tracer) describe(r *kgo.Record) *Trace {
	found := &Trace{
		Value: r.Value, Cause: headerOf(r, topology.HeaderCause), ReplayOf: headerOf(r, topology.HeaderReplay),
	}
	if event, err := codecs.ParseEvent(r.Value); err == nil {
		found.Event, found.FileID = *eventOf(event), event.GetFileId()
	} else {
		found.Event = looseEvent(r.Value, err)
	}
	found.Position = (&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()
	if found.ReceivedAt.IsZero() {
		found.ReceivedAt = r.Timestamp.UTC()
	}
	return found
}

// gather gives the evidence what was found of one event.
func (t *Tracer) gather(
	ctx context.Context, e *evidence, found *Trace, r, noticed *kgo.Record, dead deadLetters,
) error {
	if noticed != nil {
		value, err := codecs.Notice{}.Decode(noticed.Value)
		if err != nil {
			return fmt.Errorf("%s, partition %d, offset %d: %w", noticed.Topic, noticed.Partition, noticed.Offset, err)
		}
		if n, ok := value.(*tidemarkv1.Notice); ok && n.GetEventId() == found.EventID {
			found.Notice = n
			e.notices[noticeSource{r.Offset, n.GetEventId()}] = outcome{n.Version, n.GetLate()}
		}
	}
	if d := dead.of(t.streams.Events.Name, r, ""); d != nil {
		found.DeadLetter = found.Position
		e.dead[deadLetterSource{r.Partition, r.Offset, sha256.Sum256(r.Value)}] = &deadLetter{
			event: Event{Reason: d.reason, Detail: d.text()},
		}
		return nil
	}
	if found.Notice != nil || r.Offset >= e.commit || found.FileID == "" {
		return nil
	}
	row, first, err := t.known(ctx, found.FileID, found.EventID)
	e.row = row
	if first != "" && first != found.Position {
		e.accepted[found.EventID] = first
	}
	return err
}

// noticeSourceOf returns the sourceOf notices of events in a partition. Those that `topics repartition` copied are of
// another log, and are before all others.
func noticeSourceOf(partition int32) sourceOf {
	return func(r *kgo.Record) int64 {
		value, err := codecs.Notice{}.Decode(r.Value)
		if n, ok := value.(*tidemarkv1.Notice); err == nil && ok && headerOf(r, topology.HeaderCopied) == "" &&
			n.GetPosition().GetPartition() == partition {
			return n.GetPosition().GetOffset()
		}
		return unread
	}
}

// A deadLetterRecord is what the last records about one source say.
type deadLetterRecord struct {
	reason, message, answer string
	at                      time.Time
	resolved                string // as "replayed to 7:1234"
}

// text returns what to fix, and how the entry was resolved.
func (d *deadLetterRecord) text() string {
	if d.resolved == "" {
		return d.message
	}
	return d.message + " (" + d.resolved + ")"
}

// A deadLetterKey is the source of a dead letter in one partition.
type deadLetterKey struct {
	topic  string
	offset int64
	sink   string
}

// deadLetters are those of one partition.
type deadLetters struct {
	partition int32
	bySource  map[deadLetterKey]*deadLetterRecord
	cut       bool // there are more than were read
}

// deadLettersIn reads the dead letters of one partition, which are those of source records in the partition of the same
// number.
func deadLettersIn(ctx context.Context, log *partitionLog) (d deadLetters, err error) {
	d = deadLetters{partition: log.partition, bySource: map[deadLetterKey]*deadLetterRecord{}}
	d.cut, err = log.read(ctx, log.since, maxScan, func(r *kgo.Record) bool {
		d.add(r)
		return true
	})
	return d, err
}

func (d *deadLetters) add(r *kgo.Record) {
	offset, err := strconv.ParseInt(headerOf(r, topology.HeaderOffset), 10, 64)
	if err != nil || headerOf(r, topology.HeaderPartition) != strconv.Itoa(int(d.partition)) {
		return
	}
	key := deadLetterKey{headerOf(r, topology.HeaderTopic), offset, headerOf(r, topology.HeaderSink)}
	if resolved := headerOf(r, topology.HeaderResolved); resolved != "" {
		if known := d.bySource[key]; known != nil {
			known.resolved = resolved
			if to := headerOf(r, topology.HeaderReplayedTo); to != "" {
				known.resolved += " to " + to
			}
		}
		return
	}
	d.bySource[key] = &deadLetterRecord{
		reason: headerOf(r, topology.HeaderReason), message: headerOf(r, topology.HeaderMessage),
		answer: headerOf(r, topology.HeaderAnswer), at: r.Timestamp.UTC(),
	}
}

// of returns the dead letter of a record that could not be folded, or that a sink's destination rejected; nil: none.
func (d *deadLetters) of(topic string, r *kgo.Record, sink string) *deadLetterRecord {
	if r == nil {
		return nil
	}
	return d.bySource[deadLetterKey{topic, r.Offset, sink}]
}

// commits are the offsets that groups have committed, by group.
type commits map[string]kadm.OffsetResponses

// commits fetches the commits of the files group and of all sinks.
func (t *Tracer) commits(ctx context.Context) (commits, error) {
	groups := []string{t.streams.FilesGroup}
	listed, err := t.admin.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the groups: %w", err)
	}
	for _, name := range listed.Groups() {
		if strings.HasPrefix(name, t.streams.SinkGroup("")) {
			groups = append(groups, name)
		}
	}
	all := commits{}
	for _, f := range t.admin.FetchManyOffsets(ctx, groups...) {
		if f.Err != nil {
			return nil, fmt.Errorf("look up what group %s committed: %w", f.Group, f.Err)
		}
		all[f.Group] = f.Fetched
	}
	return all, nil
}

// offset returns the next offset of a group, -1 if it has committed none.
func (c commits) offset(group, topic string, partition int32) int64 {
	if o, ok := c[group].Lookup(topic, partition); ok && o.Err == nil {
		return o.At
	}
	return -1
}

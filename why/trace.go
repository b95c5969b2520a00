package why

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Tracer finds out what was done with single events. It reads topics and commits with one client, and joins no group.
// A call reads by a binary search, and of each topic at most some maxScan records one by one.
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
	Value       []byte             // as it is in the events topic; nil if it is not an event
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
	record, first, err := t.event(ctx, workspace, at)
	if err != nil {
		return nil, err
	}
	s, r := t.streams, &results{tracer: t, trace: describe(record), record: record, commits: commits}
	if r.logs, err = t.open(ctx, record.Partition, outputsSince(r.trace, record, first),
		s.Notify.Name, s.Index.Name, s.DLQ.Name, s.Deliveries.Name, s.Predictions.Name); err != nil {
		return nil, err
	}
	if err := r.checkEnds(); err != nil {
		return nil, err
	}
	if r.dead, err = deadLettersIn(ctx, r.logs[s.DLQ.Name], s.Index.Name); err != nil {
		return nil, err
	}
	if err := r.judge(ctx, workspace); err != nil {
		return nil, err
	}
	return r.trace, r.read(ctx)
}

// checkEnds returns an error if a log ends before what the workspaces group has committed in it: a leader that was cut
// off goes on answering with an old end, and outputs would be missed.
func (r *results) checkEnds() error {
	s := r.tracer.streams
	commit, err := r.commits.offset(s.WorkspacesGroup, s.Notify.Name, r.record.Partition)
	if end := r.logs[s.Notify.Name].span.To; err == nil && commit > end {
		return fmt.Errorf("%s, partition %d ends at %d, and group %s has committed %d: %w", s.Notify.Name,
			r.record.Partition, end, s.WorkspacesGroup, commit, kerr.NotLeaderForPartition)
	}
	return err
}

// outputsSince returns a time since when the outputs of an event were written. The timestamp may be of a producer's
// clock. first is the first event of the partition: what was written before it is of an events topic that was
// recreated.
func outputsSince(found *Trace, event, first *kgo.Record) time.Time {
	since := event.Timestamp
	if found.ReceivedAt.Before(since) {
		since = found.ReceivedAt
	}
	if since = since.Add(-clockSkew); first.Timestamp.After(since) {
		since = first.Timestamp
	}
	return since
}

// event returns the record of an event, and the first record of its partition.
func (t *Tracer) event(ctx context.Context, workspace string, at *tidemarkv1.Position) (
	event, first *kgo.Record, err error,
) {
	name := t.streams.Events.Name
	logs, err := t.open(ctx, at.GetPartition(), time.Now(), name)
	if err != nil {
		return nil, nil, err
	}
	log := logs[name]
	begin, _, err := log.from(ctx, log.span.From)
	if err != nil {
		return nil, nil, err
	}
	own := kafka.Partition(workspace, t.streams.Events.Partitions) == at.GetPartition()
	if at.GetOffset() < log.span.From && own {
		return nil, nil, ErrExpired
	}
	records, _, err := log.from(ctx, at.GetOffset())
	switch {
	case err != nil:
		return nil, nil, err
	case len(records) == 0, records[0].Offset != at.GetOffset(), len(begin) == 0,
		workspaceOf(records[0]) != workspace, headerOf(records[0], topology.HeaderWalk) != "":
		return nil, nil, ErrNoEvent
	}
	return records[0], begin[0], nil
}

// workspaceOf returns the workspace of an event: the JSON's, or the record's key if the value is not an event.
func workspaceOf(r *kgo.Record) string {
	if event, err := codecs.ParseEvent(r.Value); err == nil {
		return event.GetWorkspaceId()
	}
	return string(r.Key)
}

// describe returns what the record itself says. Of a value that is not an event it says nothing: the key may be another
// workspace's than the value.
func describe(r *kgo.Record) *Trace {
	found := &Trace{Cause: headerOf(r, topology.HeaderCause), ReplayOf: headerOf(r, topology.HeaderReplay)}
	if event, err := codecs.ParseEvent(r.Value); err == nil {
		found.Event, found.FileID, found.Value = *eventOf(event), event.GetFileId(), r.Value
	}
	found.Position = (&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()
	if found.ReceivedAt.IsZero() {
		found.ReceivedAt = r.Timestamp.UTC()
	}
	return found
}

// judge finds the event's notice and sets its verdict, as evidence does for all events of a file.
func (r *results) judge(ctx context.Context, workspace string) error {
	s, event := r.tracer.streams, r.record
	e := newEvidence(Search{Streams: s, WorkspaceID: workspace, FileID: r.trace.FileID}, event.Partition,
		r.tracer.events, r.filesCommit())
	notices := r.logs[s.Notify.Name]
	sought, err := notices.find(ctx, noticeOf(r.trace, event))
	if err != nil {
		return err
	}
	e.noticesFrom = notices.span.From
	r.dead.cut = r.dead.cut || sought.cut
	if r.notice = sought.record; r.notice != nil {
		r.trace.Notice = decodeNotice(r.notice)
		n := r.trace.Notice
		e.notices[noticeSource{event.Offset, r.trace.EventID}] = outcome{n.Version, n.GetLate()}
	}
	if dead := r.dead.ofEvent(event); dead != nil {
		r.trace.DeadLetter = r.trace.Position
		detail := dead.text()
		if r.trace.Value == nil { // the message may quote the value
			detail = strings.TrimPrefix(dead.resolvedText(), " ")
		}
		e.dead[deadLetterSource{event.Partition, event.Offset, sha256.Sum256(event.Value)}] = &deadLetter{
			event: Event{Reason: dead.reason, Detail: detail},
		}
	} else if err := r.gather(ctx, e); err != nil {
		return err
	}
	e.judge(&r.trace.Event, event)
	if first := e.accepted[r.trace.EventID]; r.trace.Verdict == Duplicate {
		r.trace.DuplicateOf = first
	}
	if r.dead.cut && r.trace.Notice == nil && r.trace.DeadLetter == "" && r.trace.Verdict != Pending {
		r.trace.Verdict, r.trace.Detail = NoTrace, fmt.Sprintf(
			"not found among the %d notices and dead letters from its time on: see `tidemark why`", maxScan)
	}
	return nil
}

// gather adds the evidence about an event without a notice and without a dead letter.
func (r *results) gather(ctx context.Context, e *evidence) error {
	if r.trace.Notice != nil || r.record.Offset >= e.commit || r.trace.FileID == "" {
		return nil
	}
	notices := r.logs[r.tracer.streams.Notify.Name]
	if _, err := notices.read(ctx, notices.span.From, 1, func(first *kgo.Record) bool {
		e.noticed = first.Timestamp
		return false
	}); err != nil {
		return err
	}
	row, first, err := r.tracer.known(ctx, r.trace.FileID, r.trace.EventID)
	e.row = row
	if first != "" {
		e.accepted[r.trace.EventID] = first
	}
	return err
}

// noticeOf is the notice of an event. Those that `topics repartition` copied are before all others, in another order.
func noticeOf(of *Trace, event *kgo.Record) output {
	return output{
		event: event.Offset,
		is: func(r *kgo.Record) bool {
			n := decodeNotice(r)
			return n.GetEventId() == of.EventID && n.GetPosition().GetPartition() == event.Partition &&
				n.GetPosition().GetOffset() == event.Offset && n.GetPosition() != nil
		},
		after: func(r *kgo.Record) int64 {
			n := decodeNotice(r)
			if n.GetPosition() == nil || n.GetPosition().GetPartition() != event.Partition ||
				headerOf(r, topology.HeaderCopied) != "" {
				return unordered
			}
			return n.GetPosition().GetOffset()
		},
	}
}

// decodeNotice returns the notice of a record, nil if it is none.
func decodeNotice(r *kgo.Record) *tidemarkv1.Notice {
	value, err := codecs.Notice{}.Decode(r.Value)
	if n, ok := value.(*tidemarkv1.Notice); err == nil && ok {
		return n
	}
	return nil
}

// A deadLetterRecord is what the last records about one source say.
type deadLetterRecord struct {
	reason, message, answer string
	at                      time.Time
	source                  int64  // offset of the source record
	print                   string // of the source's value
	resolved, replayedTo    string
}

// text returns what to fix, and how the entry was resolved.
func (d *deadLetterRecord) text() string { return d.message + d.resolvedText() }

func (d *deadLetterRecord) resolvedText() string {
	if d.resolved == "" {
		return ""
	}
	return " (" + strings.TrimSpace(d.resolved+" "+d.replayedTo) + ")"
}

// A deadLetterKey is the source of a dead letter in one partition.
type deadLetterKey struct {
	topic  string
	offset int64
	sink   string
}

// An outputKey identifies an index record that a sink's destination rejected. Versions go on when a topic is recreated.
type outputKey struct {
	sink, id string
	version  int64
}

// deadLetters are those of one partition.
type deadLetters struct {
	partition int32
	bySource  map[deadLetterKey]*deadLetterRecord
	byOutput  map[outputKey]*deadLetterRecord
	cut       bool // there are more than were read
}

// deadLettersIn reads the dead letters of one partition, which are those of source records in the partition of the same
// number.
func deadLettersIn(ctx context.Context, log *partitionLog, index string) (d deadLetters, err error) {
	d = deadLetters{
		partition: log.partition, bySource: map[deadLetterKey]*deadLetterRecord{},
		byOutput: map[outputKey]*deadLetterRecord{},
	}
	d.cut, err = log.read(ctx, log.since, maxScan, func(r *kgo.Record) bool {
		d.add(r, index)
		return true
	})
	return d, err
}

func (d *deadLetters) add(r *kgo.Record, index string) {
	offset, err := strconv.ParseInt(headerOf(r, topology.HeaderOffset), 10, 64)
	if err != nil || headerOf(r, topology.HeaderPartition) != strconv.Itoa(int(d.partition)) {
		return
	}
	key := deadLetterKey{headerOf(r, topology.HeaderTopic), offset, headerOf(r, topology.HeaderSink)}
	if resolved := headerOf(r, topology.HeaderResolved); resolved != "" {
		if known := d.bySource[key]; known != nil {
			known.resolved, known.replayedTo = resolved, headerOf(r, topology.HeaderReplayedTo)
		}
		return
	}
	added := &deadLetterRecord{
		reason: headerOf(r, topology.HeaderReason), message: headerOf(r, topology.HeaderMessage),
		answer: headerOf(r, topology.HeaderAnswer), at: r.Timestamp.UTC(), source: offset, print: printOf(r.Value),
	}
	if omitted := headerOf(r, topology.HeaderValueOmitted); omitted != "" {
		added.print = omitted
	}
	d.bySource[key] = added
	if op := decodeIndex(r); key.topic == index && op != nil {
		d.byOutput[outputKey{key.sink, op.GetId(), op.GetVersion()}] = added
	}
}

// printOf identifies a value. The same source position with another one is of a topic that was recreated.
func printOf(value []byte) string {
	sum := sha256.Sum256(value)
	return string(sum[:])
}

// ofEvent returns the dead letter of an event that could not be folded; nil: none.
func (d *deadLetters) ofEvent(event *kgo.Record) *deadLetterRecord {
	return d.ofRecord(event, "")
}

// ofRecord returns the dead letter of a record that a sink's destination rejected; nil: none.
func (d *deadLetters) ofRecord(r *kgo.Record, sink string) *deadLetterRecord {
	found := d.bySource[deadLetterKey{r.Topic, r.Offset, sink}]
	if found != nil && found.print != printOf(r.Value) && found.print != strconv.Itoa(len(r.Value)) {
		return nil
	}
	return found
}

// commits are what groups have committed, by group.
type commits map[string]groupCommits

type groupCommits struct {
	offsets kadm.OffsetResponses
	err     error
}

// commits fetches the commits of both groups and of all sinks.
func (t *Tracer) commits(ctx context.Context) (commits, error) {
	groups := []string{t.streams.FilesGroup, t.streams.WorkspacesGroup}
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
		err := f.Err
		if errors.Is(err, kerr.GroupIDNotFound) { // a group that never ran: other brokers return no error
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("look up what group %s committed: %w", f.Group, err)
		}
		all[f.Group] = groupCommits{f.Fetched, err}
	}
	return all, all[t.streams.FilesGroup].err
}

// offset returns the next offset of a group, -1 if it has committed none.
func (c commits) offset(group, topic string, partition int32) (int64, error) {
	o, found := c[group].offsets.Lookup(topic, partition)
	switch err := cmp.Or(c[group].err, o.Err); {
	case err != nil:
		return -1, err
	case !found:
		return -1, nil
	}
	return o.At, nil
}

package why

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// An evidence is what the topics have about the file.
type evidence struct {
	workspace, file string
	key             string // of the file's row and notices
	workspaceKey    string // of notices of events that touch no row
	quotedFile      []byte // the ids as JSON
	quotedWorkspace []byte
	partition       int32
	eventsID        string // topic id of the events topic
	eventsTopic     string
	commit          int64
	since           time.Time

	notices     map[noticeSource]outcome
	last        *tidemarkv1.Notice // of the highest version, without its payload
	noticesFrom int64
	noticed     time.Time // timestamp of the first notice that was read
	dead        map[deadLetterSource]*deadLetter
	row         *tidemarkv1.FileState

	accepted map[string]string // position of an accepted event by its id
	report   func(Event) error
	reported int
}

// A noticeSource identifies the event of a notice. The same offset with another id is of an events topic that was
// recreated.
type noticeSource struct {
	offset  int64
	eventID string
}

// An outcome is what a notice has about its event.
type outcome struct {
	version *int64
	late    bool
}

// A deadLetterSource identifies the source record of a dead letter. The same offset with another hash is of an events
// topic that was recreated; the record may have no id.
type deadLetterSource struct {
	partition int32
	offset    int64
	hash      [sha256.Size]byte
}

type deadLetter struct {
	event       Event
	unknownFile bool  // its value was too large to keep, and its key and headers do not name the file
	first       int64 // offsets of its records in the dead letters' topic
	last        int64
	found       bool // its source record was read
}

func newEvidence(s Search, partition int32, eventsID string, commit int64) *evidence {
	quotedFile, _ := jsontext.AppendQuote(nil, s.FileID) // an error is invalid UTF-8, which no event has in an id
	quotedWorkspace, _ := jsontext.AppendQuote(nil, s.WorkspaceID)
	return &evidence{
		workspace: s.WorkspaceID, file: s.FileID, partition: partition,
		key: tidemarkv1.JoinKey(s.WorkspaceID, s.FileID), workspaceKey: tidemarkv1.JoinKey(s.WorkspaceID, ""),
		quotedFile: quotedFile, quotedWorkspace: quotedWorkspace,
		eventsID: eventsID, eventsTopic: s.Streams.Events.Name, commit: commit, since: s.Since,
		notices: map[noticeSource]outcome{}, dead: map[deadLetterSource]*deadLetter{}, accepted: map[string]string{},
	}
}

// notice adds a record of the notify topic.
func (e *evidence) notice(r *kgo.Record) error {
	if e.noticed.IsZero() {
		e.noticed = r.Timestamp
	}
	if key := string(r.Key); key != e.key && (key != e.workspaceKey || !e.mentioned(r.Value)) || r.Value == nil {
		return nil
	}
	value, err := codecs.Notice{}.Decode(r.Value)
	if err != nil {
		return fmt.Errorf("%s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	n, ok := value.(*tidemarkv1.Notice)
	if !ok || n.GetFileId() != e.file || n.GetPosition().GetPartition() != e.partition {
		return nil
	}
	e.notices[noticeSource{n.GetPosition().GetOffset(), n.GetEventId()}] = outcome{n.Version, n.GetLate()}
	if n.Version != nil && n.GetVersion() >= e.last.GetVersion() {
		n.Payload = nil // aliases the record
		e.last = n
	}
	return nil
}

// deadLetter adds a record of the dead letters' topic.
func (e *evidence) deadLetter(r *kgo.Record) error {
	header := map[string]string{}
	for _, h := range r.Headers {
		header[h.Key] = string(h.Value)
	}
	if header[topology.HeaderTopic] != e.eventsTopic || header[topology.HeaderSink] != "" {
		return nil // what a sink rejected was folded
	}
	resolved := header[topology.HeaderResolved] // the record is a marker
	event := e.parse(r.Value, r.Key)
	omitted, _ := strconv.ParseInt(header[topology.HeaderValueOmitted], 10, 64) // 0 without that header
	unknownFile := event == nil && omitted > 0
	if unknownFile {
		event = &Event{EventID: header[topology.HeaderEventID], Event: header[topology.HeaderEventType]}
		unknownFile = string(r.Key) != e.workspace || header[topology.HeaderFileID] != e.file
	}
	if event == nil && resolved == "" {
		return nil
	}
	partition, err1 := strconv.ParseInt(header[topology.HeaderPartition], 10, 32)
	offset, err2 := strconv.ParseInt(header[topology.HeaderOffset], 10, 64)
	if err := cmp.Or(err1, err2); err != nil {
		return fmt.Errorf("%s, partition %d, offset %d: position of the source record: %w",
			r.Topic, r.Partition, r.Offset, err)
	}
	if resolved != "" {
		as := strings.TrimSpace(resolved + " " + header[topology.HeaderReplayedTo])
		e.resolve(int32(partition), offset, header[topology.HeaderEntry], as)
		return nil
	}
	if unknownFile && int32(partition) != e.partition {
		return nil // its source record is not read
	}
	event.Position = (&tidemarkv1.Position{Partition: int32(partition), Offset: offset}).Text()
	event.Verdict = DeadLettered
	event.Reason, event.Detail = header[topology.HeaderReason], header[topology.HeaderMessage]
	if event.ReceivedAt.IsZero() {
		event.ReceivedAt = r.Timestamp.UTC()
	}
	source := deadLetterSource{int32(partition), offset, sha256.Sum256(r.Value)}
	if omitted > 0 {
		source = sourceWithoutValue(int32(partition), offset, omitted)
	}
	if e.dead[source] == nil { // the same record dead-lettered again is the same entry
		e.dead[source] = &deadLetter{event: *event, unknownFile: unknownFile, first: r.Offset}
	}
	e.dead[source].last = r.Offset
	return nil
}

// sourceWithoutValue identifies a record whose value was too large to keep, by its length.
func sourceWithoutValue(partition int32, offset, length int64) deadLetterSource {
	return deadLetterSource{partition, offset, sha256.Sum256(strconv.AppendInt([]byte("omitted "), length, 10))}
}

// resolve adds to a dead letter how it was resolved. entry is the offset of one of its records, if the marker has it.
func (e *evidence) resolve(partition int32, offset int64, entry, as string) {
	record, err := strconv.ParseInt(entry, 10, 64)
	for source, dead := range e.dead {
		if source.partition == partition && source.offset == offset &&
			(err != nil || dead.first <= record && record <= dead.last) {
			dead.event.Detail += " (" + as + ")"
		}
	}
}

// rowRecord adds a record of the table.
func (e *evidence) rowRecord(r *kgo.Record) error {
	if string(r.Key) != e.key || r.Value == nil { // another producer's null does not delete the row
		return nil
	}
	row := new(tidemarkv1.FileState)
	value, err := codecs.Proto[*tidemarkv1.FileState]{New: func() *tidemarkv1.FileState { return row }}.Decode(r.Value)
	if err != nil || value == nil {
		return fmt.Errorf("%s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	if row.GetVersion() >= e.row.GetVersion() { // an older row is a former owner's
		e.row = row
	}
	return nil
}

// mentioned reports whether JSON may have the file's id, as it is or with escapes.
func (e *evidence) mentioned(value []byte) bool {
	return bytes.Contains(value, []byte(e.file)) || bytes.IndexByte(value, '\\') >= 0
}

// parse returns the event in a record, nil if it is not the file's. A record that is not an event counts as the file's
// if it has the ids of the file and the workspace.
func (e *evidence) parse(value, key []byte) *Event {
	if !e.mentioned(value) { // fast path
		return nil
	}
	event, err := codecs.ParseEvent(value)
	if err == nil {
		if event.GetWorkspaceId() != e.workspace || event.GetFileId() != e.file {
			return nil
		}
		return eventOf(event)
	}
	if !bytes.Contains(value, e.quotedFile) || string(key) != e.workspace && !bytes.Contains(value, e.quotedWorkspace) {
		return nil
	}
	var loose struct {
		EventID string `json:"event_id"`
		Event   string `json:"event"`
	}
	_ = json.Unmarshal(value, &loose) // an error leaves what could be read
	return &Event{EventID: loose.EventID, Event: loose.Event, Detail: err.Error()}
}

// eventOf returns what an event says.
func eventOf(event *tidemarkv1.Event) *Event {
	found := &Event{
		EventID: event.GetEventId(), Event: event.GetEvent(), ReceivedAt: micros(event.GetReceivedAt()),
		Unreadable: event.GetUnreadable(), SentEvent: event.GetSentEvent(),
	}
	if event.OccurredAt != nil {
		at := micros(event.GetOccurredAt())
		found.SentAt = &at
	}
	if !file.Touches(event) {
		found.Detail = "does not change the file's state"
	}
	return found
}

func micros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// event reports an event and its verdict.
func (e *evidence) event(r *kgo.Record) error {
	found := e.parse(r.Value, r.Key)
	if found == nil || headerOf(r, topology.HeaderWalk) != "" {
		return nil
	}
	found.Position = (&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()
	if found.ReceivedAt.IsZero() {
		found.ReceivedAt = r.Timestamp.UTC()
	}
	e.judge(found, r)
	if cause := headerOf(r, topology.HeaderCause); cause != "" {
		found.Detail = strings.TrimPrefix(found.Detail+"; follows from the event of its folder at "+cause, "; ")
	}
	e.reported++
	return e.report(*found)
}

// judge sets the verdict and its details.
func (e *evidence) judge(found *Event, r *kgo.Record) {
	dead := e.dead[deadLetterSource{r.Partition, r.Offset, sha256.Sum256(r.Value)}]
	if dead == nil {
		dead = e.dead[sourceWithoutValue(r.Partition, r.Offset, int64(len(r.Value)))]
	}
	if dead != nil {
		dead.found = true
		found.Verdict, found.Reason, found.Detail = DeadLettered, dead.event.Reason, dead.event.Detail
		return
	}
	first, known := e.accepted[found.EventID]
	if notice, ok := e.notices[noticeSource{r.Offset, found.EventID}]; ok {
		switch found.Version = notice.version; {
		case notice.version == nil && found.Detail == "":
			found.Verdict, found.Detail = Unchanged, "an event of its folder had already done that"
		case notice.version == nil:
			found.Verdict = Passed
		case notice.late:
			found.Verdict, found.Detail = Late, "newer events came before it and kept what they set"
		default:
			found.Verdict = Accepted
		}
		if !known {
			e.accepted[found.EventID] = found.Position
		}
		return
	}
	switch {
	case r.Offset >= e.commit:
		found.Verdict, found.Detail = Pending, "not folded yet"
		if known {
			found.Detail = "not folded yet; a copy of " + first
		}
	case known:
		found.Verdict, found.Detail = Duplicate, "a copy of "+first
	case headerOf(r, topology.HeaderCause) != "" && file.Remembers(e.row, found.EventID):
		found.Verdict, found.Detail = Unchanged, "the file was like that already"
		e.accepted[found.EventID] = found.Position
	case e.row.GetLogId() == e.eventsID && e.row.GetPosition().GetOffset() == r.Offset &&
		e.row.GetLastEventId() == found.EventID:
		found.Verdict, found.Detail = Accepted, "it is the last event of the row; its notice has expired"
		e.accepted[found.EventID] = found.Position
	case headerOf(r, topology.HeaderCopied) != "":
		found.Verdict, found.Detail = NoTrace, fmt.Sprintf(
			"copied from %s of another prefix by `topics repartition`: run `why` under that prefix",
			headerOf(r, topology.HeaderCopied))
	case e.expired(r) && file.Remembers(e.row, found.EventID):
		found.Verdict, found.Detail = NoTrace,
			"the row remembers its id: it was accepted, or is a copy of one that was; the notice has expired"
	case file.Remembers(e.row, found.EventID):
		found.Verdict, found.Detail = Duplicate, "the row remembers its id: the first copy is older than what was read"
	default:
		found.Verdict, found.Detail = NoTrace, e.noTrace()
	}
}

// headerOf returns the value of a header, empty when the record has none.
func headerOf(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// expired reports whether the notice of an event may have expired: notices are written after their events.
func (e *evidence) expired(r *kgo.Record) bool {
	return e.since.IsZero() && e.noticesFrom > 0 && (e.noticed.IsZero() || r.Timestamp.Before(e.noticed))
}

func (e *evidence) noTrace() string {
	switch {
	case !e.since.IsZero():
		return "may be a copy of an event from before --since: try without --since"
	case e.noticesFrom > 0:
		return fmt.Sprintf("its notice, or that of its first copy, may have expired: the notices begin at offset %d",
			e.noticesFrom)
	}
	return "no notice, no dead letter and no earlier copy: this is a bug, or records were deleted"
}

// reportOthers reports the dead letters whose source records were not read.
func (e *evidence) reportOthers() error {
	var others []*deadLetter
	for _, dead := range e.dead {
		if !dead.found && !dead.unknownFile && !dead.event.ReceivedAt.Before(e.since) {
			others = append(others, dead)
		}
	}
	slices.SortFunc(others, func(a, b *deadLetter) int { return a.event.ReceivedAt.Compare(b.event.ReceivedAt) })
	for _, dead := range others {
		e.reported++
		if err := e.report(dead.event); err != nil {
			return err
		}
	}
	return nil
}

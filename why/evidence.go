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

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// An evidence is what the topics say about the file.
type evidence struct {
	workspace, file string
	key             string // of its row
	otherKey        string // of notices of the workspace's events that touch no row
	quoted          []byte // its id as JSON
	quotedWorkspace []byte
	partition       int32
	logID           string // id of the events topic
	eventsTopic     string
	commit          int64
	since           time.Time

	notices     map[place]told
	last        *tidemarkv1.Notice // of the highest version, without its payload
	noticesFrom int64
	noticed     time.Time // when the first notice that was read was written
	dead        map[grave]*deadLetter
	row         *tidemarkv1.FileState

	accepted map[string]string // position of an accepted event by its id
	tell     func(Event) error
	told     int
}

// A place is where a notice says its event lies. The id tells apart events of a log that was made anew.
type place struct {
	offset int64
	id     string
}

type told struct {
	version *int64
	late    bool
}

// A grave is where a dead letter says its record lies; the sum tells apart logs, as the record may have no id.
type grave struct {
	partition int32
	offset    int64
	sum       [sha256.Size]byte
}

type deadLetter struct {
	event   Event
	loose   bool  // of whichever file its record is about: its value was too large to keep, and nothing else tells
	first   int64 // offsets of its records among the dead letters
	last    int64
	claimed bool // its record was found
}

func newEvidence(s Search, partition int32, logID string, commit int64) *evidence {
	return &evidence{
		workspace: s.WorkspaceID, file: s.FileID, key: tidemarkv1.JoinKey(s.WorkspaceID, s.FileID), otherKey: tidemarkv1.JoinKey(s.WorkspaceID, ""),
		partition: partition,
		quoted:    quote(s.FileID), quotedWorkspace: quote(s.WorkspaceID),
		logID: logID, eventsTopic: s.Streams.Events.Name, commit: commit, since: s.Since,
		notices: map[place]told{}, dead: map[grave]*deadLetter{}, accepted: map[string]string{},
	}
}

// quote is how JSON most often writes s.
func quote(s string) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil { // a string: cannot fail
		return []byte(s)
	}
	return bytes.TrimSpace(b.Bytes())
}

// notice takes a record of the notices.
func (e *evidence) notice(r *kgo.Record) error {
	if e.noticed.IsZero() {
		e.noticed = r.Timestamp
	}
	if key := string(r.Key); key != e.key && (key != e.otherKey || !e.mentioned(r.Value)) || r.Value == nil {
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
	e.notices[place{n.GetPosition().GetOffset(), n.GetEventId()}] = told{n.Version, n.GetLate()}
	if n.Version != nil && n.GetVersion() >= e.last.GetVersion() {
		n.Payload = nil // aliases the record
		e.last = n
	}
	return nil
}

// deadLetter takes a record of the dead letters.
func (e *evidence) deadLetter(r *kgo.Record) error {
	header := map[string]string{}
	for _, h := range r.Headers {
		header[h.Key] = string(h.Value)
	}
	resolved := header[topology.HeaderResolved] // such a record is a marker behind its entry
	about := e.about(r.Value, r.Key)
	omitted, _ := strconv.ParseInt(header[topology.HeaderValueOmitted], 10, 64) // of any other it is 0
	loose := about == nil && omitted > 0
	if loose {
		about = &Event{EventID: header[topology.HeaderEventID], Event: header[topology.HeaderEventType]}
		loose = string(r.Key) != e.workspace || header[topology.HeaderFileID] != e.file
	}
	if about == nil && resolved == "" || header[topology.HeaderTopic] != e.eventsTopic {
		return nil
	}
	partition, err1 := strconv.ParseInt(header[topology.HeaderPartition], 10, 32)
	offset, err2 := strconv.ParseInt(header[topology.HeaderOffset], 10, 64)
	if err := cmp.Or(err1, err2); err != nil {
		return fmt.Errorf("%s, partition %d, offset %d: where its record lies: %w", r.Topic, r.Partition, r.Offset, err)
	}
	if resolved != "" {
		e.resolve(int32(partition), offset, header[topology.HeaderEntry], strings.TrimSpace(resolved+" "+header[topology.HeaderReplayedTo]))
		return nil
	}
	if loose && int32(partition) != e.partition {
		return nil // its record is not read, so it is told by nothing
	}
	about.Position = (&tidemarkv1.Position{Partition: int32(partition), Offset: offset}).Text()
	about.Verdict, about.Reason, about.Detail = DeadLettered, header[topology.HeaderReason], header[topology.HeaderMessage]
	if about.ReceivedAt.IsZero() {
		about.ReceivedAt = r.Timestamp.UTC()
	}
	at := grave{int32(partition), offset, sha256.Sum256(r.Value)}
	if omitted > 0 {
		at = graveOmitted(int32(partition), offset, omitted)
	}
	if e.dead[at] == nil { // the same record dead-lettered again is the same entry
		e.dead[at] = &deadLetter{event: *about, loose: loose, first: r.Offset}
	}
	e.dead[at].last = r.Offset
	return nil
}

// graveOmitted is the grave of a record whose value was too large to keep: its length is all that tells it from another log's.
func graveOmitted(partition int32, offset, length int64) grave {
	return grave{partition, offset, sha256.Sum256(strconv.AppendInt([]byte("omitted "), length, 10))}
}

// resolve notes what an operator did with a dead letter; entry is the offset of one of its records, if the marker says it.
func (e *evidence) resolve(partition int32, offset int64, entry, as string) {
	record, err := strconv.ParseInt(entry, 10, 64)
	for at, letter := range e.dead {
		if at.partition == partition && at.offset == offset && (err != nil || letter.first <= record && record <= letter.last) {
			letter.event.Detail += " (" + as + ")"
		}
	}
}

// rowRecord takes a record of the table.
func (e *evidence) rowRecord(r *kgo.Record) error {
	if string(r.Key) != e.key || r.Value == nil { // a null is another writer's, and deletes nothing
		return nil
	}
	row := new(tidemarkv1.FileState)
	value, err := codecs.Proto[*tidemarkv1.FileState]{New: func() *tidemarkv1.FileState { return row }}.Decode(r.Value)
	if err != nil || value == nil {
		return fmt.Errorf("%s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	if row.GetVersion() >= e.row.GetVersion() { // a paused owner may append an older one, which every reader ignores
		e.row = row
	}
	return nil
}

// mentioned says whether JSON may hold the file's id: as it is, or behind escapes.
func (e *evidence) mentioned(value []byte) bool {
	return bytes.Contains(value, []byte(e.file)) || bytes.IndexByte(value, '\\') >= 0
}

// about returns what a record says of itself when it is about the file, else nil. One that cannot be understood is, when it
// names the file and the workspace.
func (e *evidence) about(value, key []byte) *Event {
	if !e.mentioned(value) { // nearly always
		return nil
	}
	event, err := codecs.ParseEvent(value)
	if err == nil {
		if event.GetWorkspaceId() != e.workspace || event.GetFileId() != e.file {
			return nil
		}
		found := &Event{
			EventID: event.GetEventId(), Event: event.GetEvent(), ReceivedAt: micros(event.GetReceivedAt()),
			Unreadable: event.GetUnreadable(), SentEvent: event.GetSentEvent(),
		}
		if event.OccurredAt != nil {
			at := micros(event.GetOccurredAt())
			found.SentAt = &at
		}
		if !file.Touches(event) {
			found.Detail = "has no meaning for the file's state"
		}
		return found
	}
	if !bytes.Contains(value, e.quoted) || string(key) != e.workspace && !bytes.Contains(value, e.quotedWorkspace) {
		return nil
	}
	var loose struct {
		EventID string `json:"event_id"`
		Event   string `json:"event"`
	}
	_ = json.Unmarshal(value, &loose) // it could not be read before; what can be shown is shown
	return &Event{EventID: loose.EventID, Event: loose.Event, Detail: err.Error()}
}

func micros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// event takes a record of the events, and tells its verdict.
func (e *evidence) event(r *kgo.Record) error {
	found := e.about(r.Value, r.Key)
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
	e.told++
	return e.tell(*found)
}

func (e *evidence) judge(found *Event, r *kgo.Record) {
	letter := e.dead[grave{r.Partition, r.Offset, sha256.Sum256(r.Value)}]
	if letter == nil {
		letter = e.dead[graveOmitted(r.Partition, r.Offset, int64(len(r.Value)))]
	}
	if letter != nil {
		letter.claimed = true
		found.Verdict, found.Reason, found.Detail = DeadLettered, letter.event.Reason, letter.event.Detail
		return
	}
	first, known := e.accepted[found.EventID]
	if notice, ok := e.notices[place{r.Offset, found.EventID}]; ok {
		switch found.Version = notice.version; {
		case notice.version == nil && found.Detail == "":
			found.Verdict, found.Detail = Unchanged, "an event of its folder had done that already"
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
		found.Verdict, found.Detail = Unchanged, "the file had that already"
		e.accepted[found.EventID] = found.Position
	case e.row.GetLogId() == e.logID && e.row.GetPosition().GetOffset() == r.Offset && e.row.GetLastEventId() == found.EventID:
		found.Verdict, found.Detail = Accepted, "the row is as this event left it; its notice has expired"
		e.accepted[found.EventID] = found.Position
	case headerOf(r, topology.HeaderCopied) != "":
		found.Verdict, found.Detail = NoTrace, "copied from "+headerOf(r, topology.HeaderCopied)+" of another prefix by `topics repartition`: `why` says under that prefix what became of it"
	case e.expired(r) && file.Remembers(e.row, found.EventID):
		found.Verdict, found.Detail = NoTrace, "the row remembers its id: it was accepted, or is a copy of one that was; the notice that would tell has expired"
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

// expired says whether the notice of an event may have been removed by retention: it was written after the event.
func (e *evidence) expired(r *kgo.Record) bool {
	return e.since.IsZero() && e.noticesFrom > 0 && (e.noticed.IsZero() || r.Timestamp.Before(e.noticed))
}

func (e *evidence) noTrace() string {
	switch {
	case !e.since.IsZero():
		return "may be a copy of an event from before --since: look again without it"
	case e.noticesFrom > 0:
		return fmt.Sprintf("its notice, or that of its first copy, may have expired: the notices begin at offset %d", e.noticesFrom)
	}
	return "no notice, no dead letter and no earlier copy: this should not be"
}

// rest tells the dead letters whose records were not met.
func (e *evidence) rest() error {
	var left []*deadLetter
	for _, letter := range e.dead {
		if !letter.claimed && !letter.loose && !letter.event.ReceivedAt.Before(e.since) {
			left = append(left, letter)
		}
	}
	slices.SortFunc(left, func(a, b *deadLetter) int { return a.event.ReceivedAt.Compare(b.event.ReceivedAt) })
	for _, letter := range left {
		e.told++
		if err := e.tell(letter.event); err != nil {
			return err
		}
	}
	return nil
}

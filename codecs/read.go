package codecs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A reader takes the JSON that this package writes. Members that it does not know are passed over: a later release may add
// some. One of another type than written is a mistake: something else wrote the record.
type reader struct {
	scanner
	all   string // the record, when it is short: texts are parts of it
	plain []byte // the text decoded last
}

const short = 8 << 10 // bytes

func newReader(data []byte) *reader {
	r := new(reader)
	r.init(data)
	r.limit = maxDepth + 1 // a payload lies in a notice
	if len(data) <= short {
		r.all = string(data)
	}
	return r
}

// mismatch says what the value of the current member should be. It can say nothing of a member behind its object: the name is then
// that object's last.
func (r *reader) mismatch(want string) {
	r.fail("%s: want %s", r.name, want)
}

// null passes a null and says whether there was one.
func (r *reader) null() bool {
	if r.kind != 'n' {
		return false
	}
	r.value()
	return true
}

func (r *reader) bytes() []byte {
	if r.kind != '"' {
		r.mismatch("a string")
		return nil
	}
	raw := r.value()
	if r.escaped {
		r.plain = appendUnescaped(r.plain[:0], raw)
		return r.plain
	}
	return raw
}

func (r *reader) text() string {
	if r.null() {
		return ""
	}
	b := r.bytes()
	if end := r.at - len(`"`); r.err == nil && !r.escaped && r.all != "" {
		return r.all[end-len(b) : end]
	}
	return string(b)
}

// texts reads an array of strings.
func (r *reader) texts() (all []string) {
	if r.null() {
		return nil
	}
	if !r.openArray() {
		r.mismatch("an array of strings")
		return nil
	}
	for first := true; r.element(first); first = false {
		r.kind = kinds[r.peek()]
		all = append(all, string(r.bytes()))
	}
	return all
}

func (r *reader) int() int64 {
	if r.kind == '0' {
		if n, err := strconv.ParseInt(string(r.value()), 10, 64); err == nil {
			return n
		}
	}
	r.mismatch("a whole number")
	return 0
}

func (r *reader) bool() bool {
	switch r.kind {
	case 't', 'f':
		return len(r.value()) == len("true")
	}
	r.mismatch("true or false")
	return false
}

// time reads a time into room and returns it, nil for null.
func (r *reader) time(room *int64) *int64 {
	if r.null() {
		return nil
	}
	us, ok := parseTime(r.bytes())
	if !ok {
		r.mismatch("a time")
	}
	*room = us
	return room
}

// position reads a position into room and returns it.
func (r *reader) position(room *tidemarkv1.Position) *tidemarkv1.Position {
	if room.UnmarshalText(r.bytes()) != nil {
		r.mismatch("a position, for example 7:1234")
	}
	return room
}

// A noticeAlloc holds a notice and what its optional fields point to, so that they are one allocation.
type noticeAlloc struct {
	notice      tidemarkv1.Notice
	version, at int64
	position    tidemarkv1.Position
}

func parseNotice(data []byte) (*tidemarkv1.Notice, error) {
	r, room := newReader(data), new(noticeAlloc)
	n := &room.notice
	for r.open(); r.next(); {
		switch string(r.name) {
		case "op_id":
			n.OpId = r.text()
		case "event":
			n.Event = r.text()
		case "event_id":
			n.EventId = r.text()
		case "workspace_id":
			n.WorkspaceId = r.text()
		case "file_id":
			n.FileId = r.text()
		case "version":
			room.version = r.int()
			n.Version = &room.version
		case "position":
			n.Position = r.position(&room.position)
		case "late":
			n.Late = r.bool()
		case "unreadable":
			n.Unreadable = r.texts()
		case "cause":
			n.Cause = r.cause()
		case "actor_id":
			n.ActorId = r.text()
		case "member":
			n.Member = r.member()
		case "at":
			if r.time(&room.at) != nil {
				n.At = room.at
			}
		case "before":
			n.Before = r.file()
		case "after":
			n.After = r.file()
		case "payload":
			n.Payload = r.value()
		case "payload_omitted":
			n.PayloadOmitted = r.bool()
		default:
			r.value()
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if n.GetWorkspaceId() == "" || n.GetPosition() == nil {
		return nil, errors.New("a notice needs workspace_id and position")
	}
	return n, nil
}

func (r *reader) cause() *tidemarkv1.Cause {
	if r.null() {
		return nil
	}
	c := new(tidemarkv1.Cause)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "event":
			c.Event = r.text()
		case "event_id":
			c.EventId = r.text()
		case "folder_id":
			c.Inherited = &tidemarkv1.Inherited{FolderId: r.text()}
		case "position":
			c.Position = r.position(new(tidemarkv1.Position))
		default:
			r.value()
		}
	}
	return c
}

func (r *reader) member() *tidemarkv1.Member {
	if r.null() {
		return nil
	}
	m, at := new(tidemarkv1.Member), int64(0)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "id":
			m.Id = r.text()
		case "left":
			m.Left = r.bool()
		case "at":
			if r.time(&at) != nil {
				m.At = at
			}
		default:
			r.value()
		}
	}
	return m
}

func parseIndex(data []byte) (*tidemarkv1.IndexOp, error) {
	r, op := newReader(data), new(tidemarkv1.IndexOp)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "op":
			op.Op = tidemarkv1.IndexOp_Op(r.word(ops[:]))
		case "id":
			op.Id = r.text()
		case "workspace_id":
			op.WorkspaceId = r.text()
		case "file_id":
			op.FileId = r.text()
		case "version":
			op.Version = r.int()
		case "position":
			op.Position = r.position(new(tidemarkv1.Position))
		case "file":
			op.File = r.file()
		default:
			r.value()
		}
	}
	return op, r.end()
}

// word reads one of the words and returns which.
func (r *reader) word(words []string) int {
	text := r.text()
	i := slices.Index(words, text)
	if i < 1 {
		r.mismatch(fmt.Sprintf("a known word, found %q", text))
	}
	return i
}

// A fileAlloc is to a file what a noticeAlloc is to a notice.
type fileAlloc struct {
	file                            tidemarkv1.FileState
	size, created, updated, deleted int64
	position                        tidemarkv1.Position
}

// file reads a file, nil for null.
func (r *reader) file() *tidemarkv1.FileState {
	if r.null() {
		return nil
	}
	room := new(fileAlloc)
	s := &room.file
	for r.open(); r.next(); {
		switch string(r.name) {
		case "workspace_id":
			s.WorkspaceId = r.text()
		case "file_id":
			s.FileId = r.text()
		case "name":
			s.Name = r.text()
		case "path":
			s.Path = r.text()
		case "parent_id":
			s.ParentId = r.text()
		case "size":
			room.size = r.int()
			s.Size = &room.size
		case "mime":
			s.Mime = r.text()
		case "hash":
			s.Hash = r.text()
		case "kind":
			s.Kind = tidemarkv1.Kind(r.word(kindWords[:]))
		case "status":
			s.Status = tidemarkv1.Status(r.word(statuses[:]))
		case "incomplete":
			s.Incomplete = r.bool()
		case "version":
			s.Version = r.int()
		case "position":
			s.Position = r.position(&room.position)
		case "actor_id":
			s.ActorId = r.text()
		case "last_event":
			s.LastEvent = r.text()
		case "last_event_id":
			s.LastEventId = r.text()
		case "created_at":
			s.CreatedAt = r.time(&room.created)
		case "updated_at":
			s.UpdatedAt = r.time(&room.updated)
		case "deleted_at":
			s.DeletedAt = r.time(&room.deleted)
		default:
			r.value()
		}
	}
	return s
}

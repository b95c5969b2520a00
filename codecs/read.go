package codecs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A reader decodes the JSON that this package writes. It skips unknown members, because a later release may add some. A
// member of an unexpected type is an error: another program wrote the record.
type reader struct {
	scanner
	all   string // the record if it is short: texts are substrings of it
	plain []byte // the last unescaped text
}

const short = 8 << 10 // bytes

func newReader(data []byte) *reader {
	r := new(reader)
	r.init(data)
	r.limit = maxDepth + 1 // a notice contains a payload
	if len(data) <= short {
		r.all = string(data)
	}
	return r
}

// mismatch fails because the value of the current member is not what it should be. After the end of a nested object it
// would name that object's last member, so check a value before the next one is read.
func (r *reader) mismatch(want string) {
	r.fail("%s: want %s", r.name, want)
}

// null reads a null and reports whether there was one.
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

// time reads a time into to and returns to, nil for null.
func (r *reader) time(to *int64) *int64 {
	if r.null() {
		return nil
	}
	us, ok := parseTime(r.bytes())
	if !ok {
		r.mismatch("a time")
	}
	*to = us
	return to
}

// position reads a position into to and returns to.
func (r *reader) position(to *tidemarkv1.Position) *tidemarkv1.Position {
	if to.UnmarshalText(r.bytes()) != nil {
		r.mismatch("a position, for example 7:1234")
	}
	return to
}

// A noticeAlloc has a notice and the values that its optional fields point to, in one allocation.
type noticeAlloc struct {
	notice      tidemarkv1.Notice
	version, at int64
	position    tidemarkv1.Position
}

func parseNotice(data []byte) (*tidemarkv1.Notice, error) {
	r, alloc := newReader(data), new(noticeAlloc)
	n := &alloc.notice
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
			alloc.version = r.int()
			n.Version = &alloc.version
		case "position":
			n.Position = r.position(&alloc.position)
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
			if r.time(&alloc.at) != nil {
				n.At = alloc.at
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

// word reads one of the words and returns its index.
func (r *reader) word(words []string) int {
	text := r.text()
	i := slices.Index(words, text)
	if i < 1 {
		r.mismatch(fmt.Sprintf("a known word, found %q", text))
	}
	return i
}

// A fileAlloc has a file and the values that its optional fields point to, in one allocation.
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
	alloc := new(fileAlloc)
	s := &alloc.file
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
			alloc.size = r.int()
			s.Size = &alloc.size
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
			s.Position = r.position(&alloc.position)
		case "actor_id":
			s.ActorId = r.text()
		case "last_event":
			s.LastEvent = r.text()
		case "last_event_id":
			s.LastEventId = r.text()
		case "created_at":
			s.CreatedAt = r.time(&alloc.created)
		case "updated_at":
			s.UpdatedAt = r.time(&alloc.updated)
		case "deleted_at":
			s.DeletedAt = r.time(&alloc.deleted)
		default:
			r.value()
		}
	}
	return s
}

package codecs

import (
	"errors"
	"fmt"
	"slices"

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
	r.limit = MaxDepth + 1 // a payload lies in a notice
	if len(data) <= short {
		r.all = string(data)
	}
	return r
}

func (r *reader) wrong(name, want string) {
	r.fail("%s: want %s", name, want)
}

// null passes a null and says whether there was one.
func (r *reader) null() bool {
	if r.kind != 'n' {
		return false
	}
	r.value()
	return true
}

func (r *reader) bytes(name string) []byte {
	if r.kind != '"' {
		r.wrong(name, "a string")
		return nil
	}
	raw := r.value()
	if r.escaped {
		r.plain = appendUnescaped(r.plain[:0], raw)
		return r.plain
	}
	return raw
}

func (r *reader) text(name string) string {
	if r.null() {
		return ""
	}
	b := r.bytes(name)
	if end := r.at - len(`"`); r.err == nil && !r.escaped && r.all != "" {
		return r.all[end-len(b) : end]
	}
	return string(b)
}

func (r *reader) int(name string) int64 {
	if r.kind == '0' {
		if raw := r.value(); len(raw) > 0 && len(raw) < 19 {
			negative := raw[0] == '-'
			if negative {
				raw = raw[1:]
			}
			if n := int64(number(raw)); n >= 0 {
				if negative {
					return -n
				}
				return n
			}
		}
	}
	r.wrong(name, "a whole number")
	return 0
}

func (r *reader) bool(name string) bool {
	switch r.kind {
	case 't', 'f':
		return len(r.value()) == len("true")
	}
	r.wrong(name, "true or false")
	return false
}

// time returns nil for null.
func (r *reader) time(name string) *int64 {
	if r.null() {
		return nil
	}
	us, ok := parseTime(r.bytes(name))
	if !ok {
		r.wrong(name, "a time")
	}
	return &us
}

func (r *reader) position(name string) *tidemarkv1.Position {
	p, err := tidemarkv1.ParsePosition(r.text(name))
	if err != nil && r.err == nil {
		r.wrong(name, err.Error())
	}
	return p
}

func parseNotice(data []byte) (*tidemarkv1.Notice, error) {
	r, n := newReader(data), new(tidemarkv1.Notice)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "op_id":
			n.OpId = r.text("op_id")
		case "event":
			n.Event = r.text("event")
		case "event_id":
			n.EventId = r.text("event_id")
		case "workspace_id":
			n.WorkspaceId = r.text("workspace_id")
		case "file_id":
			n.FileId = r.text("file_id")
		case "version":
			version := r.int("version")
			n.Version = &version
		case "position":
			n.Position = r.position("position")
		case "late":
			n.Late = r.bool("late")
		case "actor_id":
			n.ActorId = r.text("actor_id")
		case "member":
			n.Member = r.member()
		case "at":
			if at := r.time("at"); at != nil {
				n.At = *at
			}
		case "before":
			n.Before = r.file("before")
		case "after":
			n.After = r.file("after")
		case "payload":
			n.Payload = r.value()
		case "payload_omitted":
			n.PayloadOmitted = r.bool("payload_omitted")
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

func (r *reader) member() *tidemarkv1.Member {
	if r.null() {
		return nil
	}
	m := new(tidemarkv1.Member)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "id":
			m.Id = r.text("member.id")
		case "left":
			m.Left = r.bool("member.left")
		case "at":
			if at := r.time("member.at"); at != nil {
				m.At = *at
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
			op.Op = tidemarkv1.IndexOp_Op(r.word("op", ops[:]))
		case "id":
			op.Id = r.text("id")
		case "workspace_id":
			op.WorkspaceId = r.text("workspace_id")
		case "file_id":
			op.FileId = r.text("file_id")
		case "version":
			op.Version = r.int("version")
		case "position":
			op.Position = r.position("position")
		case "file":
			op.File = r.file("file")
		default:
			r.value()
		}
	}
	return op, r.end()
}

// word reads one of the words and returns which.
func (r *reader) word(name string, words []string) int {
	text := r.text(name)
	i := slices.Index(words, text)
	if i < 1 {
		r.wrong(name, fmt.Sprintf("a known word, found %q", text))
	}
	return i
}

// file reads a file, nil for null.
func (r *reader) file(name string) *tidemarkv1.FileState {
	if r.null() {
		return nil
	}
	s := new(tidemarkv1.FileState)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "workspace_id":
			s.WorkspaceId = r.text(name)
		case "file_id":
			s.FileId = r.text(name)
		case "name":
			s.Name = r.text(name)
		case "path":
			s.Path = r.text(name)
		case "parent_id":
			s.ParentId = r.text(name)
		case "size":
			size := r.int(name)
			s.Size = &size
		case "mime":
			s.Mime = r.text(name)
		case "hash":
			s.Hash = r.text(name)
		case "status":
			s.Status = tidemarkv1.Status(r.word(name, statuses[:]))
		case "incomplete":
			s.Incomplete = r.bool(name)
		case "version":
			s.Version = r.int(name)
		case "position":
			s.Position = r.position(name)
		case "actor_id":
			s.ActorId = r.text(name)
		case "last_event":
			s.LastEvent = r.text(name)
		case "last_event_id":
			s.LastEventId = r.text(name)
		case "created_at":
			s.CreatedAt = r.time(name)
		case "updated_at":
			s.UpdatedAt = r.time(name)
		case "deleted_at":
			s.DeletedAt = r.time(name)
		default:
			r.value()
		}
	}
	return s
}

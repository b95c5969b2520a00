package codecs

import (
	"slices"
	"strconv"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// statuses are the JSON values of tidemarkv1.Status, by number.
var statuses = [...]string{"", "active", "trashed", "erased"}

// kindWords are the JSON values of tidemarkv1.Kind, by number. A file has none.
var kindWords = [...]string{"", "folder"}

// word returns the JSON value of an enum, empty for a number that this build does not know.
func word[N ~int32](words []string, n N) string {
	if n < 0 || int(n) >= len(words) {
		return ""
	}
	return words[n]
}

// AppendFile appends the JSON of a file as clients see it: without the bookkeeping of the fold, and without fields that
// are not known.
func AppendFile(b []byte, s *tidemarkv1.FileState) []byte {
	o := object{b: append(b, '{')}
	o.text("workspace_id", s.GetWorkspaceId())
	o.text("file_id", s.GetFileId())
	o.text("name", s.GetName())
	o.text("path", s.GetPath())
	o.text("parent_id", s.GetParentId())
	if s.Size != nil {
		o.int("size", s.GetSize())
	}
	o.text("mime", s.GetMime())
	o.text("hash", s.GetHash())
	o.text("kind", word(kindWords[:], s.GetKind()))
	o.text("status", word(statuses[:], s.GetStatus()))
	o.bool("incomplete", s.GetIncomplete())
	o.int("version", s.GetVersion())
	o.position(s.GetPosition())
	o.text("actor_id", s.GetActorId())
	o.text("last_event", s.GetLastEvent())
	o.text("last_event_id", s.GetLastEventId())
	o.time("created_at", s.CreatedAt)
	o.time("updated_at", s.UpdatedAt)
	if o.time("deleted_at", s.DeletedAt); s.DeletedAt == nil {
		o.null("deleted_at") // known: it is not deleted
	}
	return append(o.b, '}')
}

// AppendWorkspace appends the JSON of a workspace as clients see it. Types and members are sorted. Members who left are
// not shown.
func AppendWorkspace(b []byte, w *tidemarkv1.WorkspaceState) []byte {
	o := object{b: append(b, '{')}
	o.workspaceCounts(w)
	o.types(w.GetByType())
	o.name("members")
	o.b = appendMembers(o.b, w.GetMembers())
	o.workspaceEvents(w)
	return append(o.b, '}')
}

// AppendPastWorkspace appends the JSON of a workspace at an earlier position, of which only the counts are known.
func AppendPastWorkspace(b []byte, w *tidemarkv1.WorkspaceState) []byte {
	o := object{b: append(b, '{')}
	o.workspaceCounts(w)
	o.types(w.GetByType())
	o.int("events", w.GetEvents())
	return append(o.b, '}')
}

// types adds the numbers of files by type, sorted.
func (o *object) types(byType map[string]int64) {
	o.name("by_type")
	types := object{b: append(o.b, '{')}
	mimes := make([]string, 0, len(byType))
	for mime, n := range byType {
		if n != 0 { // the row keeps a type after its last file is gone
			mimes = append(mimes, mime)
		}
	}
	slices.Sort(mimes)
	for _, mime := range mimes {
		types.any(mime)
		types.b = strconv.AppendInt(types.b, byType[mime], 10)
	}
	o.b = append(types.b, '}')
}

// AppendWorkspaceCounts appends the JSON of a workspace without its types and members, of which there may be thousands.
func AppendWorkspaceCounts(b []byte, w *tidemarkv1.WorkspaceState) []byte {
	o := object{b: append(b, '{')}
	o.workspaceCounts(w)
	o.workspaceEvents(w)
	return append(o.b, '}')
}

func (o *object) workspaceCounts(w *tidemarkv1.WorkspaceState) {
	o.text("workspace_id", w.GetWorkspaceId())
	o.int("files", w.GetFiles())
	o.int("bytes", w.GetBytes())
	o.int("trashed", w.GetTrashed())
}

func (o *object) workspaceEvents(w *tidemarkv1.WorkspaceState) {
	o.int("events", w.GetEvents())
	o.time("last_event_at", w.LastEventAt)
	o.position(w.GetPosition())
}

func appendMembers(b []byte, members []*tidemarkv1.Member) []byte {
	ids := make([]string, 0, len(members))
	for _, m := range members {
		if !m.GetLeft() {
			ids = append(ids, m.GetId())
		}
	}
	slices.Sort(ids)
	return appendStrings(b, ids)
}

func appendStrings(b []byte, all []string) []byte {
	b = append(b, '[')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, s)
	}
	return append(b, ']')
}

// An object appends the members of a JSON object to b, which ends with its brace.
type object struct {
	b     []byte
	begun bool // there is a member already
}

// name begins a member whose name needs no escapes.
func (o *object) name(name string) {
	if o.begun {
		o.b = append(o.b, ',', '"')
	} else {
		o.begun = true
		o.b = append(o.b, '"')
	}
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

// any begins a member with any name.
func (o *object) any(name string) {
	if o.begun {
		o.b = append(o.b, ',')
	}
	o.begun = true
	o.b = append(appendString(o.b, name), ':')
}

// text adds a text unless it is empty.
func (o *object) text(name, value string) {
	if value != "" {
		o.name(name)
		o.b = appendString(o.b, value)
	}
}

func (o *object) int(name string, value int64) {
	o.name(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) bool(name string, value bool) {
	o.name(name)
	if value {
		o.b = append(o.b, "true"...)
	} else {
		o.b = append(o.b, "false"...)
	}
}

func (o *object) null(name string) {
	o.name(name)
	o.b = append(o.b, "null"...)
}

// time adds a time unless it is nil.
func (o *object) time(name string, us *int64) {
	if us != nil {
		o.name(name)
		o.b = appendTime(o.b, *us)
	}
}

func (o *object) position(p *tidemarkv1.Position) {
	if p != nil {
		o.name("position")
		o.b = append(o.b, '"')
		o.b = append(p.AppendText(o.b), '"')
	}
}

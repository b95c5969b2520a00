package file

import (
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A fold puts one event into a row. Each field is a last-writer-wins register by the sender's time, so that a retried webhook does
// not turn the state back; what is shown is then derived from the fields and from what the row inherits.
type fold struct {
	after *tidemarkv1.FileState
	event *tidemarkv1.Event
	when  int64 // the sender's time
	dated bool
	times times
	own   own

	late    bool // a field was held back
	placed  bool // the event wrote path, name or parent
	follows bool // the path shown is that of the folder and the file's last element
}

// own is what the row's own events say, where another value may be shown.
type own struct {
	path      string
	parent    string // that came with path
	status    tidemarkv1.Status
	deletedAt *int64
}

func ownOf(s *tidemarkv1.FileState) own {
	o := own{path: s.GetOwnPath(), status: s.GetOwnStatus(), deletedAt: s.OwnDeletedAt}
	if o.path == "" && !s.GetUnplaced() {
		o.path = s.GetPath()
	}
	switch {
	case o.path == "":
	case s.PathParent != nil:
		o.parent = s.GetPathParent()
	default:
		o.parent = s.GetParentId()
	}
	if o.status == tidemarkv1.Status_STATUS_UNSPECIFIED {
		o.status, o.deletedAt = s.GetStatus(), s.DeletedAt
	}
	return o
}

// begin returns the fold of an event onto the row before it, or onto a new one. Of a new row nothing is known from before the
// event, and what is there unless an event says otherwise is active.
func begin(before *tidemarkv1.FileState, e *tidemarkv1.Event) *fold {
	f := &fold{event: e, times: timesOf(before)}
	f.when, f.dated = believed(e)
	if before != nil {
		f.after = clone(before)
	} else {
		f.after = &tidemarkv1.FileState{
			WorkspaceId: e.GetWorkspaceId(),
			FileId:      e.GetFileId(),
			Status:      tidemarkv1.Status_STATUS_ACTIVE,
			Incomplete:  true,
		}
	}
	f.own = ownOf(f.after)
	if f.own.path == "" && f.after.GetParentId() != "" {
		f.after.Unplaced = true // also in a row from before there was such a thing
	}
	return f
}

// fields folds what the event carries.
func (f *fold) fields() {
	s, e := f.after, f.event
	if meaningOf(e.GetEvent()).folder {
		s.Kind = tidemarkv1.Kind_KIND_FOLDER
	}
	f.status()
	if f.own.status == tidemarkv1.Status_STATUS_ERASED {
		// The stub of a file whose data was erased takes none back, unless the file itself comes back.
		f.late = f.late || carriesPlace(e) || carriesContent(e)
		return
	}
	f.place()
	f.content()
	f.last()
}

func carriesPlace(e *tidemarkv1.Event) bool {
	return e.GetName() != "" || e.GetPath() != "" || e.GetParentId() != ""
}

func carriesContent(e *tidemarkv1.Event) bool {
	return e.Size != nil || e.GetMime() != "" || e.GetHash() != ""
}

// place folds path, name and parent. A name newer than the path renames its last element; with a parent newer than the path, and
// another than the path came with, the path's directory is not the file's any more.
func (f *fold) place() {
	s, e := f.after, f.event
	path := e.GetPath()
	if s.GetKind() == tidemarkv1.Kind_KIND_FOLDER && len(path) > 1 {
		path = path[:1] + strings.TrimRight(path[1:], "/") // some senders end a folder's path with it
	}
	if f.text(fieldPath, &f.own.path, path) {
		f.own.parent = e.GetParentId()
		s.Unplaced = f.dated && f.times[fieldParent] > f.when && s.GetParentId() != f.own.parent
		s.Renamed = f.dated && f.times[fieldName] > f.when
		f.ownPath()
	}
	if f.text(fieldName, &s.Name, e.GetName()) {
		f.placed = true
		s.Renamed = s.GetRenamed() || f.newerThanPath()
	}
	if f.text(fieldParent, &s.ParentId, e.GetParentId()) {
		f.placed = true
		s.Unplaced = f.newerThanPath() && s.GetParentId() != f.own.parent
	}
}

// newerThanPath says whether the event is newer than the one that the path came with.
func (f *fold) newerThanPath() bool {
	if f.dated {
		return f.when > f.times[fieldPath]
	}
	return f.event.GetPath() == ""
}

// ownPath notes that the row's own event gave its path: it is newer than what the row inherited up to its time.
func (f *fold) ownPath() {
	f.placed = true
	f.after.UndatedPlaceAt = f.undatedAt()
	if in := f.after.GetInherited(); in.GetPathSince() != nil && (!f.dated || in.GetPathSince().GetAt() <= f.when) {
		f.after.Inherited = with(in, func(in *tidemarkv1.Inherited) { in.PathSince = nil })
	}
}

// undatedAt is when an event without a time arrived, 0 for one with a time.
func (f *fold) undatedAt() int64 {
	if f.dated {
		return 0
	}
	return arrival(f.event)
}

// content folds size, type and hash. A hash older than the size is that of another content, and is left out.
func (f *fold) content() {
	s, e := f.after, f.event
	f.text(fieldMime, &s.Mime, e.GetMime())
	if f.text(fieldHash, &s.Hash, e.GetHash()) && f.dated && f.times[fieldSize] > f.when {
		s.Hash, f.late = "", true
	}
	if e.Size == nil {
		return
	}
	if !f.newest(fieldSize) {
		f.late = true
		return
	}
	size := e.GetSize()
	s.Size = &size
	if f.dated && f.times[fieldHash] < f.when || !f.dated && e.GetHash() == "" {
		s.Hash = ""
	}
}

// last notes the newest event, and who acted last.
func (f *fold) last() {
	s, e := f.after, f.event
	if !f.dated || s.LastAt == nil || f.when >= s.GetLastAt() {
		if f.dated {
			when := f.when // never through the pointer: the row before shares it
			s.LastAt = &when
		}
		at := happened(e)
		if e.GetCause() != nil && at < s.GetUpdatedAt() {
			return // an older event of the folder, of which the row has only heard now
		}
		s.LastEvent, s.LastEventId, s.UpdatedAt = e.GetEvent(), e.GetEventId(), &at
	}
	if actor := e.GetActorId(); actor != "" && f.newest(fieldActor) {
		s.ActorId = actor
	}
}

// text takes over a text that the event carries, unless a newer event wrote it. An absent one leaves the row alone.
func (f *fold) text(at field, to *string, value string) (written bool) {
	if value == "" {
		return false
	}
	if !f.newest(at) {
		f.late = true
		return false
	}
	*to = value
	return true
}

// newest says whether the event may write a field, whose time it then notes. Equal times go by the order of the log. An event
// without a time counts as newest and leaves the field's as it was.
func (f *fold) newest(at field) bool {
	if !f.dated {
		return true
	}
	if f.when < f.times[at] {
		return false
	}
	f.times[at] = f.when
	return true
}

// status folds the status, which only some events write: an update never brings a file back.
func (f *fold) status() {
	s, at := f.after, happened(f.event)
	does := meaningOf(f.event.GetEvent()).does
	if does == change {
		return
	}
	f.noteStatus(does == trash)
	erased := f.own.status == tidemarkv1.Status_STATUS_ERASED
	inTrash := f.inherits() && s.GetInherited().GetTrashed()
	written := f.newest(fieldStatus)
	f.late = f.late || !written
	switch {
	case erased && (does == trash || !written):
		return // the stub stays one: there is nothing left to show
	case !written:
	case does == trash && !f.dated && inTrash: // said of each file of a folder in the trash: it is there already
	case does == trash:
		f.own.status, f.own.deletedAt = tidemarkv1.Status_STATUS_TRASHED, &at
		s.UndatedStatusAt = f.undatedAt()
	default:
		f.own.status, f.own.deletedAt = tidemarkv1.Status_STATUS_ACTIVE, nil
		s.UndatedStatusAt = f.undatedAt()
		s.Incomplete = s.GetIncomplete() || erased // what was known of it is gone
		if inTrash && notOlder(&tidemarkv1.Since{At: f.when, Arrived: arrival(f.event)}, s.GetInherited().GetTrashedSince()) {
			s.Inherited = with(s.GetInherited(), func(in *tidemarkv1.Inherited) { in.Trashed = false })
		}
	}
	if does == create { // late or not, it says how the file began
		s.Incomplete = false
		if s.CreatedAt == nil || at < s.GetCreatedAt() {
			s.CreatedAt = &at
		}
	}
}

// split returns the row's own path up to its last element, and the last element as it is shown: the name, where there is no path or
// the name is newer.
func (f *fold) split() (dir, last string) {
	end := strings.LastIndexByte(f.own.path, '/') + 1
	dir, last = f.own.path[:end], f.own.path[end:]
	if f.after.GetRenamed() || f.own.path == "" {
		last = f.after.GetName()
	}
	return dir, last
}

// clone copies a row, but shares what its optional fields point to, its position and the window: they are replaced, never
// written to. Fields that this build does not know are kept.
func clone(s *tidemarkv1.FileState) *tidemarkv1.FileState {
	c := &tidemarkv1.FileState{
		WorkspaceId:     s.WorkspaceId,
		FileId:          s.FileId,
		Name:            s.Name,
		Path:            s.Path,
		ParentId:        s.ParentId,
		Size:            s.Size,
		Mime:            s.Mime,
		Hash:            s.Hash,
		Status:          s.Status,
		Incomplete:      s.Incomplete,
		Version:         s.Version,
		Position:        s.Position,
		ActorId:         s.ActorId,
		LastEvent:       s.LastEvent,
		LastEventId:     s.LastEventId,
		CreatedAt:       s.CreatedAt,
		UpdatedAt:       s.UpdatedAt,
		DeletedAt:       s.DeletedAt,
		Kind:            s.Kind,
		LogId:           s.LogId,
		PlaceAt:         s.PlaceAt,
		ContentAt:       s.ContentAt,
		StatusAt:        s.StatusAt,
		Seen:            s.Seen,
		LastAt:          s.LastAt,
		FieldTimes:      s.FieldTimes,
		OwnPath:         s.OwnPath,
		Unplaced:        s.Unplaced,
		PathParent:      s.PathParent,
		Renamed:         s.Renamed,
		OwnStatus:       s.OwnStatus,
		OwnDeletedAt:    s.OwnDeletedAt,
		UndatedPlaceAt:  s.UndatedPlaceAt,
		UndatedStatusAt: s.UndatedStatusAt,
		Inherited:       s.Inherited,
		Silent:          s.Silent,
		SilentOffset:    s.SilentOffset,
		Gives:           s.Gives,
		Cause:           s.Cause,
		Former:          s.Former,
		TrashedSince:    s.TrashedSince,
		RestoredSince:   s.RestoredSince,
	}
	if unknown := s.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		c.ProtoReflect().SetUnknown(slices.Clip(unknown))
	}
	return c
}

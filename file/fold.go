package file

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A fold applies one event to a row. Each field is a last-writer-wins register by the sender's time, so a retried
// webhook does not undo newer changes. What is shown then follows from the fields and from what the row inherits.
type fold struct {
	after *tidemarkv1.FileState
	event *tidemarkv1.Event
	when  int64 // see orderTime
	dated bool
	times times
	own   own

	late           bool // the event had an older value for a field than the row
	placed         bool // the event wrote path, name or parent
	pathFromFolder bool // the path shown is the folder's path and the entry's last element
}

// own has the values from the row's own events of the fields that may be shown with inherited values.
type own struct {
	path      string
	parent    string // the parent in the event that path came from
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

// newFold returns the fold of an event onto the row before it, or onto a new row, which is incomplete and active.
func newFold(before *tidemarkv1.FileState, e *tidemarkv1.Event) *fold {
	f := &fold{event: e, times: timesOf(before)}
	f.when, f.dated = orderTime(e)
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
		f.after.Unplaced = true // rows of older builds do not have it
	}
	return f
}

// foldEvent folds an event of the provider.
func (f *fold) foldEvent() {
	s, e := f.after, f.event
	if meaningOf(e.GetEvent()).folder {
		s.Kind = tidemarkv1.Kind_KIND_FOLDER
	}
	f.foldStatus()
	if f.own.status == tidemarkv1.Status_STATUS_ERASED {
		// A stub stays empty until the file itself is restored.
		f.late = f.late || carriesPlace(e) || carriesContent(e)
		return
	}
	f.foldPlace()
	f.foldContent()
	f.noteEvent()
}

func carriesPlace(e *tidemarkv1.Event) bool {
	return e.GetName() != "" || e.GetPath() != "" || e.GetParentId() != ""
}

func carriesContent(e *tidemarkv1.Event) bool {
	return e.Size != nil || e.GetMime() != "" || e.GetHash() != ""
}

// foldPlace folds path, name and parent. A name that is newer than the path replaces its last element. If the parent is
// newer than the path, and not the one in the path's event, the path's directory is obsolete.
func (f *fold) foldPlace() {
	s, e := f.after, f.event
	path := e.GetPath()
	if s.GetKind() == tidemarkv1.Kind_KIND_FOLDER && len(path) > 1 {
		path = path[:1] + strings.TrimRight(path[1:], "/") // some senders end a folder's path with a slash
	}
	if f.text(fieldPath, &f.own.path, path) {
		f.own.parent = e.GetParentId()
		s.Unplaced = f.dated && f.times[fieldParent] > f.when && s.GetParentId() != f.own.parent
		s.Renamed = f.dated && f.times[fieldName] > f.when
		f.notePath()
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

// newerThanPath reports whether the event is newer than the one that the path came from.
func (f *fold) newerThanPath() bool {
	if f.dated {
		return f.when > f.times[fieldPath]
	}
	return f.event.GetPath() == ""
}

// notePath notes that the event wrote the path, which replaces a path that was inherited up to the event's time.
func (f *fold) notePath() {
	f.placed = true
	f.after.UndatedPlaceAt = f.undatedAt()
	if in := f.after.GetInherited(); in.GetPathSince() != nil && (!f.dated || in.GetPathSince().GetAt() <= f.when) {
		f.after.Inherited = proto.CloneOf(in)
		f.after.Inherited.PathSince = nil
	}
}

// undatedAt is the arrival of an event without a time, 0 for one with a time.
func (f *fold) undatedAt() int64 {
	if f.dated {
		return 0
	}
	return arrivalTime(f.event)
}

// foldContent folds size, type and hash. A hash that is older than the size is of other content, and is removed.
func (f *fold) foldContent() {
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

// noteEvent sets what the row says of the newest event and the last actor.
func (f *fold) noteEvent() {
	s, e := f.after, f.event
	if !f.dated || s.LastAt == nil || f.when >= s.GetLastAt() {
		if f.dated {
			when := f.when // a new variable: the row before shares the pointer
			s.LastAt = &when
		}
		at := displayTime(e)
		if e.GetCause() != nil && at < s.GetUpdatedAt() {
			return // derived from an older event of the folder
		}
		s.LastEvent, s.LastEventId, s.UpdatedAt = e.GetEvent(), e.GetEventId(), &at
	}
	if actor := e.GetActorId(); actor != "" && f.newest(fieldActor) {
		s.ActorId = actor
	}
}

// text sets a text to the event's, unless a newer event wrote it. An absent value changes nothing.
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

// newest reports whether the event may write a field, and sets the field's time. Of equal times the later in the log
// wins. An event without a time counts as the newest and leaves the field's time as it is.
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

// foldStatus folds the status. Only some events write it: an update never restores a file.
func (f *fold) foldStatus() {
	s, at := f.after, displayTime(f.event)
	does := meaningOf(f.event.GetEvent()).does
	if does == change {
		return
	}
	f.noteStatus(does == trash)
	erased := f.own.status == tidemarkv1.Status_STATUS_ERASED
	inTrash := f.inheritedApplies() && s.GetInherited().GetTrashed()
	written := f.newest(fieldStatus)
	f.late = f.late || !written
	switch {
	case erased && (does == trash || !written):
		return // it stays a stub
	case !written:
	case does == trash && !f.dated && inTrash: // the provider repeats the folder's delete for each entry
	case does == trash:
		f.own.status, f.own.deletedAt = tidemarkv1.Status_STATUS_TRASHED, &at
		s.UndatedStatusAt = f.undatedAt()
	default:
		f.own.status, f.own.deletedAt = tidemarkv1.Status_STATUS_ACTIVE, nil
		s.UndatedStatusAt = f.undatedAt()
		s.Incomplete = s.GetIncomplete() || erased // a stub has lost its fields
		if inTrash && notOlder(&tidemarkv1.EventTime{At: f.when, Arrived: arrivalTime(f.event)},
			s.GetInherited().GetTrashedSince()) {
			s.Inherited = proto.CloneOf(s.GetInherited())
			s.Inherited.Trashed = false
		}
	}
	if does == create { // also when it is late
		s.Incomplete = false
		if s.CreatedAt == nil || at < s.GetCreatedAt() {
			s.CreatedAt = &at
		}
	}
}

// split returns the directory of the row's own path, and the last element as it is shown: the name, if it is newer than
// the path or there is no path.
func (f *fold) split() (dir, last string) {
	end := strings.LastIndexByte(f.own.path, '/') + 1
	dir, last = f.own.path[:end], f.own.path[end:]
	if f.after.GetRenamed() || f.own.path == "" {
		last = f.after.GetName()
	}
	return dir, last
}

// clone returns a shallow copy of a row, unknown fields included: what the fields point to is only ever replaced. It
// lists the fields because it is called for every event, and proto.CloneOf would copy the window of 6 kB. A test
// compares the two.
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
		Inheritable:     s.Inheritable,
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

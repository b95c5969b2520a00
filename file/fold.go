package file

import (
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A fold puts one event into a row.
type fold struct {
	after *tidemarkv1.FileState
	event *tidemarkv1.Event
	when  int64 // the sender's time
	dated bool
}

// begin returns the row that an event is folded into: a copy of the one before, or a new one. Of a new row nothing is known
// from before the event, and what is there unless an event says otherwise is active.
func begin(before *tidemarkv1.FileState, e *tidemarkv1.Event) *tidemarkv1.FileState {
	if before != nil {
		return clone(before)
	}
	return &tidemarkv1.FileState{
		WorkspaceId: e.GetWorkspaceId(),
		FileId:      e.GetFileId(),
		Status:      tidemarkv1.Status_STATUS_ACTIVE,
		Incomplete:  true,
	}
}

// groups folds the event group by group: within a file the sender's time decides, so that a retried webhook does not turn the
// state back. It returns whether a group was held back.
func (f *fold) groups() (late bool) {
	s, e := f.after, f.event
	late = !f.status()
	if s.GetStatus() == tidemarkv1.Status_STATUS_ERASED {
		// The stub of a file whose data was erased takes none back, unless the file itself comes back.
		return late || carriesPlace(e) || carriesContent(e)
	}
	if carriesPlace(e) {
		if f.newest(&s.PlaceAt) {
			set(&s.Name, e.GetName())
			set(&s.Path, e.GetPath())
			set(&s.ParentId, e.GetParentId())
		} else {
			late = true
		}
	}
	if carriesContent(e) {
		if f.newest(&s.ContentAt) {
			set(&s.Mime, e.GetMime())
			set(&s.Hash, e.GetHash())
			if e.Size != nil {
				size := e.GetSize()
				s.Size = &size
			}
		} else {
			late = true
		}
	}
	if f.newest(&s.LastAt) {
		at := happened(e)
		s.LastEvent, s.LastEventId, s.UpdatedAt = e.GetEvent(), e.GetEventId(), &at
		set(&s.ActorId, e.GetActorId())
	}
	return late
}

func carriesPlace(e *tidemarkv1.Event) bool {
	return e.GetName() != "" || e.GetPath() != "" || e.GetParentId() != ""
}

func carriesContent(e *tidemarkv1.Event) bool {
	return e.Size != nil || e.GetMime() != "" || e.GetHash() != ""
}

// set takes over a field that the event carries; an absent one leaves the state alone.
func set(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// newest says whether the event may write a group, whose time it then notes. Equal times go by the order of the log. An event
// without a time counts as newest and leaves the group's as it was.
func (f *fold) newest(groupAt **int64) bool {
	if !f.dated {
		return true
	}
	if *groupAt != nil && f.when < **groupAt {
		return false
	}
	when := f.when // never through the pointer: the row before shares it
	*groupAt = &when
	return true
}

// status folds the status group, which only some events write: an update never brings a file back. It returns false when the
// event came too late to.
func (f *fold) status() bool {
	s, at := f.after, happened(f.event)
	m := meaningOf(f.event.GetEvent())
	if m == change {
		return true
	}
	erased := s.GetStatus() == tidemarkv1.Status_STATUS_ERASED
	written := f.newest(&s.StatusAt)
	switch {
	case erased && (m == trash || !written):
		return written // the stub stays one: there is nothing left to show
	case written && m == trash:
		s.Status, s.DeletedAt = tidemarkv1.Status_STATUS_TRASHED, &at
	case written:
		s.Status, s.DeletedAt = tidemarkv1.Status_STATUS_ACTIVE, nil
		s.Incomplete = s.Incomplete || erased // what was known of it is gone
	}
	if m == create { // late or not, it tells how the file began
		s.Incomplete = false
		if s.CreatedAt == nil || at < s.GetCreatedAt() {
			s.CreatedAt = &at
		}
	}
	return written
}

// clone copies a row, but shares what its optional fields point to, its position and the window: they are replaced, never
// written to. Fields that this build does not know are kept.
func clone(s *tidemarkv1.FileState) *tidemarkv1.FileState {
	c := &tidemarkv1.FileState{
		WorkspaceId: s.WorkspaceId,
		FileId:      s.FileId,
		Name:        s.Name,
		Path:        s.Path,
		ParentId:    s.ParentId,
		Size:        s.Size,
		Mime:        s.Mime,
		Hash:        s.Hash,
		Status:      s.Status,
		Incomplete:  s.Incomplete,
		Version:     s.Version,
		Position:    s.Position,
		ActorId:     s.ActorId,
		LastEvent:   s.LastEvent,
		LastEventId: s.LastEventId,
		CreatedAt:   s.CreatedAt,
		UpdatedAt:   s.UpdatedAt,
		DeletedAt:   s.DeletedAt,
		LogId:       s.LogId,
		PlaceAt:     s.PlaceAt,
		ContentAt:   s.ContentAt,
		StatusAt:    s.StatusAt,
		Seen:        s.Seen,
		LastAt:      s.LastAt,
	}
	if unknown := s.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		c.ProtoReflect().SetUnknown(slices.Clip(unknown))
	}
	return c
}

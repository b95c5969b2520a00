package file

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Words of this file:
//
//   - A row's own fields are from its own events, the inherited ones from the folder that it is in.
//   - Shown is what clients see: it follows from both.
//   - The stamp of what a folder's entries inherit grows with each change of it. Of one folder, the highest is newest.
//   - above: the ids of the folders above a folder, nearest first.
//   - fromPath: the present or former path of the folder, if the row's own path is below it and the row was matched by
//     that. fromUntil is when the folder stopped having the path, nil if it still has it.
//   - A row is unplaced if its parent_id is newer than its own path, or if it has a parent_id and no own path. Only the
//     last element of the own path is still valid then.
//   - An undated event has no sender's time. undatedPlaceAt is the arrival of the event that last wrote the path, if
//     that was undated, else 0. undatedStatusAt is the same of the status.
//   - carriesPlace: the event has a name, a path or a parent_id.
//   - A silent event was folded and left the version as it was.

// maxFormer is how many former paths of a folder are remembered.
const maxFormer = 8

// inheritedApplies reports whether the row is still in the folder that it has inherited from.
func (f *fold) inheritedApplies() bool {
	s, in := f.after, f.after.GetInherited()
	if in.GetFromPath() != "" {
		return !s.GetUnplaced() && isBelow(f.own.path, in.GetFromPath()) && f.pathNotAfter(in.GetFromUntil())
	}
	return in != nil && in.GetFolderId() == s.GetParentId()
}

// pathNotAfter reports whether the row got its own path no later than until, the time when the folder stopped having
// that path. It is true if until is nil: the folder still has the path.
func (f *fold) pathNotAfter(until *tidemarkv1.EventTime) bool {
	return until == nil || overrules(until, f.times[fieldPath], f.after.GetUndatedPlaceAt())
}

// isBelow reports whether a path is below a folder's path.
func isBelow(path, folder string) bool {
	if folder == "" {
		return false
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(folder, "/"))
	return ok && strings.HasPrefix(rest, "/") && len(rest) > 1
}

func join(folder, rest string) string { return strings.TrimSuffix(folder, "/") + "/" + rest }

// notOlder reports whether a is not older than b: by the sender's times, or by arrival if one of them has no time.
func notOlder(a, b *tidemarkv1.EventTime) bool {
	if a.GetAt() == 0 || b.GetAt() == 0 {
		return a.GetArrived() >= b.GetArrived()
	}
	return a.GetAt() >= b.GetAt()
}

// overrules reports whether an inherited value, set at since, is as new as the row's own or newer. The own one was set
// at time at; undatedAt is the arrival of the event that set it if that was undated, else 0. False if since is nil.
//
// An undated event of the folder is newer than a dated one of the row. The rule for an event of the row that is later
// in the log than the folder's is applied before, and removes what that event replaces: see removeOverridden, notePath
// and foldStatus.
func overrules(since *tidemarkv1.EventTime, at, undatedAt int64) bool {
	switch {
	case since == nil:
		return false
	case undatedAt != 0:
		return since.GetArrived() >= undatedAt
	}
	return since.GetAt() == 0 || since.GetAt() >= at
}

// later returns the later of two times; b if they are equal.
func later(a, b *tidemarkv1.EventTime) *tidemarkv1.EventTime {
	if b == nil || a != nil && !notOlder(b, a) {
		return a
	}
	return b
}

func timeOf(e *tidemarkv1.Event) *tidemarkv1.EventTime {
	when, _ := orderTime(e)
	return &tidemarkv1.EventTime{At: when, Arrived: arrivalTime(e)}
}

// inherit folds what the entry of a folder inherits.
func (f *fold) inherit(in *tidemarkv1.Inherited) {
	s, old := f.after, f.after.GetInherited()
	applies := f.inheritedApplies()
	sameFolder := old.GetFolderId() == in.GetFolderId()
	sameOrNewer := old.GetStamp() > in.GetStamp() || old.GetStamp() == in.GetStamp() && applies
	matchedByID := in.GetFromPath() == "" // by parent_id, not by path
	onlyNowByID := matchedByID && old.GetFromPath() != ""
	switch {
	case s.GetStatus() == tidemarkv1.Status_STATUS_ERASED:
		return // a stub, the row of an erased file, inherits nothing
	case sameFolder && sameOrNewer && !onlyNowByID:
		return // the row has the same or a newer state of the folder
	case matchedByID && in.GetFolderId() != s.GetParentId():
		return // the entry has left the folder
	case !matchedByID && applies && nearer(old, in):
		return // the entry has inherited from a folder below that one
	}
	s.Inherited = in
}

// nearer reports whether the folder of a is nearer to the entry than that of b, which was matched by path.
func nearer(a, b *tidemarkv1.Inherited) bool {
	if a.GetFolderId() == b.GetFolderId() {
		return false
	}
	if a.GetFromPath() == "" || len(a.GetFromPath()) != len(b.GetFromPath()) {
		return a.GetFromPath() == "" || len(a.GetFromPath()) > len(b.GetFromPath())
	}
	return a.GetFolderId() > b.GetFolderId() // two folders had the same path: any fixed rule will do
}

// NearestFolder returns the folder with the longest present or former path that the entry's own path is below; nil if
// there is none. An entry without a known parent is in that folder.
func NearestFolder(folders []*tidemarkv1.FileState, entry *tidemarkv1.FileState) (nearest *tidemarkv1.FileState) {
	of, from := &fold{after: entry, times: timesOf(entry), own: ownOf(entry)}, ""
	for _, f := range folders {
		p, _ := of.fromPath(f)
		if p == "" || f.GetInheritable() == nil || f.GetFileId() == entry.GetFileId() {
			continue
		}
		if len(p) > len(from) || len(p) == len(from) && f.GetFileId() > nearest.GetFileId() {
			nearest, from = f, p
		}
	}
	return nearest
}

// setShown sets the path and the status that are shown, from the row's own fields and from what it has inherited.
func (f *fold) setShown() {
	s, in := f.after, f.after.GetInherited()
	applies := f.inheritedApplies()

	dir, last := f.split()
	known := applies && in.GetPath() != "" && last != ""
	s.Path, f.pathFromFolder = dir+last, known
	switch {
	case s.GetUnplaced() && known:
		s.Path = join(in.GetPath(), last)
	case s.GetUnplaced(), f.own.path == "":
		s.Path, f.pathFromFolder = "", false
	case !known || !overrules(in.GetPathSince(), f.times[fieldPath], s.GetUndatedPlaceAt()):
		f.pathFromFolder = false
	case in.GetFromPath() == "":
		s.Path = join(in.GetPath(), last)
	default:
		s.Path = join(in.GetPath(), dir[len(strings.TrimSuffix(in.GetFromPath(), "/"))+1:]+last)
	}
	s.OwnPath, s.PathParent = "", nil
	if s.GetUnplaced() || s.GetPath() != f.own.path {
		s.OwnPath = f.own.path
	}
	if f.own.path != "" && f.own.parent != s.GetParentId() {
		parent := f.own.parent
		s.PathParent = &parent
	}

	s.Status, s.DeletedAt = f.own.status, f.own.deletedAt
	s.OwnStatus, s.OwnDeletedAt = tidemarkv1.Status_STATUS_UNSPECIFIED, nil
	if status, deletedAt := f.shownStatus(applies); status != f.own.status || deletedAt != f.own.deletedAt {
		s.Status, s.DeletedAt, s.OwnStatus, s.OwnDeletedAt = status, deletedAt, f.own.status, f.own.deletedAt
	}
}

// shownStatus returns the status that clients see, and since when the row is in the trash:
//
//   - The folder is in the trash: trashed since the folder's delete.
//   - The same, but the row was deleted before the folder, or added or restored after the folder's delete: its own.
//   - The folder was restored, and the row was deleted between the folder's delete and restore: active. The row must
//     have been in the folder at its delete.
//   - Else, and always for an erased file: its own.
func (f *fold) shownStatus(applies bool) (tidemarkv1.Status, *int64) {
	s, in, own := f.after, f.after.GetInherited(), f.own
	trashed := own.status == tidemarkv1.Status_STATUS_TRASHED
	switch {
	case !applies || own.status == tidemarkv1.Status_STATUS_ERASED:
	case in.GetTrashed():
		if overrules(in.GetTrashedSince(), f.times[fieldStatus], s.GetUndatedStatusAt()) == trashed {
			break // deleted before the folder, or restored after it was deleted
		}
		at := in.GetTrashedSince().GetAt()
		if at == 0 {
			at = in.GetTrashedSince().GetArrived()
		}
		return tidemarkv1.Status_STATUS_TRASHED, &at
	case trashed && f.wasInFolder(in.GetTrashedSince()) &&
		between(in.GetTrashedSince(), in.GetRestoredSince(), f.times[fieldStatus], s.GetUndatedStatusAt()):
		return tidemarkv1.Status_STATUS_ACTIVE, nil
	}
	return own.status, own.deletedAt
}

// wasInFolder reports whether the row was in its folder when the folder was deleted.
func (f *fold) wasInFolder(deleted *tidemarkv1.EventTime) bool {
	placedBy := fieldParent
	if f.after.GetInherited().GetFromPath() != "" {
		placedBy = fieldPath
	}
	return deleted != nil && (deleted.GetAt() == 0 || f.times[placedBy] <= deleted.GetAt())
}

// between reports whether the row's own event came between the folder's delete (from) and restore (to). For at and
// undatedAt see overrules. False if one of the two is nil, or is undated while the row's event is dated.
func between(from, to *tidemarkv1.EventTime, at, undatedAt int64) bool {
	if from == nil || to == nil {
		return false
	}
	if undatedAt != 0 {
		return from.GetArrived() <= undatedAt && undatedAt <= to.GetArrived()
	}
	return from.GetAt() != 0 && from.GetAt() <= at && at <= to.GetAt()
}

// noteStatus sets in a folder's row when it was last deleted or restored.
func (f *fold) noteStatus(trashing bool) {
	if f.after.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	if trashing {
		f.after.TrashedSince = later(f.after.GetTrashedSince(), timeOf(f.event))
	} else {
		f.after.RestoredSince = later(f.after.GetRestoredSince(), timeOf(f.event))
	}
}

// setInheritable sets what a folder's entries inherit; was is what they inherited before the event.
func (f *fold) setInheritable(was *tidemarkv1.Inherited) {
	s, in := f.after, f.after.GetInherited()
	if s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	applies := f.inheritedApplies()
	g := &tidemarkv1.Inherited{
		FolderId:      s.GetFileId(),
		Stamp:         was.GetStamp(),
		Path:          s.GetPath(),
		PathSince:     f.pathSince(was.GetPathSince()),
		Trashed:       s.GetStatus() == tidemarkv1.Status_STATUS_TRASHED,
		TrashedSince:  s.GetTrashedSince(),
		RestoredSince: s.GetRestoredSince(),
	}
	s.Inheritable = g
	switch {
	case !applies:
	case g.GetTrashed() && f.own.status != tidemarkv1.Status_STATUS_TRASHED:
		g.TrashedSince, g.RestoredSince = in.GetTrashedSince(), in.GetRestoredSince()
	case g.GetTrashed() && in.GetTrashed():
		g.TrashedSince = later(in.GetTrashedSince(), g.GetTrashedSince())
	case !g.GetTrashed() && f.wasInFolder(in.GetTrashedSince()) &&
		notOlder(in.GetRestoredSince(), g.GetRestoredSince()):
		g.TrashedSince, g.RestoredSince = in.GetTrashedSince(), in.GetRestoredSince()
	}
	if applies {
		g.Above = append([]string{in.GetFolderId()}, in.GetAbove()...)
	}
}

// pathSince returns when a folder got its present path:
//
//   - Its own event wrote no path, name or parent: as before the event.
//   - Its own event wrote one of them and is undated: the time of that event, which is only its arrival.
//   - Else, the newest time of path, name and parent.
//   - If the folder above gives the path that is shown, the later of that time and of that folder's.
func (f *fold) pathSince(was *tidemarkv1.EventTime) *tidemarkv1.EventTime {
	s, derived := f.after, f.event.GetCause() != nil
	switch {
	case !derived && !f.placed:
		return was
	case !derived && !f.dated:
		return timeOf(f.event)
	}
	own := &tidemarkv1.EventTime{
		At:      max(f.times[fieldPath], f.times[fieldName], f.times[fieldParent]),
		Arrived: was.GetArrived(),
	}
	if !derived && own.GetAt() == f.when {
		own.Arrived = arrivalTime(f.event)
	}
	if f.pathFromFolder {
		return later(own, s.GetInherited().GetPathSince())
	}
	return own
}

// updateInheritable sets what a folder's entries inherit. If that changes, it gets a new stamp, and this event, at this
// position, becomes the cause.
func (f *fold) updateInheritable(before *tidemarkv1.FileState, at *tidemarkv1.Position) {
	s, e, was := f.after, f.event, before.GetInheritable()
	if s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	f.setInheritable(was)
	if was.GetPath() != "" && was.GetPath() != s.GetPath() {
		former := slices.DeleteFunc(slices.Clone(s.GetFormer()),
			func(p *tidemarkv1.FormerPath) bool { return p.GetPath() == was.GetPath() })
		former = append(former, &tidemarkv1.FormerPath{Path: was.GetPath(), Until: s.GetInheritable().GetPathSince()})
		s.Former = former[max(0, len(former)-maxFormer):]
	}
	if proto.Equal(s.GetInheritable(), was) {
		s.Inheritable = was
		return
	}
	s.Inheritable.Stamp = FoldCount(before) + 1
	if c := e.GetCause(); c != nil {
		s.Cause = proto.CloneOf(c)
		s.Cause.Inherited = nil
		return
	}
	s.Cause = &tidemarkv1.Cause{
		Event: e.GetEvent(), EventId: e.GetEventId(), Position: at, Time: timeOf(e), ActorId: e.GetActorId(),
	}
}

// FoldCount returns how many records were folded into a row. Version counts the events that gave the row a new version.
// Silent counts the events that did not, and the walk records. Of two rows of a file, the one with more is newer.
func FoldCount(s *tidemarkv1.FileState) int64 { return s.GetVersion() + s.GetSilent() }

// shownEqual reports whether clients see the same of two rows, except for the version and the last event.
func shownEqual(a, b *tidemarkv1.FileState) bool {
	return a.GetName() == b.GetName() && a.GetPath() == b.GetPath() && a.GetParentId() == b.GetParentId() &&
		a.GetMime() == b.GetMime() && a.GetHash() == b.GetHash() && a.GetSize() == b.GetSize() &&
		(a.Size == nil) == (b.Size == nil) &&
		a.GetStatus() == b.GetStatus() && a.GetIncomplete() == b.GetIncomplete() && a.GetKind() == b.GetKind() &&
		a.GetDeletedAt() == b.GetDeletedAt() && a.GetCreatedAt() == b.GetCreatedAt()
}

// OwnPath returns the path from the row's own events; empty if there is none or the parent is newer.
func OwnPath(s *tidemarkv1.FileState) string {
	if s.GetUnplaced() {
		return ""
	}
	return ownOf(s).path
}

// MatchesByPath reports whether entries may inherit from a folder because their path is below its own. It is true once
// the folder has had another path or has been in the trash, even if it was restored.
func MatchesByPath(s *tidemarkv1.FileState) bool {
	return s.GetKind() == tidemarkv1.Kind_KIND_FOLDER &&
		(len(s.GetFormer()) > 0 || s.GetInheritable().GetTrashedSince() != nil)
}

// ChangesPlaceOrStatus reports whether an event of the provider may change a row's name, path, parent or status.
func ChangesPlaceOrStatus(e *tidemarkv1.Event) bool {
	return carriesPlace(e) || meaningOf(e.GetEvent()).does != change
}

// ApplyWalk returns a folder's row after a walk record at a position, or nil if the row has that record already. A walk
// record (header tidemark-walk) is a cursor: it says after which child the files group goes on. See package processors.
func ApplyWalk(folder *tidemarkv1.FileState, at *tidemarkv1.Position, topicID string) *tidemarkv1.FileState {
	if folder.GetLogId() != topicID || folder.GetPosition().GetPartition() != at.GetPartition() ||
		alreadyFolded(folder, at, topicID) {
		return nil
	}
	after := clone(folder)
	after.Silent, after.SilentOffset = folder.GetSilent()+1, at.GetOffset()
	return after
}

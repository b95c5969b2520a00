package file

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// What happens to a folder reaches its entries, files and folders, as events of their own: see Pass. So the fold of an entry
// needs nothing but its row and its event, and a repeat of it gives the same bytes.

// maxFormer is how many former paths of a folder are remembered.
const maxFormer = 8

// inherits says whether what the row has inherited is still of the folder that it is in.
func (f *fold) inherits() bool {
	s, in := f.after, f.after.GetInherited()
	if in.GetFromPath() != "" {
		return !s.GetUnplaced() && within(f.own.path, in.GetFromPath()) && f.wasThere(in.GetFromUntil())
	}
	return in != nil && in.GetFolderId() == s.GetParentId()
}

// wasThere says whether the row's own path is not newer than the time until which a folder had a path; nil for one that it has.
func (f *fold) wasThere(until *tidemarkv1.Since) bool {
	return until == nil || overrules(until, f.times[fieldPath], f.after.GetUndatedPlaceAt())
}

// within says whether a path lies below a folder's.
func within(path, folder string) bool {
	if folder == "" {
		return false
	}
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(folder, "/"))
	return ok && strings.HasPrefix(rest, "/") && len(rest) > 1
}

func join(folder, rest string) string { return strings.TrimSuffix(folder, "/") + "/" + rest }

// notOlder says whether a is not older than b: by the sender's times, and where one of them has none by their arrival.
func notOlder(a, b *tidemarkv1.Since) bool {
	if a.GetAt() == 0 || b.GetAt() == 0 {
		return a.GetArrived() >= b.GetArrived()
	}
	return a.GetAt() >= b.GetAt()
}

// overrules says whether what the folder has given since then is shown in the place of what the row's own events say: those of a
// dated event at that time, or of one without a time that arrived undatedAt. An event of a folder without a time counts as the
// newest when it reaches the row.
func overrules(since *tidemarkv1.Since, at, undatedAt int64) bool {
	switch {
	case since == nil:
		return false
	case undatedAt != 0:
		return since.GetArrived() >= undatedAt
	}
	return since.GetAt() == 0 || since.GetAt() >= at
}

// newer returns the newer of two times; b when they are equal.
func newer(a, b *tidemarkv1.Since) *tidemarkv1.Since {
	if b == nil || a != nil && !notOlder(b, a) {
		return a
	}
	return b
}

func sinceOf(e *tidemarkv1.Event) *tidemarkv1.Since {
	when, _ := believed(e)
	return &tidemarkv1.Since{At: when, Arrived: arrival(e)}
}

// with returns a changed copy.
func with(in *tidemarkv1.Inherited, change func(*tidemarkv1.Inherited)) *tidemarkv1.Inherited {
	c := &tidemarkv1.Inherited{
		FolderId: in.GetFolderId(), Stamp: in.GetStamp(), Path: in.GetPath(), PathSince: in.GetPathSince(), FromPath: in.GetFromPath(),
		Trashed: in.GetTrashed(), TrashedSince: in.GetTrashedSince(), RestoredSince: in.GetRestoredSince(),
		Above: in.GetAbove(), FromUntil: in.GetFromUntil(),
	}
	change(c)
	return c
}

// inherit folds what a folder gives.
func (f *fold) inherit(in *tidemarkv1.Inherited) {
	s, held := f.after, f.after.GetInherited()
	switch {
	case s.GetStatus() == tidemarkv1.Status_STATUS_ERASED:
		return // a stub shows nothing
	case held.GetFolderId() == in.GetFolderId() && (held.GetStamp() > in.GetStamp() || held.GetStamp() == in.GetStamp() && f.inherits()) &&
		(held.GetFromPath() == "" || in.GetFromPath() != ""):
		return // it has this, or newer
	case in.GetFromPath() == "" && in.GetFolderId() != s.GetParentId():
		return // it has left the folder
	case in.GetFromPath() != "" && f.inherits() && nearer(held, in):
		return // it has what a folder below that one gives
	}
	s.Inherited = in
}

// nearer says whether a is of a folder that is nearer to the entry than that of b, which is known by its path alone.
func nearer(a, b *tidemarkv1.Inherited) bool {
	if a.GetFolderId() == b.GetFolderId() {
		return false
	}
	if a.GetFromPath() == "" || len(a.GetFromPath()) != len(b.GetFromPath()) {
		return a.GetFromPath() == "" || len(a.GetFromPath()) > len(b.GetFromPath())
	}
	return a.GetFolderId() > b.GetFolderId() // two folders that have had the same path: any fixed rule will do
}

// Nearest returns the folder whose path, present or former, is the longest that the entry's own path lies in; nil when it lies in
// none of them. It is the folder that an entry is in when the row of its parent is not known.
func Nearest(folders []*tidemarkv1.FileState, entry *tidemarkv1.FileState) (nearest *tidemarkv1.FileState) {
	of, from := &fold{after: entry, times: timesOf(entry), own: ownOf(entry)}, ""
	for _, f := range folders {
		p, _ := of.fromPath(f)
		if p == "" || f.GetGives() == nil || f.GetFileId() == entry.GetFileId() {
			continue
		}
		if len(p) > len(from) || len(p) == len(from) && f.GetFileId() > nearest.GetFileId() {
			nearest, from = f, p
		}
	}
	return nearest
}

// derive sets what is shown: path, status and what follows from them, out of the row's own fields and what it has inherited.
func (f *fold) derive() {
	s, in := f.after, f.after.GetInherited()
	applies := f.inherits()

	dir, last := f.split()
	known := applies && in.GetPath() != "" && last != ""
	s.Path, f.follows = dir+last, known
	switch {
	case s.GetUnplaced() && known:
		s.Path = join(in.GetPath(), last)
	case s.GetUnplaced(), f.own.path == "":
		s.Path, f.follows = "", false
	case !known || !overrules(in.GetPathSince(), f.times[fieldPath], s.GetUndatedPlaceAt()):
		f.follows = false
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

// shownStatus is the status of the row's own events, unless it is in a folder in the trash, or was deleted while it was: then it is
// as the folder is.
func (f *fold) shownStatus(applies bool) (tidemarkv1.Status, *int64) {
	s, in, own := f.after, f.after.GetInherited(), f.own
	trashed := own.status == tidemarkv1.Status_STATUS_TRASHED
	switch {
	case !applies || own.status == tidemarkv1.Status_STATUS_ERASED:
	case in.GetTrashed():
		if overrules(in.GetTrashedSince(), f.times[fieldStatus], s.GetUndatedStatusAt()) == trashed {
			break // deleted before the folder was, or brought back since
		}
		at := in.GetTrashedSince().GetAt()
		if at == 0 {
			at = in.GetTrashedSince().GetArrived()
		}
		return tidemarkv1.Status_STATUS_TRASHED, &at
	case trashed && f.wasIn(in.GetTrashedSince()) && between(in.GetTrashedSince(), in.GetRestoredSince(), f.times[fieldStatus], s.GetUndatedStatusAt()):
		return tidemarkv1.Status_STATUS_ACTIVE, nil
	}
	return own.status, own.deletedAt
}

// wasIn says whether the row was in its folder already when that was deleted.
func (f *fold) wasIn(deleted *tidemarkv1.Since) bool {
	in := fieldParent
	if f.after.GetInherited().GetFromPath() != "" {
		in = fieldPath
	}
	return deleted != nil && (deleted.GetAt() == 0 || f.times[in] <= deleted.GetAt())
}

// between says whether a row's own event came between two of its folder.
func between(from, to *tidemarkv1.Since, at, undatedAt int64) bool {
	if from == nil || to == nil {
		return false
	}
	if undatedAt != 0 {
		return from.GetArrived() <= undatedAt && undatedAt <= to.GetArrived()
	}
	return from.GetAt() != 0 && from.GetAt() <= at && at <= to.GetAt()
}

// noteStatus notes in a folder's row when it was deleted or restored last.
func (f *fold) noteStatus(trashing bool) {
	if f.after.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	if trashing {
		f.after.TrashedSince = newer(f.after.GetTrashedSince(), sinceOf(f.event))
	} else {
		f.after.RestoredSince = newer(f.after.GetRestoredSince(), sinceOf(f.event))
	}
}

// given sets what a folder gives to its entries.
func (f *fold) given(was *tidemarkv1.Inherited) {
	s, in := f.after, f.after.GetInherited()
	if s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	applies := f.inherits()
	s.Gives = with(was, func(g *tidemarkv1.Inherited) {
		g.FolderId, g.Path, g.Trashed = s.GetFileId(), s.GetPath(), s.GetStatus() == tidemarkv1.Status_STATUS_TRASHED
		g.TrashedSince, g.RestoredSince = s.GetTrashedSince(), s.GetRestoredSince()
		switch {
		case !applies:
		case g.GetTrashed() && f.own.status != tidemarkv1.Status_STATUS_TRASHED:
			g.TrashedSince, g.RestoredSince = in.GetTrashedSince(), in.GetRestoredSince()
		case g.GetTrashed() && in.GetTrashed():
			g.TrashedSince = newer(in.GetTrashedSince(), g.GetTrashedSince())
		case !g.GetTrashed() && f.wasIn(in.GetTrashedSince()) && notOlder(in.GetRestoredSince(), g.GetRestoredSince()):
			g.TrashedSince, g.RestoredSince = in.GetTrashedSince(), in.GetRestoredSince()
		}
		g.PathSince, g.Above = f.pathSince(was.GetPathSince()), nil
		if applies {
			g.Above = append([]string{in.GetFolderId()}, in.GetAbove()...)
		}
	})
}

// pathSince returns since when a folder's path is what it is.
func (f *fold) pathSince(was *tidemarkv1.Since) *tidemarkv1.Since {
	s, passed := f.after, f.event.GetCause() != nil
	switch {
	case !passed && !f.placed:
		return was
	case !passed && !f.dated:
		return sinceOf(f.event)
	}
	own := &tidemarkv1.Since{At: max(f.times[fieldPath], f.times[fieldName], f.times[fieldParent]), Arrived: was.GetArrived()}
	if !passed && own.GetAt() == f.when {
		own.Arrived = arrival(f.event)
	}
	if f.follows {
		return newer(own, s.GetInherited().GetPathSince())
	}
	return own
}

// give sets what a folder gives to its entries. When that changes it gets a new stamp, and the event at this position is the cause.
func (f *fold) give(before *tidemarkv1.FileState, at *tidemarkv1.Position) {
	s, e, was := f.after, f.event, before.GetGives()
	if s.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
		return
	}
	f.given(was)
	if was.GetPath() != "" && was.GetPath() != s.GetPath() {
		former := slices.DeleteFunc(slices.Clone(s.GetFormer()), func(p *tidemarkv1.FormerPath) bool { return p.GetPath() == was.GetPath() })
		former = append(former, &tidemarkv1.FormerPath{Path: was.GetPath(), Until: s.GetGives().GetPathSince()})
		s.Former = former[max(0, len(former)-maxFormer):]
	}
	if proto.Equal(s.GetGives(), was) {
		s.Gives = was
		return
	}
	s.Gives.Stamp = Folded(before) + 1
	s.Cause = &tidemarkv1.Cause{Event: e.GetEvent(), EventId: e.GetEventId(), Position: at, Since: sinceOf(e), ActorId: e.GetActorId()}
	if c := e.GetCause(); c != nil {
		s.Cause = causeOf(c, nil)
	}
}

// Folded counts the events that were folded into a row: of two rows of a file, the one with more of them is newer.
func Folded(s *tidemarkv1.FileState) int64 { return s.GetVersion() + s.GetSilent() }

// sameShown says whether two rows show the same, but for the version and what is said of the last event.
func sameShown(a, b *tidemarkv1.FileState) bool {
	return a.GetName() == b.GetName() && a.GetPath() == b.GetPath() && a.GetParentId() == b.GetParentId() &&
		a.GetMime() == b.GetMime() && a.GetHash() == b.GetHash() && a.GetSize() == b.GetSize() && (a.Size == nil) == (b.Size == nil) &&
		a.GetStatus() == b.GetStatus() && a.GetIncomplete() == b.GetIncomplete() && a.GetKind() == b.GetKind() &&
		a.GetDeletedAt() == b.GetDeletedAt() && a.GetCreatedAt() == b.GetCreatedAt()
}

// OwnPath returns the path that the row's own events gave; empty when its parent is newer, or there was none.
func OwnPath(s *tidemarkv1.FileState) string {
	if s.GetUnplaced() {
		return ""
	}
	return ownOf(s).path
}

// Passes says whether a folder may give something to entries that are known to be in it by their path alone: not before it was
// moved or in the trash.
func Passes(s *tidemarkv1.FileState) bool {
	return s.GetKind() == tidemarkv1.Kind_KIND_FOLDER && (len(s.GetFormer()) > 0 || s.GetGives().GetTrashedSince() != nil)
}

// Places says whether an event of the provider may change where a row is, or whether it is in the trash.
func Places(e *tidemarkv1.Event) bool {
	return carriesPlace(e) || meaningOf(e.GetEvent()).does != change
}

// Visited returns a folder's row after a record at a position that goes on with its entries, nil when the row has passed that.
func Visited(folder *tidemarkv1.FileState, at *tidemarkv1.Position, logID string) *tidemarkv1.FileState {
	if folder.GetLogId() != logID || folder.GetPosition().GetPartition() != at.GetPartition() || passed(folder, at, logID) {
		return nil
	}
	after := clone(folder)
	after.Silent, after.SilentOffset = folder.GetSilent()+1, at.GetOffset()
	return after
}

package file

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Pass returns the event by which an entry takes over what a folder gives; nil when nothing shown of the entry would change, or
// the folder is not the one that it is in. An entry is in the folder that its parent_id names; where that one's row is not known,
// the caller may ask with a folder that the path lies in, now or formerly.
//
// After an event of the entry, which then lies behind the folder's in the log, that event is given: what it wrote gives way only to
// something later by the sender's time.
func Pass(folder, entry *tidemarkv1.FileState, after *tidemarkv1.Event) *tidemarkv1.Event {
	cause := folder.GetCause()
	above := folder.GetGives().GetAbove()
	if folder.GetGives() == nil || entry == nil || entry.GetFileId() == folder.GetFileId() || slices.Contains(above, entry.GetFileId()) ||
		entry.GetKind() == tidemarkv1.Kind_KIND_FOLDER && len(above) >= maxDepth {
		return nil
	}
	f := &fold{after: clone(entry), event: &tidemarkv1.Event{Cause: cause}, times: timesOf(entry), own: ownOf(entry)}
	in := with(folder.GetGives(), func(in *tidemarkv1.Inherited) {
		if entry.GetParentId() != folder.GetFileId() {
			in.FromPath, in.FromUntil = f.fromPath(folder)
		}
		if entry.GetKind() != tidemarkv1.Kind_KIND_FOLDER {
			in.Above = nil
		}
		if after != nil {
			yield(in, after)
		}
	})
	if entry.GetParentId() != folder.GetFileId() && in.GetFromPath() == "" {
		return nil
	}
	if f.inherit(in); f.after.GetInherited() == entry.GetInherited() {
		return nil
	}
	f.derive()
	f.given(entry.GetGives())
	if sameShown(entry, f.after) && proto.Equal(entry.GetGives(), f.after.GetGives()) {
		return nil
	}
	e := &tidemarkv1.Event{
		Event: passedAs(cause.GetEvent(), entry, f.after), EventId: passedID(cause.GetEventId(), entry),
		WorkspaceId: entry.GetWorkspaceId(), FileId: entry.GetFileId(), Path: f.after.GetPath(), ActorId: cause.GetActorId(),
		ReceivedAt: cause.GetSince().GetArrived(),
		Cause:      causeOf(cause, in),
	}
	if at := cause.GetSince().GetAt(); at != 0 {
		e.OccurredAt = &at
	}
	return e
}

func causeOf(c *tidemarkv1.Cause, in *tidemarkv1.Inherited) *tidemarkv1.Cause {
	return &tidemarkv1.Cause{
		Event: c.GetEvent(), EventId: c.GetEventId(), Position: c.GetPosition(), Since: c.GetSince(), ActorId: c.GetActorId(),
		Inherited: in,
	}
}

// fromPath returns the longest of a folder's paths, present and former, that the row's own path lies in and until when the folder had
// it, nil for the present one; empty when it is none. A path that is newer than the folder's leaving is in another folder.
func (f *fold) fromPath(folder *tidemarkv1.FileState) (from string, until *tidemarkv1.Since) {
	if within(f.own.path, folder.GetPath()) {
		from = folder.GetPath()
	}
	for _, p := range folder.GetFormer() {
		if len(p.GetPath()) > len(from) && within(f.own.path, p.GetPath()) && f.wasThere(p.GetUntil()) {
			from, until = p.GetPath(), p.GetUntil()
		}
	}
	return from, until
}

// maxDepth is how many folders may be above one that takes over what its folder gives: all of them are in its row.
const maxDepth = 128

// yield takes out of what a folder gives what an event of the entry, later in the log, has said itself: of equal times, and where
// one of the two has none, the later in the log decides.
func yield(in *tidemarkv1.Inherited, e *tidemarkv1.Event) {
	when, dated := believed(e)
	gone := func(since *tidemarkv1.Since) bool { return !dated || since.GetAt() <= when }
	if e.GetPath() != "" && gone(in.GetPathSince()) {
		in.PathSince = nil
	}
	if meaningOf(e.GetEvent()).does != change && in.GetTrashed() && gone(in.GetTrashedSince()) {
		in.Trashed = false
	}
}

// passedAs names what happens to an entry, in the folder's scope.
func passedAs(event string, before, after *tidemarkv1.FileState) string {
	scope := "workspace_storage_"
	if strings.HasPrefix(event, "share_storage_") {
		scope = "share_storage_"
	}
	kind, what := "file_", "moved"
	if after.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
		kind = "folder_"
	}
	switch {
	case before.GetStatus() == after.GetStatus():
	case after.GetStatus() == tidemarkv1.Status_STATUS_TRASHED:
		what = "deleted"
	default:
		what = "restored"
	}
	return scope + kind + what
}

// maxID is how long an event's id may be, in bytes.
const maxID = 256

// passedID returns the id of what an event of a folder does to an entry: "folder event/entry", the same at each attempt. When the
// entry has had that already, and lost it since, what it has been through is added.
func passedID(folderEvent string, entry *tidemarkv1.FileState) string {
	id := short(folderEvent + "/" + entry.GetFileId())
	if Remembers(entry, id) {
		return short(fmt.Sprintf("%s/%d", id, Folded(entry)))
	}
	return id
}

// short returns an id as it is, or the hash of one that is too long.
func short(id string) string {
	if len(id) <= maxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "folder/" + hex.EncodeToString(sum[:])
}

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

// Derive returns the event by which an entry inherits from a folder; nil if that would change nothing that is shown, or
// the entry is not in the folder. An entry is in the folder that its parent_id names. If there is no row of that
// folder, the caller may pass a folder whose present or former path the entry's path is below.
//
// If the entry has just folded an event of its own, the caller passes it as own. It is later in the log than the
// folder's event, so only a later sender's time replaces what it wrote.
func Derive(folder, entry *tidemarkv1.FileState, own *tidemarkv1.Event) *tidemarkv1.Event {
	cause := folder.GetCause()
	above := folder.GetInheritable().GetAbove()
	isFolder := entry.GetKind() == tidemarkv1.Kind_KIND_FOLDER
	if folder.GetInheritable() == nil || entry == nil || entry.GetFileId() == folder.GetFileId() ||
		slices.Contains(above, entry.GetFileId()) || isFolder && len(above) >= maxDepth {
		return nil
	}
	f := &fold{
		after: clone(entry), event: &tidemarkv1.Event{Cause: cause}, times: timesOf(entry), own: ownOf(entry),
	}
	in := proto.CloneOf(folder.GetInheritable())
	if entry.GetParentId() != folder.GetFileId() {
		if in.FromPath, in.FromUntil = f.fromPath(folder); in.GetFromPath() == "" {
			return nil
		}
	}
	if !isFolder {
		in.Above = nil
	}
	if own != nil {
		removeOverridden(in, own)
	}
	if f.inherit(in); f.after.GetInherited() == entry.GetInherited() {
		return nil
	}
	f.setShown()
	f.setInheritable(entry.GetInheritable())
	if shownEqual(entry, f.after) && proto.Equal(entry.GetInheritable(), f.after.GetInheritable()) {
		return nil
	}
	e := &tidemarkv1.Event{
		Event:       derivedName(cause.GetEvent(), entry, f.after),
		EventId:     derivedID(cause.GetEventId(), entry),
		WorkspaceId: entry.GetWorkspaceId(),
		FileId:      entry.GetFileId(),
		Path:        f.after.GetPath(),
		ActorId:     cause.GetActorId(),
		ReceivedAt:  cause.GetTime().GetArrived(),
		Cause:       proto.CloneOf(cause),
	}
	if e.Cause == nil { // a row that tidemark did not write
		e.Cause = new(tidemarkv1.Cause)
	}
	e.Cause.Inherited = in
	if at := cause.GetTime().GetAt(); at != 0 {
		e.OccurredAt = &at
	}
	return e
}

// fromPath returns the longest of a folder's present and former paths that the row's own path is below, and when the
// folder lost it, nil for the present one. It is empty if there is none. A path that is newer than the move of the
// folder is in another folder.
func (f *fold) fromPath(folder *tidemarkv1.FileState) (from string, until *tidemarkv1.EventTime) {
	if isBelow(f.own.path, folder.GetPath()) {
		from = folder.GetPath()
	}
	for _, p := range folder.GetFormer() {
		if len(p.GetPath()) > len(from) && isBelow(f.own.path, p.GetPath()) && f.pathNotAfter(p.GetUntil()) {
			from, until = p.GetPath(), p.GetUntil()
		}
	}
	return from, until
}

// maxDepth is the maximum number of folders above a folder that inherits. Its row lists all of them.
const maxDepth = 128

// removeOverridden removes from in what an event of the entry, later in the log than the folder's, set itself. Of equal
// times, and if one of the two events has no time, the later in the log wins.
func removeOverridden(in *tidemarkv1.Inherited, e *tidemarkv1.Event) {
	when, dated := orderTime(e)
	overridden := func(since *tidemarkv1.EventTime) bool { return !dated || since.GetAt() <= when }
	if e.GetPath() != "" && overridden(in.GetPathSince()) {
		in.PathSince = nil
	}
	if meaningOf(e.GetEvent()).does != change && in.GetTrashed() && overridden(in.GetTrashedSince()) {
		in.Trashed = false
	}
}

// derivedName returns the name of the event by which an entry changes, in the scope of the folder's event.
func derivedName(event string, before, after *tidemarkv1.FileState) string {
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

// maxID is the maximum length of an event's id, in bytes.
const maxID = 256

// derivedID returns the id of the event that a folder's event leads to for an entry: "folder event id/entry", the same
// at each attempt. If the entry has folded an event with that id before, its count of events is appended.
func derivedID(folderEvent string, entry *tidemarkv1.FileState) string {
	id := shortID(folderEvent + "/" + entry.GetFileId())
	if Remembers(entry, id) {
		return shortID(fmt.Sprintf("%s/%d", id, FoldCount(entry)))
	}
	return id
}

// shortID returns the id, or its hash if it is too long.
func shortID(id string) string {
	if len(id) <= maxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "folder/" + hex.EncodeToString(sum[:])
}

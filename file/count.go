package file

import (
	"maps"
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// untyped is the type of files whose MIME type is not known.
const untyped = "unknown"

// Count folds a notice into the numbers of its workspace; before is nil for a workspace never seen, and logID is the id of the
// events topic. When the notice must not count, since its position was counted already or it has none, done is false and after
// is before.
//
// Notices may come more than once, and in another order after a failed send: 10, 12, 11, 12. Each is counted once, and the
// sum does not depend on the order.
func Count(before *tidemarkv1.WorkspaceState, n *tidemarkv1.Notice, logID string) (after *tidemarkv1.WorkspaceState, done bool) {
	if n.GetPosition() == nil || n.GetWorkspaceId() == "" {
		return before, false
	}
	after = cloneWorkspace(before, n, logID)
	if !countOffset(after, n.GetPosition().GetOffset()) {
		return before, false
	}
	if after.GetPosition() == nil || n.GetPosition().GetOffset() > after.GetPosition().GetOffset() {
		after.Position = n.GetPosition()
	}
	after.Version++
	if n.GetCause() == nil { // else it follows from an event that was counted
		after.Events++
	}
	if at := n.GetAt(); after.LastEventAt == nil || at > after.GetLastEventAt() {
		after.LastEventAt = &at
	}
	weigh(after, n.GetBefore(), n.GetAfter())
	if n.GetMember() != nil {
		after.Members = enter(after.GetMembers(), n.GetMember(), n.GetPosition().GetOffset())
	}
	return after, true
}

// weigh takes a file as it was out of the numbers and puts it in as it is.
func weigh(w *tidemarkv1.WorkspaceState, before, after *tidemarkv1.FileState) {
	if isTrashed(before) {
		w.Trashed--
	}
	if isTrashed(after) {
		w.Trashed++
	}
	was, is := typeOf(before), typeOf(after)
	if was != is {
		w.ByType = maps.Clone(w.GetByType()) // the row before has the same map
		if w.ByType == nil {
			w.ByType = make(map[string]int64)
		}
	}
	if was != "" {
		w.Files--
		w.Bytes -= before.GetSize()
		addType(w, was, is, -1)
	}
	if is != "" {
		w.Files++
		w.Bytes += after.GetSize()
		addType(w, is, was, +1)
	}
}

// addType adds to the number of a type, unless the same file is taken out of it and put into it.
//
// A type that has a number keeps it, at 0 too, and once there are maxTypes none is added. So a type has its own number from its
// first notice on or never, and what a file was put into it is taken out of, in whatever order notices come.
func addType(w *tidemarkv1.WorkspaceState, mime, other string, by int64) {
	if mime == other {
		return
	}
	if _, known := w.ByType[mime]; !known && mime != untyped && named(w) >= maxTypes {
		mime = otherType
	}
	w.ByType[mime] += by
}

// named is how many types have a number, without those that always may have one.
func named(w *tidemarkv1.WorkspaceState) int {
	n := len(w.GetByType())
	for _, always := range [...]string{untyped, otherType} {
		if _, there := w.GetByType()[always]; there {
			n--
		}
	}
	return n
}

func isTrashed(s *tidemarkv1.FileState) bool {
	return s.GetStatus() == tidemarkv1.Status_STATUS_TRASHED && s.GetKind() != tidemarkv1.Kind_KIND_FOLDER
}

// typeOf is what an active file is counted as; any other file, and a folder, counts as nothing.
func typeOf(s *tidemarkv1.FileState) string {
	switch {
	case s.GetStatus() != tidemarkv1.Status_STATUS_ACTIVE, s.GetKind() == tidemarkv1.Kind_KIND_FOLDER:
		return ""
	}
	return countedType(s.GetMime())
}

// countedType is the name that a MIME type is counted under: in lower case, without its parameters.
func countedType(mime string) string {
	mime, _, _ = strings.Cut(mime, ";")
	switch mime = strings.ToLower(strings.TrimSpace(mime)); {
	case mime == "":
		return untyped
	case len(mime) > maxTypeBytes:
		return otherType
	}
	return mime
}

// foldTypes returns the numbers of a row that was written when types were counted as they were sent.
func foldTypes(byType map[string]int64) map[string]int64 {
	folded := make(map[string]int64, len(byType))
	for mime, n := range byType {
		folded[countedType(mime)] += n
	}
	return folded
}

// How many types are counted under their own names, and how long such a name may be: no registered type is longer. With all
// of them, and maxMembers, the row is smaller than a record may be; a larger one would end its group for ever.
const (
	maxTypes     = 1000
	maxTypeBytes = 255
	otherType    = "other"
)

// cloneWorkspace copies a row as clone does that of a file, and readies it for the log: offsets of another log say nothing
// in this one.
func cloneWorkspace(w *tidemarkv1.WorkspaceState, n *tidemarkv1.Notice, logID string) *tidemarkv1.WorkspaceState {
	if w == nil {
		return &tidemarkv1.WorkspaceState{WorkspaceId: n.GetWorkspaceId(), LogId: logID, FoldedTypes: true}
	}
	c := &tidemarkv1.WorkspaceState{
		WorkspaceId:  w.WorkspaceId,
		Files:        w.Files,
		Bytes:        w.Bytes,
		Trashed:      w.Trashed,
		ByType:       w.ByType,
		Members:      w.Members,
		Events:       w.Events,
		LastEventAt:  w.LastEventAt,
		Position:     w.Position,
		LogId:        w.LogId,
		Version:      w.Version,
		Applied:      w.Applied,
		AppliedFrom:  w.AppliedFrom,
		AppliedCount: w.AppliedCount,
		FoldedTypes:  true,
	}
	if !w.GetFoldedTypes() {
		c.ByType = foldTypes(w.GetByType())
	}
	if unknown := w.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		c.ProtoReflect().SetUnknown(slices.Clip(unknown))
	}
	if c.LogId != logID || c.GetPosition().GetPartition() != n.GetPosition().GetPartition() {
		c.LogId, c.Position = logID, nil
		c.Applied, c.AppliedFrom, c.AppliedCount = nil, 0, 0
		c.Members = forgetOffsets(c.Members)
	}
	return c
}

package file

import (
	"maps"
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// untyped is the type of files without a MIME type.
const untyped = "unknown"

// Count folds a notice into the row of its workspace. before is nil for a new workspace, and topicID is the id of the
// events topic. If the notice's position was counted already, or it has none, done is false and after is before.
//
// Notices may be repeated and reordered after a failed send: 10, 12, 11, 12. Each is counted once, and the sums do not
// depend on the order.
func Count(before *tidemarkv1.WorkspaceState, n *tidemarkv1.Notice, topicID string) (after *tidemarkv1.WorkspaceState,
	done bool,
) {
	if n.GetPosition() == nil || n.GetWorkspaceId() == "" {
		return before, false
	}
	after = cloneWorkspace(before, n, topicID)
	if !addOffset(after, n.GetPosition().GetOffset()) {
		return before, false
	}
	if after.GetPosition() == nil || n.GetPosition().GetOffset() > after.GetPosition().GetOffset() {
		after.Position = n.GetPosition()
	}
	after.Version++
	if n.GetCause() == nil { // a derived event is not counted: the folder's was
		after.Events++
	}
	if at := n.GetAt(); after.LastEventAt == nil || at > after.GetLastEventAt() {
		after.LastEventAt = &at
	}
	updateTotals(after, n.GetBefore(), n.GetAfter())
	if n.GetMember() != nil {
		after.Members = putMember(after.GetMembers(), n.GetMember(), n.GetPosition().GetOffset())
	}
	return after, true
}

// updateTotals is replaceFile on a row that shares its counters of types.
func updateTotals(w *tidemarkv1.WorkspaceState, before, after *tidemarkv1.FileState) {
	if TypeOf(before) != TypeOf(after) {
		w.ByType = maps.Clone(w.GetByType())
		if w.ByType == nil {
			w.ByType = make(map[string]int64)
		}
	}
	replaceFile(w, before, after)
}

// replaceFile subtracts a file as it was and adds it as it is.
func replaceFile(w *tidemarkv1.WorkspaceState, before, after *tidemarkv1.FileState) {
	if isTrashed(before) {
		w.Trashed--
	}
	if isTrashed(after) {
		w.Trashed++
	}
	was, is := TypeOf(before), TypeOf(after)
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

// addType adds to the counter of a type, unless the file's type is unchanged.
//
// A type keeps its counter, also at 0, and no counter is added once there are maxTypes. So a type has a counter from
// its first notice on or never, and a file is subtracted from the counter that it was added to, in any order of
// notices.
func addType(w *tidemarkv1.WorkspaceState, mime, other string, by int64) {
	if mime == other {
		return
	}
	if _, known := w.ByType[mime]; !known && mime != untyped && namedTypes(w) >= maxTypes {
		mime = otherType
	}
	w.ByType[mime] += by
}

// namedTypes returns the number of types with a counter, without untyped and otherType, which may always have one.
func namedTypes(w *tidemarkv1.WorkspaceState) int {
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

// TypeOf returns the type that an active file is counted under, empty for any other file and for a folder.
func TypeOf(s *tidemarkv1.FileState) string {
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

// foldTypes converts the counters of a row in which types are as they were sent.
func foldTypes(byType map[string]int64) map[string]int64 {
	folded := make(map[string]int64, len(byType))
	for mime, n := range byType {
		folded[countedType(mime)] += n
	}
	return folded
}

// The maximum number of types with a counter, and of bytes of their names: no registered type is longer. With all of
// them, and maxMembers, the row is smaller than the largest record, on which the group would fail.
const (
	maxTypes     = 1000
	maxTypeBytes = 255
	otherType    = "other"
)

// cloneWorkspace copies a row, like clone, and removes the offsets if they are of another topic or partition than the
// notice's.
func cloneWorkspace(w *tidemarkv1.WorkspaceState, n *tidemarkv1.Notice, topicID string) *tidemarkv1.WorkspaceState {
	if w == nil {
		return &tidemarkv1.WorkspaceState{WorkspaceId: n.GetWorkspaceId(), LogId: topicID, FoldedTypes: true}
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
	if c.LogId != topicID || c.GetPosition().GetPartition() != n.GetPosition().GetPartition() {
		c.LogId, c.Position = topicID, nil
		c.Applied, c.AppliedFrom, c.AppliedCount = nil, 0, 0
		c.Members = forgetOffsets(c.Members)
	}
	return c
}

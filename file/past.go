package file

import (
	"maps"
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Past computes the counts of a workspace as they were before its newest notices.
type Past struct {
	row     *tidemarkv1.WorkspaceState
	offsets []int64 // that the row has counted
	notices int64   // that are counted in the result
}

// NewPast begins with a row of the workspaces table.
func NewPast(w *tidemarkv1.WorkspaceState) *Past {
	row := &tidemarkv1.WorkspaceState{
		WorkspaceId: w.GetWorkspaceId(), Files: w.GetFiles(), Bytes: w.GetBytes(), Trashed: w.GetTrashed(),
		Events: w.GetEvents(), FoldedTypes: true,
	}
	if row.ByType = maps.Clone(w.GetByType()); row.ByType == nil {
		row.ByType = map[string]int64{}
	}
	if !w.GetFoldedTypes() {
		row.ByType = foldTypes(w.GetByType())
	}
	return &Past{row: row, offsets: AppliedOffsets(w), notices: w.GetVersion()}
}

// Counted reports whether the row has counted the notice at an offset, which is not after its position.
func (p *Past) Counted(offset int64) bool {
	at, found := slices.BinarySearch(p.offsets, offset)
	return found || at == 0 && len(p.offsets) >= maxApplied
}

// Remembered returns how many offsets after a given one the row has counted, of those that it remembers.
func (p *Past) Remembered(after int64) int {
	at, found := slices.BinarySearch(p.offsets, after)
	if found {
		at++
	}
	return len(p.offsets) - at
}

// Undo subtracts a notice that the row has counted. It is the inverse of Count, in any order of notices: a type keeps
// the counter that it was counted in.
func (p *Past) Undo(n *tidemarkv1.Notice) {
	replaceFile(p.row, n.GetAfter(), n.GetBefore())
	if n.GetCause() == nil {
		p.row.Events--
	}
	p.notices--
}

// Counts returns the result. It has files, bytes, trashed, by type, and events; nil before the workspace's first
// notice.
func (p *Past) Counts() *tidemarkv1.WorkspaceState {
	if p.notices <= 0 {
		return nil
	}
	return p.row
}

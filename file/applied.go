package file

import (
	"encoding/binary"
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxApplied is how many offsets a workspace remembers. The files group keeps fewer outputs than that unacknowledged in a
// partition, so an offset that comes for the first time is never older than all of a full memory.
const maxApplied = 1024

// countOffset enters an offset into the row's memory, which w must own but not the bytes of. It returns false for one that is
// there, and for one older than all of a full memory: that one was counted and let go, or else cannot be told from such.
func countOffset(w *tidemarkv1.WorkspaceState, offset int64) bool {
	last := w.GetAppliedFrom()
	if w.GetAppliedCount() > 0 {
		last = w.GetPosition().GetOffset()
	}
	if w.GetAppliedCount() == 0 || offset > last { // nearly always
		append1(w, offset, last)
		return true
	}
	offsets := AppliedOffsets(w)
	at, found := slices.BinarySearch(offsets, offset)
	full := len(offsets) >= maxApplied
	if found || at == 0 && full {
		return false
	}
	offsets = slices.Insert(offsets, at, offset)
	from := min(w.GetAppliedFrom(), offset)
	if full {
		from, offsets = offsets[0], offsets[1:]
	}
	SetApplied(w, from, offsets)
	return true
}

// SetApplied makes offsets, which ascend from from, what the row remembers as counted. It keeps no part of them.
func SetApplied(w *tidemarkv1.WorkspaceState, from int64, offsets []int64) {
	w.AppliedFrom, w.AppliedCount = from, int32(len(offsets))
	w.Applied = make([]byte, 0, len(w.GetApplied())+binary.MaxVarintLen64)
	for _, o := range offsets {
		w.Applied = binary.AppendUvarint(w.Applied, uint64(o-from))
		from = o
	}
}

// append1 enters an offset newer than all others.
func append1(w *tidemarkv1.WorkspaceState, offset, last int64) {
	old := w.GetApplied()
	if w.GetAppliedCount() >= maxApplied {
		distance, n := binary.Uvarint(old)
		w.AppliedFrom += int64(distance)
		old = old[max(n, 0):]
	} else {
		w.AppliedCount++
	}
	applied := make([]byte, 0, len(old)+binary.MaxVarintLen64)
	applied = append(applied, old...)
	w.Applied = binary.AppendUvarint(applied, uint64(offset-last))
}

// AppliedOffsets returns the offsets that the row remembers as counted, in ascending order.
func AppliedOffsets(w *tidemarkv1.WorkspaceState) []int64 {
	offsets := make([]int64, 0, len(w.GetApplied())+1) // a byte or more each, and one to enter; a count may be anything
	offset := w.GetAppliedFrom()
	for b := w.GetApplied(); len(b) > 0; {
		distance, n := binary.Uvarint(b)
		if n <= 0 {
			break // only something else could have written it
		}
		offset += int64(distance)
		offsets, b = append(offsets, offset), b[n:]
	}
	return offsets
}

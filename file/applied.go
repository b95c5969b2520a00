package file

import (
	"encoding/binary"
	"slices"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxApplied is the number of offsets in a workspace's row. The files group has fewer unacknowledged outputs in a
// partition, so a new offset is never older than all of them.
const maxApplied = 1024

// addOffset adds an offset to those that were counted, without changing the bytes that w shares. It returns false if
// the offset is there, or is older than all of maxApplied offsets: then it was probably counted and removed.
func addOffset(w *tidemarkv1.WorkspaceState, offset int64) bool {
	last := w.GetAppliedFrom()
	if w.GetAppliedCount() > 0 {
		last = w.GetPosition().GetOffset()
	}
	if w.GetAppliedCount() == 0 || offset > last { // nearly always
		appendOffset(w, offset, last)
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

// SetApplied sets the offsets that were counted, which are ascending and not below from.
func SetApplied(w *tidemarkv1.WorkspaceState, from int64, offsets []int64) {
	w.AppliedFrom, w.AppliedCount = from, int32(len(offsets))
	w.Applied = make([]byte, 0, len(w.GetApplied())+binary.MaxVarintLen64)
	for _, o := range offsets {
		w.Applied = binary.AppendUvarint(w.Applied, uint64(o-from))
		from = o
	}
}

// appendOffset adds an offset that is newer than all others.
func appendOffset(w *tidemarkv1.WorkspaceState, offset, last int64) {
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

// AppliedOffsets returns the newest offsets that were counted, in ascending order.
func AppliedOffsets(w *tidemarkv1.WorkspaceState) []int64 {
	// at least a byte each, and one to insert; AppliedCount may be wrong
	offsets := make([]int64, 0, len(w.GetApplied())+1)
	offset := w.GetAppliedFrom()
	for b := w.GetApplied(); len(b) > 0; {
		distance, n := binary.Uvarint(b)
		if n <= 0 {
			break // another program wrote the row
		}
		offset += int64(distance)
		offsets, b = append(offsets, offset), b[n:]
	}
	return offsets
}

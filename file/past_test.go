package file

import (
	"math/rand/v2"
	"slices"
	"testing"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A row less the notices after a position is the row as it was there, whatever the row has not counted yet.
func TestPastIsTheInverseOfCount(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 32))
		notices := randomNotices(r, 3000)
		var row *tidemarkv1.WorkspaceState
		for i := 0; i < len(notices); i += 200 { // reordered, and the last ones are not counted yet
			part := slices.Clone(notices[i:min(i+200, len(notices))])
			r.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
			if i+200 >= len(notices) {
				part = part[:100]
			}
			for _, n := range part {
				row, _ = Count(row, n, log)
			}
		}
		end := len(notices) - 200 // of what is counted for certain
		for _, at := range []int{0, 1, 500, 1000, 1999, 2500, end - 1} {
			p := NewPast(row)
			undone := 0
			for _, n := range notices[at+1:] {
				if o := n.GetPosition().GetOffset(); o <= row.GetPosition().GetOffset() && p.Counted(o) {
					p.Undo(n)
					undone++
				}
			}
			var want *tidemarkv1.WorkspaceState
			for _, n := range notices[:at+1] {
				want, _ = Count(want, n, log)
			}
			got := p.Counts()
			if got.GetFiles() != want.GetFiles() || got.GetBytes() != want.GetBytes() ||
				got.GetTrashed() != want.GetTrashed() || got.GetEvents() != want.GetEvents() {
				t.Errorf("seed %d, as of %d: %v, want %v", seed, at, got, want)
			}
			for mime, n := range want.GetByType() {
				if got.GetByType()[mime] != n {
					t.Errorf("seed %d, as of %d: %d of type %s, want %d", seed, at, got.GetByType()[mime], mime, n)
				}
			}
			if remembered := p.Remembered(notices[at].GetPosition().GetOffset()); undone < remembered {
				t.Errorf("seed %d, as of %d: %d notices, and the row remembers %d", seed, at, undone, remembered)
			}
		}
		if NewPast(nil).Counts() != nil {
			t.Error("a workspace without notices has counts")
		}
	}
}

package epochs

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPrefixCommitsOnlyTheFinishedPrefix(t *testing.T) {
	p := &prefix{}
	for _, offset := range []int64{3, 4, 7, 8} { // 5 and 6 are compacted away
		p.deliver(offset)
	}
	steps := []struct {
		finish, commit int64
		grew           bool
	}{
		{4, 0, false}, // 3 is still in flight
		{8, 0, false},
		{3, 5, true}, // 3 and 4
		{3, 0, false},
		{7, 9, true}, // 7 and 8
		{99, 0, false},
	}
	for _, s := range steps {
		if commit, grew := p.finish(s.finish); commit != s.commit || grew != s.grew {
			t.Errorf("finish(%d) = %d, %t; want %d, %t", s.finish, commit, grew, s.commit, s.grew)
		}
	}
}

// Whatever the order of finishing, no commit passes an unfinished record, and all are committed at the end.
func TestPrefixInAnyOrder(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 1))
		p, finished := &prefix{}, map[int64]bool{}
		var offsets []int64
		for offset := int64(0); len(offsets) < 50; offset += 1 + random.Int64N(3) {
			p.deliver(offset)
			offsets = append(offsets, offset)
		}
		last := int64(-1)
		for _, i := range random.Perm(len(offsets)) {
			finished[offsets[i]] = true
			commit, grew := p.finish(offsets[i])
			if !grew {
				continue
			}
			if commit <= last {
				t.Fatalf("seed %d: committed %d after %d", seed, commit, last)
			}
			last = commit
			for _, offset := range offsets {
				if offset < commit && !finished[offset] {
					t.Fatalf("seed %d: committed %d with %d unfinished", seed, commit, offset)
				}
			}
		}
		if want := offsets[len(offsets)-1] + 1; last != want {
			t.Fatalf("seed %d: committed %d at the end, want %d", seed, last, want)
		}
	}
}

// An idle partition is skipped to the end; one with a new or unfinished record is not.
func TestPrefixSkipsOnlyWithoutNewRecords(t *testing.T) {
	p := &prefix{}
	p.deliver(3)
	p.finish(3)
	if _, finished := p.position(); finished {
		t.Error("at rest before there is anybody to commit it")
	}
	var committed []int64
	p.start(3, func(next int64) { committed = append(committed, next) })
	p.skipTo(3, 5)
	p.deliver(7)
	p.skipTo(5, 7) // looked before the record came
	p.skipTo(8, 9) // it is not finished
	if _, finished := p.position(); finished {
		t.Error("at rest with a record in hand")
	}
	p.finish(7)
	if next, finished := p.position(); !finished || next != 8 {
		t.Errorf("at %d, %t; want 8, finished", next, finished)
	}
	p.skipTo(8, 9)
	if !slices.Equal(committed, []int64{5, 9}) {
		t.Errorf("committed %v, want 5 and 9", committed)
	}
}

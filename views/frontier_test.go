package views

import (
	"math/rand/v2"
	"testing"
)

func nextEvent(f *frontier) int64 { _, next := f.offsets(); return next }

func TestFrontierFollowsRows(t *testing.T) {
	f := newFrontier()
	f.open(0)
	f.apply(1, []int64{0})
	if nextEvent(f) != -1 {
		t.Fatal("rows alone say nothing before the start is known")
	}
	f.add(checkpoint{nextEvent: 5, end: 1})
	for _, step := range []struct {
		event, want int64
	}{{5, 6}, {7, 6}, {9, 6}, {6, 8}, {3, 8}, {8, 10}, {10 + appliedWindow, 10}} {
		next, _ := f.offsets()
		f.apply(next+1, []int64{step.event})
		if nextEvent(f) != step.want {
			t.Errorf("after event %d: bound %d, want %d", step.event, nextEvent(f), step.want)
		}
	}
}

func TestFrontierAppliesCheckpoints(t *testing.T) {
	f := newFrontier()
	f.add(checkpoint{nextEvent: 10, end: 3})
	if nextEvent(f) != -1 {
		t.Error("a checkpoint was applied before the store was open")
	}
	f.open(2)
	changed := f.wait()
	if f.apply(3, nil); nextEvent(f) != 10 {
		t.Errorf("the bound is %d once the changelog was read up to the checkpoint", nextEvent(f))
	}
	select {
	case <-changed:
	default:
		t.Error("the waiter was not notified")
	}
	f.apply(4, []int64{12})
	f.add(checkpoint{nextEvent: 12, end: 4})
	if nextEvent(f) != 13 {
		t.Errorf("the bound is %d, though 12 was seen before the checkpoint reached it", nextEvent(f))
	}
	f.add(checkpoint{nextEvent: 11, end: 4}) // offsets of the group were reset
	if nextEvent(f) != 13 {
		t.Error("reset offsets of a group lower the bound")
	}
	f.open(0) // wiped
	if nextEvent(f) != -1 {
		t.Error("a wiped copy keeps its bound")
	}
}

// Whatever the order of rows and checkpoints, the frontier never claims an event that is not in the copy, and in the
// end claims all of them.
func TestFrontierNeverLies(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		const n = 3 * appliedWindow
		f := newFrontier()
		f.open(0)
		f.add(checkpoint{})
		applied := make([]bool, n)
		var next int64
		first := func() int64 { // the true bound
			for i := range applied {
				if !applied[i] {
					return int64(i)
				}
			}
			return n
		}
		for begin := int64(0); begin < n; {
			size := min(1+r.Int64N(300), n-begin)
			for _, i := range r.Perm(int(size)) {
				applied[begin+int64(i)] = true
				next++
				if r.IntN(8) == 0 {
					f.apply(next, nil) // an event without a row of its own
				} else {
					f.apply(next, []int64{begin + int64(i)})
				}
			}
			if got, want := nextEvent(f), first(); got > want {
				t.Fatalf("seed %d: the bound is %d, and only events before %d are in the copy", seed, got, want)
			}
			begin += size
			if r.IntN(3) == 0 {
				f.add(checkpoint{nextEvent: begin, end: next})
			}
		}
		f.add(checkpoint{nextEvent: n, end: next})
		if nextEvent(f) != n {
			t.Fatalf("seed %d: the bound is %d in the end, want %d", seed, nextEvent(f), n)
		}
	}
}

func TestFrontierBoundsItsCheckpoints(t *testing.T) {
	f := newFrontier()
	f.open(0)
	for i := range int64(10 * maxCheckpoints) {
		f.add(checkpoint{nextEvent: i + 1, end: i + 1})
	}
	if len(f.pending) > maxCheckpoints {
		t.Errorf("%d checkpoints are pending", len(f.pending))
	}
	f.apply(10*maxCheckpoints, nil)
	if nextEvent(f) != 10*maxCheckpoints {
		t.Errorf("the bound is %d: the newest checkpoint was lost", nextEvent(f))
	}
}

// A changelog end is added again once it is known that only a marker precedes it: no consumer reads that far.
func TestCheckpointIsAppliedWhereTheLastRecordEnds(t *testing.T) {
	f := newFrontier()
	f.open(0)
	f.add(checkpoint{nextEvent: 4, end: 10})
	f.add(checkpoint{nextEvent: 5, end: 10})
	f.apply(9, nil)
	if nextEvent(f) >= 4 {
		t.Fatalf("the bound is %d before the end was reached", nextEvent(f))
	}
	f.add(checkpoint{nextEvent: 5, end: 9})
	if nextEvent(f) != 5 {
		t.Errorf("the bound is %d, want 5", nextEvent(f))
	}
}

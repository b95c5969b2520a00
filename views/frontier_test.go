package views

import (
	"math/rand/v2"
	"testing"
)

func held(f *frontier) int64 { _, h := f.state(); return h }

func TestFrontierFollowsRows(t *testing.T) {
	f := newFrontier()
	f.opened(0)
	f.applied(1, []int64{0})
	if held(f) != -1 {
		t.Fatal("rows alone say nothing before the start is known")
	}
	f.promise(goal{held: 5, next: 1})
	for _, step := range []struct {
		event, want int64
	}{{5, 6}, {7, 6}, {9, 6}, {6, 8}, {3, 8}, {8, 10}, {10 + seenWindow, 10}} {
		next, _ := f.state()
		f.applied(next+1, []int64{step.event})
		if held(f) != step.want {
			t.Errorf("after event %d: %d held, want %d", step.event, held(f), step.want)
		}
	}
}

func TestFrontierKeepsPromises(t *testing.T) {
	f := newFrontier()
	f.promise(goal{held: 10, next: 3})
	if held(f) != -1 {
		t.Error("a promise came true before the store was open")
	}
	f.opened(2)
	bell := f.listen()
	if f.applied(3, nil); held(f) != 10 {
		t.Errorf("%d held once the changelog was read up to the promise", held(f))
	}
	select {
	case <-bell:
	default:
		t.Error("those who listen were not told")
	}
	f.applied(4, []int64{12})
	f.promise(goal{held: 12, next: 4})
	if held(f) != 13 {
		t.Errorf("%d held, though 12 was seen before the promise reached it", held(f))
	}
	f.promise(goal{held: 11, next: 4}) // a group set back
	if held(f) != 13 {
		t.Error("a group that was set back takes away what the copy holds")
	}
	f.opened(0) // wiped
	if held(f) != -1 {
		t.Error("a wiped copy holds what it held")
	}
}

// Whatever the order of rows and promises, the frontier never claims an event that is not in the copy, and in the end claims
// all of them.
func TestFrontierNeverLies(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		const n = 3 * seenWindow
		f := newFrontier()
		f.opened(0)
		f.promise(goal{})
		applied := make([]bool, n)
		var next int64
		first := func() int64 { // what is truly held
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
					f.applied(next, nil) // an event without a row of its own
				} else {
					f.applied(next, []int64{begin + int64(i)})
				}
			}
			if got, want := held(f), first(); got > want {
				t.Fatalf("seed %d: %d held, and only those before %d are in the copy", seed, got, want)
			}
			begin += size
			if r.IntN(3) == 0 {
				f.promise(goal{held: begin, next: next})
			}
		}
		f.promise(goal{held: n, next: next})
		if held(f) != n {
			t.Fatalf("seed %d: %d held in the end, want %d", seed, held(f), n)
		}
	}
}

func TestFrontierBoundsItsGoals(t *testing.T) {
	f := newFrontier()
	f.opened(0)
	for i := range int64(10 * maxGoals) {
		f.promise(goal{held: i + 1, next: i + 1})
	}
	if len(f.goals) > maxGoals {
		t.Errorf("%d goals are held", len(f.goals))
	}
	f.applied(10*maxGoals, nil)
	if held(f) != 10*maxGoals {
		t.Errorf("%d held: the newest goal was lost", held(f))
	}
}

// The end of a changelog is told once more when it is known that only a marker lies before it: nobody ever reads that far.
func TestPromiseIsKeptWhereTheLastRecordEnds(t *testing.T) {
	f := newFrontier()
	f.opened(0)
	f.promise(goal{held: 4, next: 10})
	f.promise(goal{held: 5, next: 10})
	f.applied(9, nil)
	if held(f) >= 4 {
		t.Fatalf("%d held before the end was reached", held(f))
	}
	f.promise(goal{held: 5, next: 9})
	if held(f) != 5 {
		t.Errorf("%d held, want 5", held(f))
	}
}

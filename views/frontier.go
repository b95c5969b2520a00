package views

import "sync"

// seenWindow is how far ahead of the frontier the positions of rows are remembered.
const seenWindow = 4096

// maxGoals bounds the promises that a frontier holds; past it the newest is replaced, which only makes the steps coarser.
const maxGoals = 64

// A frontier knows which events of one partition a table's copy holds: all before held.
//
// Two things move it. Rows: an event whose offset a row bears is in the copy, so a run of such offsets moves it at once.
// And promises, for events that leave no row: what a group had committed when the changelog ended at some offset is in the
// copy as soon as the copy has read up to there.
type frontier struct {
	mu    sync.Mutex
	next  int64 // changelog offset that the copy reads next
	held  int64 // first event not known to be in the copy; -1 while nothing is known
	seen  [seenWindow / 64]uint64
	goals []goal
	bell  chan struct{} // closed and replaced when held moves; nil while nobody listens
}

// A goal says: a copy that has read the changelog up to next holds all events before held.
type goal struct{ held, next int64 }

func newFrontier() *frontier { return &frontier{next: -1, held: -1} }

// applied notes that the copy reads next from there, and that the events at these offsets are in it.
func (f *frontier) applied(next int64, events []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = next
	if f.held < 0 {
		f.reach()
		return
	}
	for _, o := range events {
		if o >= f.held && o < f.held+seenWindow {
			f.seen[o%seenWindow/64] |= 1 << (o % 64)
		}
	}
	held := f.held
	for f.sees(held) {
		f.forget(held)
		held++
	}
	f.moveTo(held)
	f.reach()
}

// promise adds a goal, and moves the frontier if it is reached already.
func (f *frontier) promise(g goal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g.held <= f.held {
		return
	}
	f.goals = addGoal(f.goals, g)
	f.reach()
}

// addGoal adds a goal to those that are waited for, in the order of what they promise.
func addGoal(goals []goal, g goal) []goal {
	n := len(goals)
	for n > 0 && goals[n-1].held <= g.held && goals[n-1].next >= g.next { // it promises less, later
		n--
	}
	goals = goals[:n]
	switch {
	case n > 0 && goals[n-1].held >= g.held: // a group set back: the copy still holds what it holds
	case n >= maxGoals:
		goals[n-1] = g
	default:
		goals = append(goals, g)
	}
	return goals
}

// reach takes the goals that the copy has read up to.
func (f *frontier) reach() {
	n := 0
	for n < len(f.goals) && f.goals[n].next <= f.next {
		f.moveTo(f.goals[n].held)
		n++
	}
	f.goals = append(f.goals[:0], f.goals[n:]...)
}

func (f *frontier) moveTo(held int64) {
	if held <= f.held {
		return
	}
	for o := max(f.held, held-seenWindow); o < held; o++ {
		if o >= 0 {
			f.forget(o)
		}
	}
	f.held = held
	for f.sees(f.held) {
		f.forget(f.held)
		f.held++
	}
	if f.bell != nil {
		close(f.bell)
		f.bell = nil
	}
}

func (f *frontier) sees(o int64) bool { return f.seen[o%seenWindow/64]&(1<<(o%64)) != 0 }
func (f *frontier) forget(o int64)    { f.seen[o%seenWindow/64] &^= 1 << (o % 64) }

// state returns where the copy reads next and the first event not known to be in it, -1 for what is not known.
func (f *frontier) state() (next, held int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next, f.held
}

// listen returns a channel that is closed when held moves.
func (f *frontier) listen() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.bell == nil {
		f.bell = make(chan struct{})
	}
	return f.bell
}

// opened sets where the copy reads next, once its store is open. A store that was wiped holds nothing of what it held.
func (f *frontier) opened(next int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if next < f.next {
		f.clear()
	}
	f.next = next
	f.reach()
}

// shut forgets where the copy reads next, and what it holds.
func (f *frontier) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = -1
	f.clear()
}

// forgetLog drops all knowledge of events: their log is another one now.
func (f *frontier) forgetLog() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clear()
}

func (f *frontier) clear() { f.held, f.goals, f.seen = -1, nil, [seenWindow / 64]uint64{} }

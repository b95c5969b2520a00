package epochs

import "testing"

// A callback gets what was prepared for its record, whatever offsets are missing.
func TestInputPassesWhatWasPrepared(t *testing.T) {
	i := newInput(-1)
	for _, offset := range []int64{3, 4, 7} { // 5 and 6 are compacted away
		size, err := i.reserve(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		i.put(offset, size, offset)
	}
	for _, step := range []struct {
		offset int64
		found  bool
	}{{3, true}, {3, false}, {7, true}, {4, false}, {8, false}} {
		message, found := i.take(step.offset)
		if found != step.found || found && message != step.offset {
			t.Errorf("offset %d: %v, %t", step.offset, message, found)
		}
	}
	if !i.room.TryAcquire(prefetchBytes) {
		t.Error("not all room was released")
	}
}

// An idle input is skipped to the end; one with a record that is read or in its callback is not.
func TestInputSkipsOnlyWithoutNewRecords(t *testing.T) {
	i := newInput(-2) // the oldest
	if _, idle := i.position(); idle {
		t.Error("idle at an unknown offset")
	}
	i.put(3, 0, nil)
	if _, idle := i.position(); idle {
		t.Error("idle before the callback")
	}
	i.callbackReturned(3)
	if next, idle := i.position(); !idle || next != 4 {
		t.Errorf("at %d, %t; want 4, idle", next, idle)
	}
	var committed []int64
	skip := func(from, to int64) { i.skip(from, to, func() { committed = append(committed, to) }) }
	skip(4, 5)
	i.put(7, 0, nil)
	skip(5, 7) // decided before the record came
	skip(8, 9) // its callback has not returned
	i.callbackReturned(7)
	skip(8, 9)
	if len(committed) != 2 || committed[0] != 5 || committed[1] != 9 {
		t.Errorf("committed %v, want 5 and 9", committed)
	}
	if next, idle := i.position(); !idle || next != 9 {
		t.Errorf("at %d, %t; want 9, idle", next, idle)
	}
}

package epochs

import (
	"errors"
	"testing"

	"github.com/lovoo/goka"
)

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

// An inputContext is goka's for a record of the input.
type inputContext struct {
	gokaContext
	offset int64
	ended  error
}

func (*inputContext) Topic() goka.Stream         { return "in" }
func (*inputContext) Partition() int32           { return 0 }
func (c *inputContext) Offset() int64            { return c.offset }
func (c *inputContext) DeferCommit() func(error) { return func(err error) { c.ended = err } }

// goka may call the record after one that was rejected. Its offset must not be committed.
func TestNothingIsPublishedAfterARejectedRecord(t *testing.T) {
	e := newEpochTest(t)
	epochs := newEpochs(e.conf, e.store, "")
	epochs.byPartition[0] = e.partitionEpochs
	input := epochs.openInput(partitionID{"in", 0}, 3)
	called := 0
	callback := epochs.Callback(func(goka.Context, any) { called++ })
	input.put(4, 0, nil) // not 3
	for _, offset := range []int64{3, 4} {
		ctx := &inputContext{offset: offset}
		if callback(ctx, nil); ctx.ended == nil {
			t.Errorf("offset %d is not rejected", offset)
		}
	}
	if called > 0 || e.failure() == nil {
		t.Errorf("%d callbacks; the partition has failed: %v", called, e.failure())
	}
	e.wire.quiet(t)
	e.uncommitted(t)
}

// What a session has read says nothing about the partitions of the next one.
func TestInputsEndWithTheirSession(t *testing.T) {
	epochs := newEpochs(testConfig(), nil, "")
	epochs.openInput(partitionID{"in", 0}, 3)
	epochs.setSession(nil)
	ctx := &inputContext{offset: 3}
	if epochs.Callback(func(goka.Context, any) {})(ctx, nil); !errors.Is(ctx.ended, errClosed) {
		t.Errorf("rejected with %v", ctx.ended)
	}
}

// Package file holds the rules: what an event does to a file, and what a notice does to its workspace.
//
// It promises pure functions. They know no Kafka, HTTP or clock and start no goroutine; the same messages always give the
// same bytes, so a fold that is repeated after a crash repeats what it did. They never change a message that they are given;
// what they return shares parts with it, so a row must be treated as fixed once it was handed over or returned.
//
// It does not decide what a record is (package codecs) nor where its effects go (package processors).
package file

import (
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Verdict says what became of an event.
type Verdict int

// The verdicts of Apply, in the order its questions are asked.
const (
	// Accepted events are folded: the row after them is new.
	Accepted Verdict = iota
	// Applied events lie at a position that the row has passed: their effects are in the log already.
	Applied
	// Duplicate events have an id that the row remembers.
	Duplicate
	// BeyondWindow events are not newer than anything that a full row remembers, so they cannot be told from duplicates.
	BeyondWindow
	// Unchanged events are folded, but nothing shown changes and the version stays: what a folder gives to an entry that has it
	// already, and what the provider says once more of an entry of that folder. The row after them is new, or the one before when it took over nothing.
	Unchanged
)

// Apply answers three questions, in this order, and then folds e into before: was its position applied, is its id remembered,
// and is it older than what can be remembered? Of a file never seen, before is nil; at lies in the topic of the id logID. The
// event came late when it changed less than it carried, as newer ones came before it. Unless the verdict is Accepted or
// Unchanged, after is before.
//
// An event without file meaning must not come here: see Touches.
func Apply(before *tidemarkv1.FileState, e *tidemarkv1.Event, at *tidemarkv1.Position, logID string) (after *tidemarkv1.FileState, late bool, v Verdict) {
	if passed(before, at, logID) {
		return before, false, Applied
	}
	when, dated := believed(e)
	id := entryOf(e, when, dated)
	found := search(before.GetSeen(), id, dated && !e.GetReplayed() && e.GetCause() == nil)
	if found.verdict != Accepted {
		return before, false, found.verdict
	}
	if before == nil && e.GetCause() != nil {
		return nil, false, Unchanged
	}
	f := begin(before, e)
	if e.GetCause() != nil {
		if f.inherit(e.GetCause().GetInherited()); f.after.GetInherited() == before.GetInherited() {
			return before, false, Unchanged // its id is not remembered: another folder may give the same
		}
		f.last()
	} else {
		f.fields()
	}
	f.derive()
	f.give(before, at)
	f.after.Seen = found.remember(before.GetSeen(), id)
	if f.silent(before, at, logID) {
		f.keepShown(before)
		f.after.Silent, f.after.SilentOffset = before.GetSilent()+1, at.GetOffset()
		v = Unchanged
	} else {
		f.after.LogId, f.after.Position = logID, at
		f.after.Version++
		f.after.SilentOffset = 0
	}
	f.times.store(f.after)
	return f.after, f.late, v
}

// silent says whether the event changes nothing shown, and is one that need not: of a folder, or the provider's of an entry that
// inherits from one. Positions of two logs cannot be compared, so the first event of a log is never silent.
func (f *fold) silent(before *tidemarkv1.FileState, at *tidemarkv1.Position, logID string) bool {
	if before.GetLogId() != logID || before.GetPosition().GetPartition() != at.GetPartition() {
		return false
	}
	repeats := f.event.GetCause() != nil || meaningOf(f.event.GetEvent()).ofEach && f.inherits()
	return repeats && sameShown(before, f.after)
}

// keepShown leaves what is said of the last event as it was.
func (f *fold) keepShown(before *tidemarkv1.FileState) {
	s := f.after
	s.LastEvent, s.LastEventId, s.UpdatedAt, s.ActorId = before.LastEvent, before.LastEventId, before.UpdatedAt, before.ActorId
	f.times[fieldActor] = timesOf(before)[fieldActor]
}

// passed says whether the row holds the event at a position already. Positions of another log cannot be compared: a recreated
// topic starts again.
func passed(row *tidemarkv1.FileState, at *tidemarkv1.Position, logID string) bool {
	last := row.GetPosition()
	return last != nil && row.GetLogId() == logID && last.GetPartition() == at.GetPartition() &&
		at.GetOffset() <= max(last.GetOffset(), row.GetSilentOffset())
}

// A meaning is what an event does to the file or the folder that it names.
type meaning struct {
	does   effect
	folder bool
	ofEach bool // the provider may send it of each entry of a folder, beside the folder's
}

type effect int

const (
	nothing effect = iota
	create         // the file is there, and all that was before is known
	change         // only what it carries
	restore
	trash
)

// meanings are the events with a meaning for a file or a folder, without the prefix of their scope.
var meanings = map[string]meaning{
	"file_added":            {does: create},
	"file_copied":           {does: create}, // the object is the copy
	"file_sync_added":       {does: create},
	"file_updated":          {does: change},
	"file_sync_updated":     {does: change},
	"file_moved":            {does: change, ofEach: true},
	"file_version_restored": {does: change}, // of workspaces only
	"file_restored":         {does: restore, ofEach: true},
	"file_deleted":          {does: trash, ofEach: true}, // into the provider's trash: it announces no purge

	"folder_created":  {does: create, folder: true},
	"folder_updated":  {does: change, folder: true},
	"folder_renamed":  {does: change, folder: true},
	"folder_moved":    {does: change, folder: true, ofEach: true},
	"folder_restored": {does: restore, folder: true, ofEach: true},
	"folder_deleted":  {does: trash, folder: true, ofEach: true},
}

func meaningOf(event string) meaning {
	if rest, ok := strings.CutPrefix(event, "workspace_storage_"); ok {
		return meanings[rest]
	}
	if rest, ok := strings.CutPrefix(event, "share_storage_"); ok && rest != "file_version_restored" {
		return meanings[rest]
	}
	return meaning{}
}

// Touches says whether an event has a meaning for a file or a folder and names one. Any other event touches no row.
func Touches(e *tidemarkv1.Event) bool {
	return e.GetFileId() != "" && meaningOf(e.GetEvent()).does != nothing
}

// aheadOfArrival is how far a sender's clock may be ahead, in microseconds.
const aheadOfArrival = 5 * 60 * 1e6

// earliest is 2000-01-01: a clock that says less was not set.
const earliest = 946684800 * 1e6

// believed returns the time by which an event is ordered: the sender's, or that of its arrival where the sender's cannot be read.
// One without a time, or dated before 2000 or too far after its arrival if that is known, counts as the newest.
func believed(e *tidemarkv1.Event) (us int64, dated bool) {
	switch {
	case e.OccurredAt == nil && slices.Contains(e.GetUnreadable(), unreadableTime):
		return arrival(e), true
	case e.OccurredAt == nil, e.GetOccurredAt() < earliest, arrival(e) != 0 && e.GetOccurredAt() > arrival(e)+aheadOfArrival:
		return 0, false
	}
	return e.GetOccurredAt(), true
}

// unreadableTime is what the sender's time is called in Event.unreadable.
const unreadableTime = "created"

// Dated reports whether an event can be ordered by a time. One that cannot overwrites whatever is there, whenever it is folded.
func Dated(e *tidemarkv1.Event) bool {
	_, dated := believed(e)
	return dated
}

// happened is the time of an event as clients see it: the sender's if it is believed, else that of its arrival.
func happened(e *tidemarkv1.Event) int64 {
	if when, dated := believed(e); dated {
		return when
	}
	return arrival(e)
}

func arrival(e *tidemarkv1.Event) int64 {
	if e.GetReceivedAt() != 0 {
		return e.GetReceivedAt()
	}
	return e.GetRecordedAt()
}

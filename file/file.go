// Package file has the rules of the tables: how an event changes the row of a file or folder (Apply), and how a notice
// changes the row of its workspace (Count).
//
// All functions are pure. They use no Kafka, HTTP or clock and start no goroutine. The same messages always give the
// same bytes, so a fold can be repeated after a crash. They never change their arguments. Results share parts with
// arguments, so treat every row as immutable.
//
// # Folders
//
// A change of a folder reaches its entries, the files and folders in it, by derived events. A folder's row has in
// inheritable what its entries inherit: its path, and whether it is in the trash. When that changes, package processors
// calls Derive for each entry, and appends the event that it returns to the events topic. Apply folds a derived event
// into the entry's row, as inherited, like any other event. So a fold needs only one row and one event, and the order
// of the log decides. A derived event has a cause: the folder's event.
//
// Package codecs decodes records; package processors publishes the results.
package file

import (
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Verdict is what Apply did with an event.
type Verdict int

// The verdicts of Apply.
const (
	// Accepted events are folded into a new row.
	Accepted Verdict = iota
	// Applied events are at a position that the row includes: their outputs are in the log already.
	Applied
	// Duplicate events have an id that is in the row's dedupe window.
	Duplicate
	// BeyondWindow events are older than a full dedupe window, so they may be duplicates.
	BeyondWindow
	// Unchanged events are folded, but change nothing that is shown, nor the version: a derived event of which the row
	// has the effect already, or the provider's own event for an entry of a folder that was changed. The row is new, or
	// the one before if the event changed nothing at all.
	Unchanged
)

// Apply folds e into the row before, nil for a new file. First it checks, in this order, whether the row includes e's
// position, whether the dedupe window has its id, and whether e is older than the window. at is in the topic with the
// id topicID. late reports that e had an older value for a field than the row. Unless the verdict is Accepted or
// Unchanged, after is before.
//
// The caller checks first that e has a row: see Touches.
func Apply(before *tidemarkv1.FileState, e *tidemarkv1.Event, at *tidemarkv1.Position,
	topicID string,
) (after *tidemarkv1.FileState, late bool, v Verdict) {
	if alreadyFolded(before, at, topicID) {
		return before, false, Applied
	}
	when, dated := orderTime(e)
	id := newSeenID(e, when, dated)
	found := search(before.GetSeen(), id, dated && !e.GetReplayed() && e.GetCause() == nil)
	if found.verdict != Accepted {
		return before, false, found.verdict
	}
	if before == nil && e.GetCause() != nil {
		return nil, false, Unchanged
	}
	f := newFold(before, e)
	if e.GetCause() != nil {
		if f.inherit(e.GetCause().GetInherited()); f.after.GetInherited() == before.GetInherited() {
			return before, false, Unchanged // its id is not remembered: another folder's event may derive it too
		}
		f.noteEvent()
	} else {
		f.foldEvent()
	}
	f.setShown()
	f.updateInheritable(before, at)
	f.after.Seen = found.remember(before.GetSeen(), id)
	if f.changesNothingShown(before, at, topicID) {
		f.keepLastEvent(before)
		f.after.Silent, f.after.SilentOffset = before.GetSilent()+1, at.GetOffset()
		v = Unchanged
	} else {
		f.after.LogId, f.after.Position = topicID, at
		f.after.Version++
		f.after.SilentOffset = 0
	}
	f.times.store(f.after)
	return f.after, f.late, v
}

// changesNothingShown reports whether the event is one that may leave the version as it is, and changes nothing that is
// shown. Such are derived events, and the provider's own for an entry that has inherited the same. The first event of
// another topic is never such: the row needs its position.
func (f *fold) changesNothingShown(before *tidemarkv1.FileState, at *tidemarkv1.Position, topicID string) bool {
	if before.GetLogId() != topicID || before.GetPosition().GetPartition() != at.GetPartition() {
		return false
	}
	mayRepeat := f.event.GetCause() != nil || meaningOf(f.event.GetEvent()).sentPerEntry && f.inheritedApplies()
	return mayRepeat && shownEqual(before, f.after)
}

// keepLastEvent restores what the row before says of the last event.
func (f *fold) keepLastEvent(before *tidemarkv1.FileState) {
	s := f.after
	s.LastEvent, s.LastEventId = before.LastEvent, before.LastEventId
	s.UpdatedAt, s.ActorId = before.UpdatedAt, before.ActorId
	f.times[fieldActor] = timesOf(before)[fieldActor]
}

// alreadyFolded reports whether the row includes the event at a position. Positions of different topics cannot be
// compared: the offsets of a recreated topic start over.
func alreadyFolded(row *tidemarkv1.FileState, at *tidemarkv1.Position, topicID string) bool {
	last := row.GetPosition()
	return last != nil && row.GetLogId() == topicID && last.GetPartition() == at.GetPartition() &&
		at.GetOffset() <= max(last.GetOffset(), row.GetSilentOffset())
}

// A meaning is what an event does to the file or folder that it names.
type meaning struct {
	does         effect
	folder       bool
	sentPerEntry bool // the provider may also send it for each entry of a folder that was changed
}

type effect int

const (
	nothing effect = iota
	create         // the file begins: its row is complete
	change         // only the fields in the event
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
	"file_moved":            {does: change, sentPerEntry: true},
	"file_version_restored": {does: change}, // of workspaces only
	"file_restored":         {does: restore, sentPerEntry: true},
	// into the provider's trash, which sends no event when it is purged
	"file_deleted": {does: trash, sentPerEntry: true},

	"folder_created":  {does: create, folder: true},
	"folder_updated":  {does: change, folder: true},
	"folder_renamed":  {does: change, folder: true},
	"folder_moved":    {does: change, folder: true, sentPerEntry: true},
	"folder_restored": {does: restore, folder: true, sentPerEntry: true},
	"folder_deleted":  {does: trash, folder: true, sentPerEntry: true},
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

// Touches reports whether an event has a meaning for a file or folder and names one. Any other event changes no row.
func Touches(e *tidemarkv1.Event) bool {
	return e.GetFileId() != "" && meaningOf(e.GetEvent()).does != nothing
}

// aheadOfArrival is how far a sender's clock may be ahead of the arrival, in microseconds.
const aheadOfArrival = 5 * 60 * 1e6

// earliest is 2000-01-01: an earlier time means that the sender's clock was not set.
const earliest = 946684800 * 1e6

// orderTime returns the time that orders an event: the sender's, or the arrival if the sender's cannot be read. An
// event is undated, and counts as the newest, if it has no time, or one before 2000 or too far after its arrival.
func orderTime(e *tidemarkv1.Event) (us int64, dated bool) {
	switch {
	case e.OccurredAt == nil && slices.Contains(e.GetUnreadable(), unreadableTime):
		return arrivalTime(e), true
	case e.OccurredAt == nil, e.GetOccurredAt() < earliest, arrivalTime(e) != 0 &&
		e.GetOccurredAt() > arrivalTime(e)+aheadOfArrival:
		return 0, false
	}
	return e.GetOccurredAt(), true
}

// unreadableTime is the name of the sender's time in Event.unreadable.
const unreadableTime = "created"

// Dated reports whether an event has a time that orders it. An undated event overwrites all values, whenever it is
// folded.
func Dated(e *tidemarkv1.Event) bool {
	_, dated := orderTime(e)
	return dated
}

// displayTime is the time of an event that clients see: the time that orders it, else the arrival.
func displayTime(e *tidemarkv1.Event) int64 {
	if when, dated := orderTime(e); dated {
		return when
	}
	return arrivalTime(e)
}

func arrivalTime(e *tidemarkv1.Event) int64 {
	if e.GetReceivedAt() != 0 {
		return e.GetReceivedAt()
	}
	return e.GetRecordedAt()
}

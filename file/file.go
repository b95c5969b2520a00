// Package file holds the rules: what an event does to a file, and what a notice does to its workspace.
//
// It promises pure functions. They know no Kafka, HTTP or clock and start no goroutine; the same messages always give the
// same bytes, so a fold that is repeated after a crash repeats what it did. They never change a message that they are given;
// what they return shares parts with it, so a row must be treated as fixed once it was handed over or returned.
//
// It does not decide what a record is (package codecs) nor where its effects go (package processors).
package file

import (
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
)

// Apply answers three questions, in this order, and then folds e into before: was its position applied, is its id remembered,
// and is it older than what can be remembered? Of a file never seen, before is nil; at lies in the topic of the id logID. The
// event came late when it changed less than it carried, as newer ones came before it. Unless the verdict is Accepted, after is
// before.
//
// An event without file meaning must not come here: see Touches.
func Apply(before *tidemarkv1.FileState, e *tidemarkv1.Event, at *tidemarkv1.Position, logID string) (after *tidemarkv1.FileState, late bool, v Verdict) {
	if passed(before, at, logID) {
		return before, false, Applied
	}
	when, dated := believed(e)
	id := entryOf(e, when, dated)
	found := search(before.GetSeen(), id, dated && !e.GetReplayed())
	if found.verdict != Accepted {
		return before, false, found.verdict
	}
	f := fold{after: begin(before, e), event: e, when: when, dated: dated}
	f.after.Seen = found.remember(before.GetSeen(), id)
	f.after.LogId, f.after.Position = logID, at
	f.after.Version++
	return f.after, f.groups(), Accepted
}

// passed says whether the row holds the event at a position already. Positions of another log cannot be compared: a recreated
// topic starts again.
func passed(row *tidemarkv1.FileState, at *tidemarkv1.Position, logID string) bool {
	last := row.GetPosition()
	return last != nil && row.GetLogId() == logID && last.GetPartition() == at.GetPartition() && at.GetOffset() <= last.GetOffset()
}

// A meaning is what an event does to its file.
type meaning int

const (
	nothing meaning = iota
	create          // the file is there, and all that was before is known
	change          // only what it carries
	restore
	trash
)

// meanings are the events with file meaning, without the prefix of their scope.
var meanings = map[string]meaning{
	"file_added":            create,
	"file_copied":           create, // the object is the copy
	"file_sync_added":       create,
	"file_updated":          change,
	"file_sync_updated":     change,
	"file_moved":            change,
	"file_version_restored": change, // of workspaces only
	"file_restored":         restore,
	"file_deleted":          trash, // into the provider's trash: it announces no purge
}

func meaningOf(event string) meaning {
	if rest, ok := strings.CutPrefix(event, "workspace_storage_"); ok {
		return meanings[rest]
	}
	if rest, ok := strings.CutPrefix(event, "share_storage_"); ok && rest != "file_version_restored" {
		return meanings[rest]
	}
	return nothing
}

// Touches says whether an event has a meaning for a file and names one. Any other event touches no row.
func Touches(e *tidemarkv1.Event) bool {
	return e.GetFileId() != "" && meaningOf(e.GetEvent()) != nothing
}

// aheadOfArrival is how far a sender's clock may be ahead, in microseconds.
const aheadOfArrival = 5 * 60 * 1e6

// believed returns the sender's time if events can be ordered by it: an event without one, or dated too far after its arrival if
// that is known, counts as the newest.
func believed(e *tidemarkv1.Event) (us int64, dated bool) {
	if e.OccurredAt == nil || arrival(e) != 0 && e.GetOccurredAt() > arrival(e)+aheadOfArrival {
		return 0, false
	}
	return e.GetOccurredAt(), true
}

// Dated reports whether an event can be ordered by its sender's time. One that cannot overwrites whatever is there, whenever it
// is folded.
func Dated(e *tidemarkv1.Event) bool {
	_, dated := believed(e)
	return dated
}

// happened is the time of an event as clients see it: the sender's, else that of its arrival.
func happened(e *tidemarkv1.Event) int64 {
	if e.OccurredAt != nil {
		return e.GetOccurredAt()
	}
	return arrival(e)
}

func arrival(e *tidemarkv1.Event) int64 {
	if e.GetReceivedAt() != 0 {
		return e.GetReceivedAt()
	}
	return e.GetRecordedAt()
}

package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The dedupe window of a row: the ids of its events, at most windowIDs, and at most windowSeconds old by the record's
// timestamp. It removes the oldest by the sender's time first. So if it is full, an event that is not newer than the
// oldest id may be a duplicate of one that was removed, and a newer event cannot be one.
//
// The record's timestamp is a producer's clock. Ids do not expire by a timestamp that is far ahead of the event's other
// times: one record that is decades ahead would empty the window, and every resend after it would be folded again.
//
// Two kinds of event are folded although they may be duplicates of a removed id, because most of them are new: those
// without a time, and those of a second that fills the whole window.
const (
	windowIDs     = 256
	windowSeconds = 7 * 24 * 3600

	seenIDSize = 24 // see FileState.seen
	hashSize   = 16
)

// How far a record's timestamp may be ahead of the event's other times, in microseconds: of its arrival, which is
// seconds before, and of the sender's time, which may be before an outage of the provider and its retries.
const (
	aheadOfReceipt = 24 * 3600 * 1e6
	aheadOfSender  = 30 * aheadOfReceipt
)

// A seenID is an id with its times as it is stored in a row.
type seenID struct {
	bytes [seenIDSize]byte
	now   uint32 // the time by which the ids in the row expire; 0: none does
}

func newSeenID(e *tidemarkv1.Event, when int64, dated bool) (id seenID) {
	sum := hashOf(e.GetEventId())
	copy(id.bytes[:], sum[:hashSize])
	if dated {
		id.setSent(seconds(when))
	}
	binary.BigEndian.PutUint32(id.bytes[hashSize+4:], seconds(e.GetRecordedAt()))
	if plausible(e, when, dated) {
		id.now = seconds(e.GetRecordedAt())
	}
	return id
}

// plausible reports whether the record's timestamp is not far ahead of another of the event's times. If the event had
// no arrival of its own, it got the record's timestamp, which says nothing.
func plausible(e *tidemarkv1.Event, when int64, dated bool) bool {
	at := e.GetRecordedAt()
	if received := e.GetReceivedAt(); received != 0 && received != at {
		return at <= received+aheadOfReceipt
	}
	return dated && at <= when+aheadOfSender
}

// hashOf returns the hash of an event id. A seenID begins with its first hashSize bytes.
func hashOf(eventID string) [sha256.Size]byte {
	var room [256]byte
	return sha256.Sum256(append(room[:0], eventID...))
}

// Remembers reports whether the row's window has the event's id, expired or not.
func Remembers(row *tidemarkv1.FileState, eventID string) bool {
	sum := hashOf(eventID)
	for seen := row.GetSeen(); len(seen) >= seenIDSize; seen = seen[seenIDSize:] {
		if bytes.Equal(seen[:hashSize], sum[:hashSize]) {
			return true
		}
	}
	return false
}

func (id *seenID) setSent(at uint32) { binary.BigEndian.PutUint32(id.bytes[hashSize:], at) }

// sent returns the sender's time of the id at the beginning of b, recorded the record's timestamp.
func sent(b []byte) uint32     { return binary.BigEndian.Uint32(b[hashSize:]) }
func recorded(b []byte) uint32 { return binary.BigEndian.Uint32(b[hashSize+4:]) }

func seconds(us int64) uint32 { return uint32(min(max(us/1e6, 0), math.MaxUint32)) }

// A searchResult is the result of a search in a window.
type searchResult struct {
	verdict Verdict // Accepted, Duplicate or BeyondWindow
	now     uint32  // the time by which ids expire
	live    int     // ids that have not expired
	expired int
	oldest  uint32 // the sender's time of the first live id
	newest  uint32 // of the last
	sent    uint32 // the time to store the event with
}

// search looks for an id. Without byAge, for undated and replayed events, it never returns BeyondWindow, and the id is
// stored with a time not before the newest.
func search(seen []byte, id seenID, byAge bool) searchResult {
	f := searchResult{now: id.now, sent: sent(id.bytes[:])}
	head, tail := binary.BigEndian.Uint64(id.bytes[:]), binary.BigEndian.Uint64(id.bytes[8:])
	for ; len(seen) >= seenIDSize; seen = seen[seenIDSize:] {
		if f.isExpired(seen) {
			f.expired++
			continue
		}
		if binary.BigEndian.Uint64(seen) == head && binary.BigEndian.Uint64(seen[8:]) == tail {
			f.verdict = Duplicate
			return f
		}
		f.newest = sent(seen)
		if f.live == 0 {
			f.oldest = f.newest
		}
		f.live++
	}
	switch {
	case !byAge:
		f.sent = max(f.sent, f.newest)
	case f.live >= windowIDs && (f.sent < f.oldest || f.sent == f.oldest && f.oldest < f.newest):
		f.verdict = BeyondWindow
	}
	return f
}

func (f *searchResult) isExpired(entry []byte) bool {
	return uint64(recorded(entry))+windowSeconds < uint64(f.now)
}

// remember returns the window with the id inserted. It never writes into seen.
func (f *searchResult) remember(seen []byte, id seenID) []byte {
	id.setSent(f.sent)
	drop := max(0, f.live+1-windowIDs) // remove the oldest
	after := make([]byte, 0, (f.live+1-drop)*seenIDSize)
	if f.expired == 0 && f.sent >= f.newest { // nearly always
		after = append(after, seen[drop*seenIDSize:f.live*seenIDSize]...)
		return append(after, id.bytes[:]...)
	}
	placed := false
	for ; len(seen) >= seenIDSize; seen = seen[seenIDSize:] {
		if f.isExpired(seen) {
			continue
		}
		if drop > 0 {
			drop--
			continue
		}
		if !placed && sent(seen) > f.sent {
			after = append(after, id.bytes[:]...)
			placed = true
		}
		after = append(after, seen[:seenIDSize]...)
	}
	if !placed {
		after = append(after, id.bytes[:]...)
	}
	return after
}

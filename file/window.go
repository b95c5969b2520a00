package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The dedupe window of a row: its ids, at most windowIDs and windowSeconds old by the record's time. It keeps the newest by
// the sender's time, so an id that it let go for want of room is never newer than those it holds. When it is full, an event that
// is not newer than the oldest of them may therefore be a duplicate; one that is newer cannot.
//
// A record's time is some producer's clock. No id expires by one that is far ahead of the event's other times: a single record stamped
// decades ahead would empty the window, and every resend after it would be folded again.
//
// Two kinds of event are folded though they may be duplicates of something let go, because nothing tells them from new ones and
// new ones are what they mostly are: those without a time, and those of a second that fills the whole window.
const (
	windowIDs     = 256
	windowSeconds = 7 * 24 * 3600

	entrySize = 24 // see FileState.seen
	hashSize  = 16
)

// How far a record's time may be ahead of the event's other times, in microseconds: of its arrival, after which it is written within
// seconds, and of the sender's time, which a provider's outage and its retries lie behind.
const (
	aheadOfReceipt = 24 * 3600 * 1e6
	aheadOfSender  = 30 * aheadOfReceipt
)

// An entry is an id with its times, as a row holds it, and the time by which those in the row expire.
type entry struct {
	bytes [entrySize]byte
	now   uint32 // 0: none does
}

func entryOf(e *tidemarkv1.Event, when int64, dated bool) (id entry) {
	sum := hashOf(e.GetEventId())
	copy(id.bytes[:], sum[:hashSize])
	if dated {
		id.setSent(seconds(when))
	}
	binary.BigEndian.PutUint32(id.bytes[hashSize+4:], seconds(e.GetRecordedAt()))
	if confirmed(e, when, dated) {
		id.now = seconds(e.GetRecordedAt())
	}
	return id
}

// confirmed says whether another of the event's times confirms the record's, which is not far ahead of it. An event without an arrival
// of its own was given the record's time for one, which confirms nothing.
func confirmed(e *tidemarkv1.Event, when int64, dated bool) bool {
	at := e.GetRecordedAt()
	if received := e.GetReceivedAt(); received != 0 && received != at {
		return at <= received+aheadOfReceipt
	}
	return dated && at <= when+aheadOfSender
}

// hashOf returns the hash of an id, of which an entry has the beginning.
func hashOf(eventID string) [sha256.Size]byte {
	var room [256]byte
	return sha256.Sum256(append(room[:0], eventID...))
}

// Remembers reports whether the row has the event's id in its window, whatever the entry's age.
func Remembers(row *tidemarkv1.FileState, eventID string) bool {
	sum := hashOf(eventID)
	for seen := row.GetSeen(); len(seen) >= entrySize; seen = seen[entrySize:] {
		if bytes.Equal(seen[:hashSize], sum[:hashSize]) {
			return true
		}
	}
	return false
}

func (id *entry) setSent(at uint32) { binary.BigEndian.PutUint32(id.bytes[hashSize:], at) }

// sent is the sender's time of the entry at the beginning of b, recorded the record's.
func sent(b []byte) uint32     { return binary.BigEndian.Uint32(b[hashSize:]) }
func recorded(b []byte) uint32 { return binary.BigEndian.Uint32(b[hashSize+4:]) }

func seconds(us int64) uint32 { return uint32(min(max(us/1e6, 0), math.MaxUint32)) }

// A finding is what a search through a window came to.
type finding struct {
	verdict Verdict // Accepted, Duplicate or BeyondWindow
	now     uint32  // by which entries expire
	live    int     // entries that have not expired
	expired int
	oldest  uint32 // the sender's time of the first live entry
	newest  uint32 // of the last
	sent    uint32 // the time to enter the event with
}

// search looks for an id. Events whose own time says nothing, and those that an operator replays, are not judged by their age,
// and are entered beside the newest.
func search(seen []byte, id entry, byAge bool) finding {
	f := finding{now: id.now, sent: sent(id.bytes[:])}
	head, tail := binary.BigEndian.Uint64(id.bytes[:]), binary.BigEndian.Uint64(id.bytes[8:])
	for ; len(seen) >= entrySize; seen = seen[entrySize:] {
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

func (f *finding) isExpired(entry []byte) bool {
	return uint64(recorded(entry))+windowSeconds < uint64(f.now)
}

// remember returns the window with the id in its place. It never writes into the one before.
func (f *finding) remember(seen []byte, id entry) []byte {
	id.setSent(f.sent)
	drop := max(0, f.live+1-windowIDs) // the oldest make room
	after := make([]byte, 0, (f.live+1-drop)*entrySize)
	if f.expired == 0 && f.sent >= f.newest { // nearly always
		after = append(after, seen[drop*entrySize:f.live*entrySize]...)
		return append(after, id.bytes[:]...)
	}
	placed := false
	for ; len(seen) >= entrySize; seen = seen[entrySize:] {
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
		after = append(after, seen[:entrySize]...)
	}
	if !placed {
		after = append(after, id.bytes[:]...)
	}
	return after
}

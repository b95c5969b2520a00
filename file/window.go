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
// Two kinds of event are folded though they may be duplicates of something let go, because nothing tells them from new ones and
// new ones are what they mostly are: those without a time, and those of a second that fills the whole window.
const (
	windowIDs     = 256
	windowSeconds = 7 * 24 * 3600

	entrySize = 24 // see FileState.seen
	hashSize  = 16
)

// An entry is an id with its times.
type entry [entrySize]byte

func entryOf(e *tidemarkv1.Event, when int64, dated bool) (id entry) {
	sum := hashOf(e.GetEventId())
	copy(id[:], sum[:hashSize])
	if dated {
		id.setSent(seconds(when))
	}
	binary.BigEndian.PutUint32(id[hashSize+4:], seconds(e.GetRecordedAt()))
	return id
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

func (id *entry) setSent(at uint32) { binary.BigEndian.PutUint32(id[hashSize:], at) }

// sent is the sender's time of the entry at the beginning of b, recorded the record's.
func sent(b []byte) uint32     { return binary.BigEndian.Uint32(b[hashSize:]) }
func recorded(b []byte) uint32 { return binary.BigEndian.Uint32(b[hashSize+4:]) }

func seconds(us int64) uint32 { return uint32(min(max(us/1e6, 0), math.MaxUint32)) }

// A finding is what a search through a window came to.
type finding struct {
	verdict Verdict // Accepted, Duplicate or BeyondWindow
	now     uint32  // the record's time, by which entries expire
	live    int     // entries that have not expired
	expired int
	oldest  uint32 // the sender's time of the first live entry
	newest  uint32 // of the last
	sent    uint32 // the time to enter the event with
}

// search looks for an id. Events whose own time says nothing, and those that an operator replays, are not judged by their age,
// and are entered beside the newest.
func search(seen []byte, id entry, byAge bool) finding {
	f := finding{now: recorded(id[:]), sent: sent(id[:])}
	head, tail := binary.BigEndian.Uint64(id[:]), binary.BigEndian.Uint64(id[8:])
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
		return append(after, id[:]...)
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
			after = append(after, id[:]...)
			placed = true
		}
		after = append(after, seen[:entrySize]...)
	}
	if !placed {
		after = append(after, id[:]...)
	}
	return after
}

package views

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// defaultCursorLifetime is how long a cursor of the changes is valid.
const defaultCursorLifetime = 30 * 24 * time.Hour

// A changesCursor is how far a client has read the changes of a query. Its text has a checksum over it and the query.
// It is valid on every instance, because all apply the changelog in its order, and a row has the same offset in
// each of them.
//
// A cursor between two pages is more than next. A row has only its last offset. So the pages before were without a row
// that has changed since, up to where the copy had read that gave them. In a copy that has read less, the row is still
// before next, and nobody would read it.
type changesCursor struct {
	topic     topicHash // of the changelog
	log       topicHash // of the events topic, to which nextEvent belongs
	next      int64     // changelog offset from which the client reads on
	copied    int64     // changelog offset up to which a copy must have read to answer it
	deletes   int64     // a client that began without files needs no deletes before this offset
	nextEvent int64     // all events before it were read; unknown until the frontier was known
	issued    int64     // seconds since 1970
}

// A topicHash identifies a topic. Offsets of a topic say nothing about another one of the same name.
type topicHash [8]byte

func hashTopic(id *string) (h topicHash) {
	if id != nil {
		sum := sha256.Sum256([]byte(*id))
		copy(h[:], sum[:])
	}
	return h
}

// changesCursorSize is the size of a cursor without its checksum, before base64.
const changesCursorSize = 2*len(topicHash{}) + 5*8

// encodeChangesCursor returns the text of a cursor.
func (q query) encodeChangesCursor(p changesCursor) string {
	b := make([]byte, sumSize, sumSize+changesCursorSize)
	b = append(append(b, p.topic[:]...), p.log[:]...)
	for _, n := range []int64{p.next, p.copied, p.deletes, p.nextEvent, p.issued} {
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	copy(b, q.changesSum(b[sumSize:]))
	return base64.RawURLEncoding.EncodeToString(b)
}

// changesSum differs from the sum of a listing's cursor.
func (q query) changesSum(cursor []byte) []byte { return q.sum(append([]byte("changes "), cursor...)) }

func (q query) decodeChangesCursor(cursor string) (p changesCursor, err error) {
	if len(cursor) > maxCursor {
		return p, errBadCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) != sumSize+changesCursorSize || !bytes.Equal(b[:sumSize], q.changesSum(b[sumSize:])) {
		return p, errBadCursor
	}
	b = b[sumSize:]
	b = b[copy(p.topic[:], b):]
	b = b[copy(p.log[:], b):]
	for i, n := range []*int64{&p.next, &p.copied, &p.deletes, &p.nextEvent, &p.issued} {
		*n = int64(binary.BigEndian.Uint64(b[8*i:]))
	}
	if p.next < 0 || p.copied < p.next || p.deletes < 0 || p.deletes > p.copied || p.nextEvent < unknown {
		return p, errBadCursor
	}
	return p, nil
}

package views

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"

	"tidemark/problem"
)

// A listCursor is where a page of a listing begins. Its text has a checksum over it and the query of the listing. The
// server keeps no state for it: files that are written or trashed between two pages do not shift the others.
type listCursor struct {
	topic  topicHash // of the changelog
	began  int64     // changelog offset up to which the copy had read at the first page
	copied int64     // the highest one of all pages
	tail   []byte    // index key of the last file of the page before, without workspace and part; nil on the first page
}

const (
	sumSize  = 8
	headSize = sumSize + len(topicHash{}) + 16 // of a cursor, before the tail
)

// maxCursor is longer than any valid cursor: a file id and a path of the largest size, with every byte escaped.
const maxCursor = 16 << 10

var errBadCursor = errors.New("not a cursor of this query")

// A query selects the files of a listing. A cursor is valid for one query.
type query struct {
	workspace string
	status    string
	kind      string
	prefix    string // of the path; "" lists by file id
	asOf      string // the parameter as_of; with it a listing is by file id
}

func (q query) byPath() bool { return q.prefix != "" && q.asOf == "" }

// sum is a checksum of a position and the query. It detects mistakes, not attacks: a forged cursor shows only what
// other pages of the same query show.
func (q query) sum(tail []byte) []byte {
	h := sha256.New()
	parts := [][]byte{[]byte(q.workspace), []byte(q.status), []byte(q.kind), []byte(q.prefix), tail}
	if q.asOf != "" {
		parts = append(parts, []byte(q.asOf))
	}
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)[:sumSize]
}

// encodeListCursor returns the cursor after the file at p.tail.
func (q query) encodeListCursor(p listCursor) string {
	b := append(make([]byte, sumSize, headSize+len(p.tail)), p.topic[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(p.began))
	b = append(binary.BigEndian.AppendUint64(b, uint64(p.copied)), p.tail...)
	copy(b, q.sum(b[sumSize:]))
	return base64.RawURLEncoding.EncodeToString(b)
}

// decodeListCursor returns where the next page begins.
func (q query) decodeListCursor(cursor string) (p listCursor, err error) {
	if len(cursor) > maxCursor {
		return p, errBadCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) <= headSize || !bytes.Equal(b[:sumSize], q.sum(b[sumSize:])) {
		return p, errBadCursor
	}
	copy(p.topic[:], b[sumSize:])
	p.began = int64(binary.BigEndian.Uint64(b[headSize-16:]))
	p.copied = int64(binary.BigEndian.Uint64(b[headSize-8:]))
	if p.tail = b[headSize:]; q.byPath() && !bytes.HasPrefix(p.tail, appendPath(nil, q.prefix)) {
		return p, errBadCursor
	}
	return p, nil
}

// badCursor is the problem of a cursor of another query, which differs in one of these parameters.
func badCursor(parameters string) error {
	return problem.New(http.StatusBadRequest, codeBadCursor, "use next_cursor of the page before, "+
		"with the same workspace, "+parameters+"; or leave it out to start from the beginning").On("cursor")
}

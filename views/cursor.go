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

// A cursor is the index key of the last file of a page, without workspace and part, and a checksum over it and its
// query. The server keeps no state for it: files that are written or trashed between two pages do not shift the others.
const sumSize = 8

// maxCursor is longer than any valid cursor: a file id and a path of the largest size, with every byte escaped.
const maxCursor = 16 << 10

var errBadCursor = errors.New("not a cursor of this query")

// A query selects the files of a listing. A cursor is valid for one query.
type query struct {
	workspace string
	status    string
	kind      string
	prefix    string // of the path; "" lists by file id
}

func (q query) byPath() bool { return q.prefix != "" }

// sum is a checksum of a position and the query. It detects mistakes, not attacks: a forged cursor shows only what
// other pages of the same query show.
func (q query) sum(tail []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(q.workspace), []byte(q.status), []byte(q.kind), []byte(q.prefix), tail} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)[:sumSize]
}

// encodeCursor returns the cursor after the file at tail.
func (q query) encodeCursor(tail []byte) string {
	return base64.RawURLEncoding.EncodeToString(append(q.sum(tail), tail...))
}

// decodeCursor returns the index key after which the next page begins.
func (q query) decodeCursor(cursor string) (tail []byte, err error) {
	if len(cursor) > maxCursor {
		return nil, errBadCursor
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) <= sumSize || !bytes.Equal(b[:sumSize], q.sum(b[sumSize:])) {
		return nil, errBadCursor
	}
	if tail = b[sumSize:]; q.byPath() && !bytes.HasPrefix(tail, appendPath(nil, q.prefix)) {
		return nil, errBadCursor
	}
	return tail, nil
}

// badCursor is the problem of a cursor of another query, which differs in one of these parameters.
func badCursor(parameters string) error {
	return problem.New(http.StatusBadRequest, codeBadCursor, "use next_cursor of the page before, "+
		"with the same workspace, "+parameters+"; or leave it out to start from the beginning").On("cursor")
}

package views

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// maxScanned bounds the rows that a page of changes reads, whether they are in its query or not.
const maxScanned = 5000

// errStoreNotReady says that a partition of the local store is not complete, or was discarded while it was read.
var errStoreNotReady = errors.New("the local store is not ready")

// A changesPage is a page of changes.
type changesPage struct {
	changes  []fileChange
	bytes    int
	at       changesCursor // after the page
	upToDate bool          // there was nothing after the page
}

// A fileChange is one change of a page, as JSON.
type fileChange struct {
	json []byte
	next int64 // changelog offset after it
}

// readChanges reads the changes after a cursor, from a copy that has read all records before atLeast.
func readChanges(
	s *localstore.Store, partition int32, q query, from changesCursor, atLeast int64, limit int,
) (p changesPage, err error) {
	workspace := tidemarkv1.EscapePart(q.workspace)
	prefix := []byte(workspace + "/")
	scan := s.Scan(partition, byChange, changeKey(workspace, from.next), localstore.PrefixEnd(prefix))
	defer scan.Close() //nolint:errcheck // Err returns its errors
	p.at = from
	if p.at.copied, err = nextOffset(scan, partition); err != nil || p.at.copied < max(atLeast, from.copied) {
		return p, cmp.Or(err, errStoreNotReady)
	}
	for scanned := 0; scan.Next(); scanned++ {
		if len(p.changes) == limit || p.bytes > maxPageBytes || scanned == maxScanned {
			return p, nil
		}
		key := scan.Key()
		offset := int64(binary.BigEndian.Uint64(key[len(key)-8:]))
		key = []byte(tidemarkv1.JoinKey(q.workspace, string(scan.Value())))
		value, err := scan.Get(partition, localstore.Rows, key) // not of the store: the row may have changed
		if err == nil && value == nil {
			err = errBadEntry
		}
		if err != nil {
			return p, err
		}
		p.at.next = offset + 1
		var row tidemarkv1.FileState
		if err := proto.Unmarshal(value, &row); err != nil {
			return p, err
		}
		if c := appendChange(nil, q, &row, offset >= from.deletes); c != nil {
			p.changes = append(p.changes, fileChange{json: c, next: offset + 1})
			p.bytes += len(c)
		}
	}
	p.at.next, p.upToDate = p.at.copied, true
	return p, scan.Err()
}

// appendChange appends the JSON of a change. A file that is not in the query is a delete, whether it was in it before
// or not: the row does not say. Without deletes nothing is appended for it.
func appendChange(b []byte, q query, row *tidemarkv1.FileState, deletes bool) []byte {
	position := ""
	if row.GetPosition() != nil {
		position = row.GetPosition().Text()
	}
	if q.includes(row) {
		b = append(b, `{"op":"upsert","version":`...)
		b = strconv.AppendInt(b, row.GetVersion(), 10)
		if position != "" {
			b = append(append(append(b, `,"position":"`...), position...), '"')
		}
		return append(codecs.AppendFile(append(b, `,"file":`...), row), '}')
	}
	if !deletes {
		return b
	}
	deleted, _ := json.Marshal(struct { // texts and a number can always be encoded
		Op       string `json:"op"`
		FileID   string `json:"file_id"`
		Version  int64  `json:"version"`
		Position string `json:"position,omitempty"`
	}{"delete", row.GetFileId(), row.GetVersion(), position})
	return append(b, deleted...)
}

// includes reports whether a row is in the listing of the query.
func (q query) includes(row *tidemarkv1.FileState) bool {
	return slices.Contains(parts[q.kind][q.status], partOf(row)) && strings.HasPrefix(row.GetPath(), q.prefix)
}

// An offsetReader is a store, or a snapshot of it.
type offsetReader interface {
	Offset(partition int32) (offset int64, ok bool, err error)
}

// nextOffset returns the changelog offset after those that a partition has read.
func nextOffset(r offsetReader, partition int32) (int64, error) {
	offset, ok, err := r.Offset(partition)
	if err != nil || !ok {
		return 0, err
	}
	return offset + 1, nil
}

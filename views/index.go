package views

import (
	"bytes"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	rules "tidemark/file"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Beside the rows, which lie under their record key, a copy of the files table keeps two orders of them. Each is split by
// kind and status, so that a page of the active files never steps over trashed ones, or folders:
//
//	byID    workspace "/" part file
//	byPath  workspace "/" part path 0x00 0x01 file
//
// The workspace is escaped as in a record key, so "/" ends it and "ws1" does not see "ws10". File and path are plain, because
// pages are in the order of their bytes; a 0x00 in a path becomes 0x00 0xff, which keeps that order. Entries have no value.
const (
	byID   localstore.Space = 1
	byPath localstore.Space = 2
)

// layout is part of what a store is pinned to: another layout of the index means reading the table again.
const layout = "views-2"

// The parts of both orders, by kind and status. An erased row is a stub that nobody is shown.
const (
	active        = 'a'
	trashed       = 't'
	activeFolder  = 'A'
	trashedFolder = 'T'
)

// partOf returns the part of the orders that a row is in, 0 for one that is not shown.
func partOf(s *tidemarkv1.FileState) byte {
	folder := s.GetKind() == tidemarkv1.Kind_KIND_FOLDER
	switch s.GetStatus() {
	case tidemarkv1.Status_STATUS_ACTIVE:
		if folder {
			return activeFolder
		}
		return active
	case tidemarkv1.Status_STATUS_TRASHED:
		if folder {
			return trashedFolder
		}
		return trashed
	}
	return 0
}

// indexPrefix begins a new key with an escaped workspace and a part.
func indexPrefix(workspace string, part byte) []byte {
	b := make([]byte, 0, len(workspace)+64)
	b = append(b, workspace...)
	return append(b, '/', part)
}

// appendPath appends a path, not ended, so that it can also be a prefix.
func appendPath(b []byte, path string) []byte {
	for i := range len(path) {
		if b = append(b, path[i]); path[i] == 0 {
			b = append(b, 0xff)
		}
	}
	return b
}

func appendPathAndFile(b []byte, path, file string) []byte {
	b = append(appendPath(b, path), 0, 1)
	return append(b, file...)
}

// cutFile returns the file of what follows the status in a key of byPath; ok is false when it has no end of the path.
func cutFile(tail []byte) (file string, ok bool) {
	for from := 0; ; {
		i := bytes.IndexByte(tail[from:], 0)
		if i < 0 || from+i+1 == len(tail) {
			return "", false
		}
		from += i + 2
		if tail[from-1] == 1 {
			return string(tail[from:]), true
		}
	}
}

// after returns the first key that can follow key.
func after(key []byte) []byte { return append(slices.Clip(key), 0) }

// A change is what one record of a table did to the copy.
type change struct {
	skipped string  // why it did nothing, "" if it did something
	detail  error   // of a record that no one should have written
	logID   string  // of the events below
	events  []int64 // offsets of the events that are in the copy now
}

// Why a record may be skipped, as the metric names it.
const (
	skipOlder     = "older"
	skipNull      = "null"
	skipBadKey    = "bad_key"
	skipBadValue  = "bad_value"
	skipPartition = "wrong_partition"
)

// applyFile applies a record of the files table to rows and index. A null changes nothing: none of the groups that own the tables
// writes one, so it is another writer's, and the owner writes its row again behind it.
func applyFile(w *localstore.Writer, key string, value []byte) (change, error) {
	id, file, err := tidemarkv1.SplitKey(key)
	if err != nil || file == "" {
		return change{skipped: skipBadKey, detail: err}, nil
	}
	if value == nil {
		return change{skipped: skipNull}, nil
	}
	workspace, _, _ := strings.Cut(key, "/") // escaped, as index keys want it
	stored, err := w.Get(localstore.Rows, []byte(key))
	if err != nil {
		return change{}, err
	}
	var before, row tidemarkv1.FileState
	if stored != nil {
		if err := proto.Unmarshal(stored, &before); err != nil {
			return change{}, err // we stored it, and it could be read then
		}
	}
	if err := proto.Unmarshal(value, &row); err != nil || row.GetWorkspaceId() != id || row.GetFileId() != file {
		return change{skipped: skipBadValue, detail: err}, nil
	}
	done := change{logID: row.GetLogId()}
	if p := row.GetPosition(); p != nil {
		done.events = []int64{p.GetOffset()}
	}
	if row.GetSilentOffset() > 0 {
		done.events = append(done.events, row.GetSilentOffset())
	}
	if stored != nil && rules.FoldCount(&row) < rules.FoldCount(&before) {
		done.skipped = skipOlder
		return done, nil
	}
	w.Set(localstore.Rows, []byte(key), value)
	if partOf(&before) == partOf(&row) && before.GetPath() == row.GetPath() {
		return done, nil
	}
	unindex(w, workspace, file, &before)
	if part := partOf(&row); part != 0 {
		w.Set(byID, append(indexPrefix(workspace, part), file...), nil)
		if row.GetPath() != "" {
			w.Set(byPath, appendPathAndFile(indexPrefix(workspace, part), row.GetPath(), file), nil)
		}
	}
	return done, nil
}

// unindex removes the entries of a row. Of no row at all there are none.
func unindex(w *localstore.Writer, workspace, file string, row *tidemarkv1.FileState) {
	part := partOf(row)
	if part == 0 {
		return
	}
	w.Delete(byID, append(indexPrefix(workspace, part), file...))
	if row.GetPath() != "" {
		w.Delete(byPath, appendPathAndFile(indexPrefix(workspace, part), row.GetPath(), file))
	}
}

// applyWorkspace applies a record of the workspaces table. A null changes nothing: see applyFile.
func applyWorkspace(w *localstore.Writer, key string, value []byte) (change, error) {
	id, rest, err := tidemarkv1.SplitKey(key)
	if err != nil || rest != "" {
		return change{skipped: skipBadKey, detail: err}, nil
	}
	if value == nil {
		return change{skipped: skipNull}, nil
	}
	stored, err := w.Get(localstore.Rows, []byte(key))
	if err != nil {
		return change{}, err
	}
	var before, row tidemarkv1.WorkspaceState
	if err := proto.Unmarshal(stored, &before); err != nil {
		return change{}, err
	}
	if err := proto.Unmarshal(value, &row); err != nil || row.GetWorkspaceId() != id {
		return change{skipped: skipBadValue, detail: err}, nil
	}
	done := change{logID: row.GetLogId(), events: rules.AppliedOffsets(&row)}
	if stored != nil && row.GetVersion() < before.GetVersion() {
		done.skipped = skipOlder
		return done, nil
	}
	w.Set(localstore.Rows, []byte(key), value)
	return done, nil
}

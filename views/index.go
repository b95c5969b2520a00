package views

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	rules "tidemark/file"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Rows are stored under their record key. A copy of the files table also has three indexes of them. Two are split into
// parts by kind and status, so that a page of active files never reads entries of trashed ones, or of folders:
//
//	byID      workspace "/" part file                  -> offset, version
//	byPath    workspace "/" part path 0x00 0x01 file   -> nothing
//	byChange  workspace "/" offset                     -> file
//
// The workspace is escaped as in a record key, so "/" ends it and a scan of "ws1" does not include "ws10". File and
// path are not escaped, because pages are in byte order; a 0x00 in a path becomes 0x00 0xff, which keeps that order.
// The offset is that of the row's last record in the changelog that was not older than the row, as 8 bytes, big endian;
// the version is a varint.
const (
	byID     localstore.Space = 1
	byPath   localstore.Space = 2
	byChange localstore.Space = 3
)

// layout is part of the pin of a store: a change of the index layout rebuilds the copy from the changelog.
const layout = "views-3"

// The parts of byID and byPath, by kind and status. An erased row is only in byID, in a part that is not listed.
const (
	active        = 'a'
	trashed       = 't'
	activeFolder  = 'A'
	trashedFolder = 'T'
	unlisted      = 'x'
)

// partOf returns the part of the indexes that a row is listed in, 0 for a row that is not listed.
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

// indexPrefix returns a new key that begins with an escaped workspace and a part.
func indexPrefix(workspace string, part byte) []byte {
	b := make([]byte, 0, len(workspace)+64)
	b = append(b, workspace...)
	return append(b, '/', part)
}

// appendPath appends a path without its end mark, so that it can also be a prefix.
func appendPath(b []byte, path string) []byte {
	for i := range len(path) {
		if b = append(b, path[i]); path[i] == 0 {
			b = append(b, 0xff)
		}
	}
	return b
}

func idKey(workspace, file string, row *tidemarkv1.FileState) []byte {
	part := partOf(row)
	if part == 0 {
		part = unlisted
	}
	return append(indexPrefix(workspace, part), file...)
}

// pathKey returns nil for a row that is not in byPath.
func pathKey(workspace, file string, row *tidemarkv1.FileState) []byte {
	part := partOf(row)
	if part == 0 || row.GetPath() == "" {
		return nil
	}
	return appendPathAndFile(indexPrefix(workspace, part), row.GetPath(), file)
}

func changeKey(workspace string, offset int64) []byte {
	b := make([]byte, 0, len(workspace)+9)
	b = append(append(b, workspace...), '/')
	return binary.BigEndian.AppendUint64(b, uint64(offset))
}

// idValue is the value of a byID entry.
func idValue(offset, version int64) []byte {
	return binary.AppendVarint(binary.BigEndian.AppendUint64(nil, uint64(offset)), version)
}

var errBadEntry = errors.New("the local copy has a bad index entry")

func parseIDValue(b []byte) (offset, version int64, err error) {
	if len(b) < 8 {
		return 0, 0, errBadEntry
	}
	version, n := binary.Varint(b[8:])
	if n <= 0 {
		return 0, 0, errBadEntry
	}
	return int64(binary.BigEndian.Uint64(b)), version, nil
}

func appendPathAndFile(b []byte, path, file string) []byte {
	b = append(appendPath(b, path), 0, 1)
	return append(b, file...)
}

// cutFile returns the file in the rest of a byPath key after the part; ok is false if the path has no end mark.
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

// An applied is the effect of one table record on the copy.
type applied struct {
	skipped string  // why it had no effect, "" if it had one
	detail  error   // what is wrong with a record of another program
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

// A rowKind says how the records of a table become rows and indexes. Records that are applied one by one, and records
// that are loaded, give the same.
type rowKind struct {
	// apply applies the record at a changelog offset.
	apply func(w *localstore.Writer, offset int64, key string, value []byte) (applied, error)
	// version returns the version of a record's row, or why the record is skipped.
	version func(key string, value []byte) (version int64, skipped applied)
	// derive returns the index entries of a row that was loaded.
	derive localstore.Derive
}

var (
	fileRows      = rowKind{applyFile, foldCountOf, deriveFile}
	workspaceRows = rowKind{applyWorkspace, workspaceVersion, deriveNothing}
)

// parseFile decodes a record of the files table; skipped says why it has no effect. A null has none: the groups that
// own the tables write none, so it is from another program, and the owner will write its row again.
func parseFile(key string, value []byte, row *tidemarkv1.FileState) (file string, skipped applied) {
	id, file, err := tidemarkv1.SplitKey(key)
	if err != nil || file == "" {
		return "", applied{skipped: skipBadKey, detail: err}
	}
	if value == nil {
		return "", applied{skipped: skipNull}
	}
	if err := proto.Unmarshal(value, row); err != nil || row.GetWorkspaceId() != id || row.GetFileId() != file {
		return "", applied{skipped: skipBadValue, detail: err}
	}
	return file, applied{}
}

func foldCountOf(key string, value []byte) (version int64, skipped applied) {
	var row tidemarkv1.FileState
	_, skipped = parseFile(key, value, &row)
	return rules.FoldCount(&row), skipped
}

func deriveFile(loaded localstore.Row, put localstore.Put) error {
	var row tidemarkv1.FileState
	file, skipped := parseFile(string(loaded.Key), loaded.Value, &row)
	if skipped.skipped != "" {
		return fmt.Errorf("%w: %s", errBadEntry, skipped.skipped) // it was decoded before it was loaded
	}
	key, _, _ := bytes.Cut(loaded.Key, []byte("/"))
	workspace := string(key)
	if path := pathKey(workspace, file, &row); path != nil {
		if err := put(byPath, path, nil); err != nil {
			return err
		}
	}
	return errors.Join(
		put(byID, idKey(workspace, file, &row), idValue(loaded.Offset, row.GetVersion())),
		put(byChange, changeKey(workspace, loaded.Offset), []byte(file)),
	)
}

func deriveNothing(localstore.Row, localstore.Put) error { return nil }

// applyFile applies a record of the files table to rows and indexes.
func applyFile(w *localstore.Writer, offset int64, key string, value []byte) (applied, error) {
	var before, row tidemarkv1.FileState
	file, skipped := parseFile(key, value, &row)
	if skipped.skipped != "" {
		return skipped, nil
	}
	workspace, _, _ := strings.Cut(key, "/") // escaped, as in index keys
	stored, err := w.Get(localstore.Rows, []byte(key))
	if err != nil {
		return applied{}, err
	}
	if stored != nil {
		if err := proto.Unmarshal(stored, &before); err != nil {
			return applied{}, err // it was decoded before it was stored
		}
	}
	done := applied{logID: row.GetLogId()}
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
	old := &before
	if stored == nil {
		old = nil
	}
	return done, reindex(w, workspace, file, old, &row, offset)
}

// reindex replaces the index entries of the row before, nil if there was none. An entry that stays is not written.
func reindex(w *localstore.Writer, workspace, file string, before, row *tidemarkv1.FileState, offset int64) error {
	var oldID, oldPath []byte
	id, path := idKey(workspace, file, row), pathKey(workspace, file, row)
	if before != nil {
		oldID, oldPath = idKey(workspace, file, before), pathKey(workspace, file, before)
		value, err := w.Get(byID, oldID)
		if err != nil {
			return err
		}
		last, _, err := parseIDValue(value)
		if err != nil {
			return fmt.Errorf("%w of file %q", err, file)
		}
		w.Delete(byChange, changeKey(workspace, last))
	}
	w.Set(byChange, changeKey(workspace, offset), []byte(file))
	if oldID != nil && !bytes.Equal(oldID, id) {
		w.Delete(byID, oldID)
	}
	w.Set(byID, id, idValue(offset, row.GetVersion()))
	if bytes.Equal(oldPath, path) {
		return nil
	}
	if oldPath != nil {
		w.Delete(byPath, oldPath)
	}
	if path != nil {
		w.Set(byPath, path, nil)
	}
	return nil
}

// parseWorkspace decodes a record of the workspaces table. A null has no effect: see parseFile.
func parseWorkspace(key string, value []byte, row *tidemarkv1.WorkspaceState) (skipped applied) {
	id, rest, err := tidemarkv1.SplitKey(key)
	if err != nil || rest != "" {
		return applied{skipped: skipBadKey, detail: err}
	}
	if value == nil {
		return applied{skipped: skipNull}
	}
	if err := proto.Unmarshal(value, row); err != nil || row.GetWorkspaceId() != id {
		return applied{skipped: skipBadValue, detail: err}
	}
	return applied{}
}

func workspaceVersion(key string, value []byte) (version int64, skipped applied) {
	var row tidemarkv1.WorkspaceState
	skipped = parseWorkspace(key, value, &row)
	return row.GetVersion(), skipped
}

// applyWorkspace applies a record of the workspaces table.
func applyWorkspace(w *localstore.Writer, _ int64, key string, value []byte) (applied, error) {
	var before, row tidemarkv1.WorkspaceState
	if skipped := parseWorkspace(key, value, &row); skipped.skipped != "" {
		return skipped, nil
	}
	stored, err := w.Get(localstore.Rows, []byte(key))
	if err != nil {
		return applied{}, err
	}
	if err := proto.Unmarshal(stored, &before); err != nil {
		return applied{}, err
	}
	done := applied{logID: row.GetLogId(), events: rules.AppliedOffsets(&row)}
	if stored != nil && row.GetVersion() < before.GetVersion() {
		done.skipped = skipOlder
		return done, nil
	}
	w.Set(localstore.Rows, []byte(key), value)
	return done, nil
}

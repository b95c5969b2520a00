package processors

import (
	"slices"
	"strings"

	"github.com/lovoo/goka"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"tidemark/file"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Fields of the tables' rows that are read without decoding the whole row: see proto/tidemark/v1.
const (
	fileVersionField      = 11 // FileState.version
	fileSilentField       = 44 // FileState.silent
	workspaceVersionField = 31 // WorkspaceState.version
	topicIDField          = 30 // FileState.log_id and WorkspaceState.log_id
)

// olderFile compares two rows of the files table by the events that were folded into them: see file.FoldCount.
func olderFile(record, stored []byte) bool {
	return versionOf(record, fileVersionField)+
		versionOf(record, fileSilentField) < versionOf(stored, fileVersionField)+versionOf(stored, fileSilentField)
}

// olderBy compares two rows by their version field.
func olderBy(field protowire.Number) func(record, stored []byte) bool {
	return func(record, stored []byte) bool { return versionOf(record, field) < versionOf(stored, field) }
}

// versionOf returns a varint field of a row; 0 if the row does not have it.
func versionOf(row []byte, field protowire.Number) uint64 {
	version, n := protowire.ConsumeVarint(valueOf(row, field, protowire.VarintType))
	if n < 0 {
		return 0
	}
	return version
}

// topicIDOf returns the id of the events topic that a row's position is in; empty if the row does not have it.
func topicIDOf(row []byte) string {
	id, n := protowire.ConsumeBytes(valueOf(row, topicIDField, protowire.BytesType))
	if n < 0 {
		return ""
	}
	return string(id)
}

// valueOf returns the rest of a row, from the value of a field on; nil if the row does not have it.
func valueOf(row []byte, field protowire.Number, kind protowire.Type) []byte {
	for len(row) > 0 {
		number, found, n := protowire.ConsumeTag(row)
		if n < 0 {
			return nil
		}
		row = row[n:]
		if number == field && found == kind {
			return row
		}
		if n = protowire.ConsumeFieldValue(number, found, row); n < 0 {
			return nil
		}
		row = row[n:]
	}
	return nil
}

// The keys of the index (see epochs.Config.Index), by prefix:
//
//	byParent      workspace "/" parent "/" entry: the rows with this parent
//	byOwnPath     workspace "/" path 0x00 parent "/" entry: the rows with this own path, and their parent
//	byFolderPath  workspace "/" path 0x00 folder: the folders with this present or former path that match by path
//
// Ids are escaped as in record keys. A path that contains 0x00 is not indexed, so its entry inherits nothing by path.
const (
	byParent     = "e"
	byOwnPath    = "p"
	byFolderPath = "f"
)

// index returns the index keys of a row that was read from the changelog.
func index(_ string, row []byte) []string {
	s := new(tidemarkv1.FileState)
	if proto.Unmarshal(row, s) != nil {
		return nil // another program wrote it
	}
	return indexKeys(s)
}

// setRow sets a row and updates its index keys.
func setRow(ctx goka.Context, before, after *tidemarkv1.FileState) {
	if !sameIndexKeys(before, after) {
		was, is := indexKeys(before), indexKeys(after)
		gone := slices.DeleteFunc(slices.Clone(was), func(key string) bool { return slices.Contains(is, key) })
		added := slices.DeleteFunc(is, func(key string) bool { return slices.Contains(was, key) })
		epochs.RowsOf(ctx).Reindex(gone, added)
	}
	ctx.SetValue(after) // published after the outputs are acknowledged
}

// sameIndexKeys reports whether two rows certainly have the same index keys.
func sameIndexKeys(a, b *tidemarkv1.FileState) bool {
	return a != nil && a.GetParentId() == b.GetParentId() && a.GetPath() == b.GetPath() &&
		a.GetOwnPath() == b.GetOwnPath() && a.GetUnplaced() == b.GetUnplaced() && !isFolder(b)
}

func indexKeys(s *tidemarkv1.FileState) (keys []string) {
	if s == nil {
		return nil
	}
	workspace, entry := tidemarkv1.EscapePart(s.GetWorkspaceId()), tidemarkv1.EscapePart(s.GetFileId())
	if s.GetParentId() != "" {
		keys = append(keys, childPrefix(workspace, s.GetParentId())+entry)
	}
	if path := file.OwnPath(s); path != "" && !strings.Contains(path, "\x00") {
		keys = append(keys, byOwnPath+workspace+"/"+path+"\x00"+tidemarkv1.EscapePart(s.GetParentId())+"/"+entry)
	}
	if file.MatchesByPath(s) {
		for _, path := range pathsOf(s) {
			if !strings.Contains(path, "\x00") {
				keys = append(keys, byFolderPath+workspace+"/"+strings.TrimSuffix(path, "/")+"\x00"+entry)
			}
		}
	}
	return keys
}

// childPrefix is the prefix of the index keys of a folder's children; the workspace is escaped.
func childPrefix(workspace, folder string) string {
	return byParent + workspace + "/" + tidemarkv1.EscapePart(folder) + "/"
}

package processors

import "google.golang.org/protobuf/encoding/protowire"

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

package why

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// agreement compares the row with the last notice.
func (e *evidence) agreement() (Agreement, string) {
	row, last := e.row, e.last
	switch {
	case row == nil && last == nil:
		return Unknown, "there is neither a row nor a notice that gave one"
	case e.pending(row, last):
		return Unknown, fmt.Sprintf("the notice of %s gave version %d, and the group has not committed it: "+
			"the row is written after the notice",
			at(last.GetPosition()), last.GetVersion())
	case row == nil:
		return Disagrees, fmt.Sprintf("the table has no row, though the notice of %s gave version %d",
			at(last.GetPosition()), last.GetVersion())
	case row.GetLogId() != e.eventsID && row.GetLogId() != "":
		return Unknown, "the row is from an events topic that was recreated since"
	case last == nil:
		return Unknown, "none of the notices read gave the row a version"
	case row.GetVersion() < last.GetVersion():
		return Disagrees, fmt.Sprintf("the row is at version %d, the notice of %s gave version %d: the table is behind",
			row.GetVersion(), at(last.GetPosition()), last.GetVersion())
	case row.GetVersion() > last.GetVersion():
		return Disagrees, fmt.Sprintf("the row is at version %d, of %s; the last notice, of %s, gave version %d",
			row.GetVersion(), at(row.GetPosition()), at(last.GetPosition()), last.GetVersion())
	}
	if fields := differences(row, last.GetAfter()); len(fields) > 0 {
		return Disagrees, fmt.Sprintf("at version %d the row and the notice of %s differ in %s",
			row.GetVersion(), at(last.GetPosition()), strings.Join(fields, ", "))
	}
	return Agrees, fmt.Sprintf("the row equals the state in the notice of %s, version %d",
		at(last.GetPosition()), row.GetVersion())
}

// pending reports whether the row of the last notice may not be written yet. The commit was read before anything else,
// and the rows of all events before it are in the table.
func (e *evidence) pending(row *tidemarkv1.FileState, last *tidemarkv1.Notice) bool {
	return last != nil && row.GetVersion() < last.GetVersion() && last.GetPosition().GetOffset() >= e.commit
}

func at(p *tidemarkv1.Position) string { return p.Text() }

// differences names the fields in which two states differ as clients see them.
func differences(a, b *tidemarkv1.FileState) []string {
	left, right := codecs.AppendFile(nil, a), codecs.AppendFile(nil, b)
	if bytes.Equal(left, right) {
		return nil
	}
	var x, y map[string]json.RawMessage
	if json.Unmarshal(left, &x) != nil || json.Unmarshal(right, &y) != nil {
		return []string{"their JSON"}
	}
	names := map[string]bool{}
	for name, value := range x {
		if !bytes.Equal(value, y[name]) {
			names[name] = true
		}
	}
	for name := range y {
		if _, both := x[name]; !both {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

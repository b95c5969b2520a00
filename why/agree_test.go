package why

import (
	"testing"

	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A notice is written before its row, so a row that is behind is a fault only if the group has committed the notice's
// event.
func TestAPendingRowIsNoFault(t *testing.T) {
	at := &tidemarkv1.Position{Partition: 3, Offset: 7}
	last := &tidemarkv1.Notice{Version: proto.Int64(2), Position: at}
	for _, test := range []struct {
		row    *tidemarkv1.FileState
		commit int64
		want   Agreement
	}{
		{&tidemarkv1.FileState{Version: 1}, 7, Unknown},
		{&tidemarkv1.FileState{Version: 1}, 8, Disagrees},
		{nil, 7, Unknown},
		{nil, 8, Disagrees},
		{&tidemarkv1.FileState{Version: 3}, 7, Disagrees},
	} {
		e := &evidence{row: test.row, last: last, commit: test.commit}
		if got, why := e.agreement(); got != test.want {
			t.Errorf("row %v, committed to %d: %v, %s; want %v", test.row, test.commit, got, why, test.want)
		}
	}
}

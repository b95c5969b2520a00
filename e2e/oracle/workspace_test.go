package oracle

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"tidemark/codecs"
	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A workspace past its bounds is counted as tidemark counts it, by code that shares nothing with it.
func TestBoundsOfAWorkspace(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var bodies []string
	for i := range 11_000 {
		bodies = append(bodies, fmt.Sprintf(`{"event":"added_member_to_workspace","workspace_id":"w","event_id":"m%d","object_id":"u%d"}`, i, i%10_400))
	}
	for i := range 6000 {
		what := []string{"added", "updated", "deleted", "restored"}[r.IntN(4)]
		if i%4 == 0 {
			bodies = append(bodies, fmt.Sprintf(`{"event":"%s_workspace","workspace_id":"w","event_id":"n%d","object_id":"u%d"}`,
				[]string{
					"added_member_to", "removed_member_from",
					"removed_member_from",
				}[r.IntN(3)], i, r.IntN(11_000)))
		} else {
			bodies = append(bodies, fmt.Sprintf(`{"event":"workspace_storage_file_%s","workspace_id":"w","event_id":"f%d","object_id":"f%d","mime":"t/%0*d"}`,
				what, i, r.IntN(1500), 1+r.IntN(10)*30, r.IntN(2000)))
		}
	}
	records := logOf(base, bodies...)
	m := NewModel("events", 8, records)
	rows := map[string]*tidemarkv1.FileState{}
	var got *tidemarkv1.WorkspaceState
	for _, rec := range records {
		e, err := codecs.ParseEvent(rec.Value)
		if err != nil {
			t.Fatal(err)
		}
		e.ReceivedAt, e.RecordedAt = rec.Timestamp.UnixMicro(), rec.Timestamp.UnixMicro()
		at := &tidemarkv1.Position{Partition: rec.Partition, Offset: rec.Offset}
		n := file.NoticeOf(nil, nil, e, at, false)
		if file.Touches(e) {
			after, late, verdict := file.Apply(rows[e.GetFileId()], e, at, "log")
			if verdict != file.Accepted {
				t.Fatalf("%s: verdict %d", rec.Value, verdict)
			}
			n = file.NoticeOf(rows[e.GetFileId()], after, e, at, late)
			rows[e.GetFileId()] = after
		}
		got, _ = file.Count(got, n, "log")
	}
	want := m.counts["w"]
	if d := countOf(got).doc().diff(want.doc()); d != "" {
		t.Errorf("%.2000s", d)
	}
	if want.byType["other"] == 0 || len(want.types) != maxTypes {
		t.Errorf("%d other, %d types: the test does not reach the bounds", want.byType["other"], len(want.types))
	}
}

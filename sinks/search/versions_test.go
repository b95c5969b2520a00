package search

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

func TestDeliver(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			long := string(make([]byte, 0, 256))
			for len(long) < 250 {
				long += "/ß"
			}
			deliverAll(t, s,
				record(t, active("ws", "a", 1, "/old.pdf")), record(t, active("ws", "a", 3, "/reports/q3.pdf")),
				record(t, active("ws", "b", 2, "/gone.pdf")), record(t, trashed("ws", "b", 3)),
				record(t, active("ws", long, 1, "/long.pdf")),
				record(t, active("ws1", "a", 9, "/other.pdf")),
			)
			deliverAll(t, s, record(t, active("ws", "a", 2, "/late.pdf")), record(t, active("ws", "b", 1, "/late.pdf")),
				record(t, active("ws", long, 2, "/long2.pdf")))
			want := []string{long + "@2", "a@3"}
			if diff := cmp.Diff(want, found(t, s, Query{Workspace: "ws"})); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{}, found(t, s, Query{Workspace: "ws", Q: "late"})); diff != "" {
				t.Error(diff)
			}
			page, err := s.Search(t.Context(), Query{Workspace: "ws", Q: "q3"})
			if err != nil {
				t.Fatal(err)
			}
			wantFile := `{"workspace_id":"ws","file_id":"a","name":"q3.pdf","path":"/reports/q3.pdf","mime":"application/pdf",` +
				`"status":"active","incomplete":false,"version":3,"position":"7:103","created_at":"2025-09-25T21:40:11Z",` +
				`"deleted_at":null}`
			if len(page.Files) != 1 || string(page.Files[0]) != wantFile {
				t.Errorf("%s, want the file as in the query API: %s", page.Files, wantFile)
			}
		})
	}
}

// A record that contradicts itself becomes a dead letter; the others of its batch are applied.
func TestDeliverRejects(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			otherFile := &tidemarkv1.IndexOp{
				Op: tidemarkv1.IndexOp_OP_UPSERT, Id: "ws/a", WorkspaceId: "ws", FileId: "a", Version: 1,
				Position: &tidemarkv1.Position{}, File: active("other", "a", 1, "/a"),
			}
			otherID := &tidemarkv1.IndexOp{
				Op: tidemarkv1.IndexOp_OP_DELETE, Id: "other/a", WorkspaceId: "ws", FileId: "a", Version: 1,
				Position: &tidemarkv1.Position{},
			}
			good := record(t, active("ws", "good", 1, "/good"))
			bad := []*sinks.Record{{}, {Value: []byte("{")}, {Value: []byte(`{"op":"upsert"}`)}, recordOf(t, otherFile), recordOf(t, otherID)}
			rejected := deliverAll(t, s, append(slices.Clone(bad), good)...)
			if !slices.Equal(rejected, bad) {
				t.Errorf("%d rejected, want %d", len(rejected), len(bad))
			}
			if diff := cmp.Diff([]string{"good@1"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// An index must have the newest version after each of these. Kafka offsets as versions, as the stock connectors use
// them, fail: that is the control.
func TestNewestVersionRemains(t *testing.T) {
	at := func(offset int64, r *sinks.Record) *sinks.Record {
		r.Offset = offset
		return r
	}
	v1, v2 := active("ws", "a", 1, "/v1.pdf"), active("ws", "a", 2, "/v2.pdf")
	histories := map[string][]*sinks.Record{
		// After a repartitioning the topic has the newest record of each file, in other partitions at other offsets.
		"repartitioning": {at(70, record(t, v1)), at(3, record(t, v1)), at(4, record(t, v2))},
		// A group that is reset reads old records that its index has already; here v2 came from a replayed dead letter.
		"replay": {at(5, record(t, v2)), at(6, record(t, v1))},
		// A topic that was created again has offsets from 0 again.
		"new-topic": {at(900, record(t, v1)), at(0, record(t, v1)), at(1, record(t, v2))},
	}
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			for name, history := range histories {
				var control []*tidemarkv1.FileState
				for _, r := range history {
					deliverAll(t, s, r)
					d, err := decode(r.Value)
					if err != nil {
						t.Fatal(err)
					}
					d.Version, d.WorkspaceId = r.Offset+1, name
					control = append(control, d)
				}
				if diff := cmp.Diff([]string{"a@2"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
					t.Errorf("%s: %s", name, diff)
				}
				applyControl(t, s, control)
				if got := found(t, s, Query{Workspace: name, PathPrefix: "/v2"}); len(got) > 0 {
					t.Errorf("%s: offsets as versions end with %v: the control does not fail", name, got)
				}
			}
		})
	}
}

func applyControl(t *testing.T, s *Sink, docs []*tidemarkv1.FileState) {
	t.Helper()
	var all []document
	for _, d := range docs {
		all = append(all, document{file: d})
	}
	if _, err := s.apply(t.Context(), all); err != nil {
		t.Fatal(err)
	}
}

// Any interleaving and repetition of records ends with the newest version of each file.
func TestAnyOrder(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			for seed := range uint64(5) {
				r := rand.New(rand.NewPCG(seed, 18))
				workspace := fmt.Sprintf("ws%d", seed)
				model := map[string]*tidemarkv1.FileState{}
				var records []*sinks.Record
				for range 300 {
					id := fmt.Sprintf("f%d", r.IntN(25))
					version := model[id].GetVersion() + 1
					f := active(workspace, id, version, fmt.Sprintf("/d%d/v%d.pdf", r.IntN(3), version))
					if r.IntN(4) == 0 {
						f = trashed(workspace, id, version)
					}
					model[id] = f
					records = append(records, record(t, f))
				}
				for range 300 {
					records = append(records, records[r.IntN(300)])
				}
				r.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
				var all sync.WaitGroup
				for batch := range slices.Chunk(records, 1+r.IntN(60)) {
					all.Go(func() {
						if rejected := deliverAll(t, s, batch...); len(rejected) > 0 {
							t.Errorf("%d rejected", len(rejected))
						}
					})
				}
				all.Wait()
				compareToModel(t, s, workspace, model)
			}
		})
	}
}

func compareToModel(t *testing.T, s *Sink, workspace string, model map[string]*tidemarkv1.FileState) {
	t.Helper()
	for _, q := range []Query{{Limit: 7}, {PathPrefix: "/d1/", Limit: 3}, {Q: "V1", Limit: 4}} {
		q.Workspace = workspace
		want := []string{}
		for _, id := range slices.Sorted(maps.Keys(model)) {
			f := model[id]
			if f.GetStatus() == tidemarkv1.Status_STATUS_ACTIVE &&
				(q.PathPrefix == "" || f.GetPath()[:4] == q.PathPrefix) && (q.Q == "" || f.GetName()[:2] == "v1") {
				want = append(want, fmt.Sprintf("%s@%d", id, f.GetVersion()))
			}
		}
		if diff := cmp.Diff(want, found(t, s, q)); diff != "" {
			t.Errorf("%+v: %s", q, diff)
		}
	}
}

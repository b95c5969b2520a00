package search

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// predicted returns the record of a prediction whose output is its version, as the model sink writes it.
func predicted(workspace, id string, version int64, rule string) *sinks.Record {
	value := fmt.Sprintf(`{"op":"upsert","into":"search","id":%q,"workspace_id":%q,"file_id":%q,"version":%d,`+
		`"position":"7:1","rule":%q,"model":"m","model_version":"3","outputs":{"label":%[4]d}}`,
		tidemarkv1.JoinKey(workspace, id), workspace, id, version, rule)
	return &sinks.Record{Topic: "fastio-predictions", Partition: 7, Value: []byte(value)}
}

// unpredicted returns the record for a deleted file.
func unpredicted(workspace, id string, version int64, rule string) *sinks.Record {
	value := fmt.Sprintf(`{"op":"delete","into":"search","id":%q,"workspace_id":%q,"file_id":%q,"version":%d,"rule":%q}`,
		tidemarkv1.JoinKey(workspace, id), workspace, id, version, rule)
	return &sinks.Record{Topic: "fastio-predictions", Partition: 7, Value: []byte(value)}
}

// shown returns the files of a workspace as "id@version rule=label ...".
func shown(t *testing.T, s *Sink, workspace string) []string {
	t.Helper()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	page, err := s.Search(t.Context(), Query{Workspace: workspace, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for _, raw := range page.Files {
		var f struct {
			FileID      string `json:"file_id"`
			Version     int64
			Predictions map[string]struct{ Outputs struct{ Label int64 } }
		}
		if err := json.Unmarshal(raw, &f); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprintf("%s@%d", f.FileID, f.Version)
		for _, rule := range []string{"a", "b"} {
			if p, ok := f.Predictions[rule]; ok {
				text += fmt.Sprintf(" %s=%d", rule, p.Outputs.Label)
			}
		}
		all = append(all, text)
	}
	return all
}

// A prediction is shown with the version that it is about, and with no other, whatever came first.
func TestPredictions(t *testing.T) {
	v := func(n int64) *tidemarkv1.FileState { return active("ws", "f", n, "/q3.pdf") }
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			step := func(want string, batch ...*sinks.Record) {
				t.Helper()
				deliverAll(t, s, batch...)
				if diff := cmp.Diff(want, strings.Join(shown(t, s, "ws"), ", ")); diff != "" {
					t.Error(diff)
				}
			}
			step("", predicted("ws", "f", 1, "a")) // first, and it is no file by itself
			step("f@1 a=1", record(t, v(1)))
			step("f@1 a=1 b=1", predicted("ws", "f", 1, "b"), predicted("other", "f", 1, "b"))
			step("f@2", record(t, v(2)))
			step("f@2", predicted("ws", "f", 1, "a"), record(t, v(1)))                  // all again
			step("f@2 b=2", predicted("ws", "f", 2, "b"), predicted("ws", "f", 1, "b")) // an old one last
			step("f@2 b=2", predicted("ws", "f", 3, "a"))
			step("f@3 a=3", record(t, v(3)))
			step("", record(t, trashed("ws", "f", 4)), unpredicted("ws", "f", 4, "a"))
			step("f@5", record(t, v(5)))
			page, err := s.Search(t.Context(), Query{Workspace: "ws"})
			if err != nil || strings.Contains(string(page.Files[0]), "predictions") {
				t.Errorf("%s, %v: want the file alone", page.Files, err)
			}
			deliverAll(t, s, predicted("ws", "f", 5, "a"))
			step("f@5 a=5")
			page, err = s.Search(t.Context(), Query{Workspace: "ws"})
			want := `,"predictions":{"a":{"model":"m","model_version":"3","outputs":{"label":5}}}}`
			if err != nil || !strings.HasSuffix(string(page.Files[0]), want) {
				t.Errorf("%s, %v, want %s at its end", page.Files, err, want)
			}
		})
	}
}

// Any order and repetition of index records and predictions ends with the same documents.
func TestPredictionsInAnyOrder(t *testing.T) {
	for name, open := range both {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			for seed := range uint64(3) {
				r := rand.New(rand.NewPCG(seed, 28))
				workspace := fmt.Sprintf("ws%d", seed)
				var records []*sinks.Record
				want := []string{}
				for i := range 20 {
					id, versions := fmt.Sprintf("f%02d", i), 1+r.Int64N(4)
					text := fmt.Sprintf("%s@%d", id, versions)
					for v := int64(1); v <= versions; v++ {
						records = append(records, record(t, active(workspace, id, v, "/x")))
						for _, rule := range []string{"a", "b"} {
							if r.IntN(2) == 0 {
								continue
							}
							records = append(records, predicted(workspace, id, v, rule))
							if v == versions {
								text += fmt.Sprintf(" %s=%d", rule, v)
							}
						}
					}
					want = append(want, text)
				}
				records = append(records, records...)
				r.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
				var all sync.WaitGroup
				for start := 0; start < len(records); start += 25 {
					batch := records[start:min(start+25, len(records))]
					all.Go(func() { deliverAll(t, s, batch...) })
				}
				all.Wait()
				if diff := cmp.Diff(want, shown(t, s, workspace)); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// What contradicts itself is rejected, and a rule that is not for the index is left out.
func TestPredictionsRefused(t *testing.T) {
	s := embeddedForTest(t)
	bad := predicted("ws", "f", 0, "a")
	otherID := predicted("ws", "f", 1, "a")
	otherID.Value = []byte(strings.Replace(string(otherID.Value), `"id":"ws/f"`, `"id":"other/f"`, 1))
	large := predicted("ws", "f", 1, "a")
	large.Value = []byte(strings.Replace(string(large.Value), `"label":1`, `"x":"`+strings.Repeat("x", maxOutputs)+`"`, 1))
	elsewhere := predicted("ws", "f", 1, "a")
	elsewhere.Value = []byte(strings.Replace(string(elsewhere.Value), `"into":"search",`, ``, 1))
	err := s.Deliver(t.Context(), []*sinks.Record{bad, otherID, large, elsewhere})
	partial, ok := err.(*sinks.Partial) //nolint:errorlint // the very error
	if !ok || len(partial.Rejected) != 3 || partial.Rejected[elsewhere] != nil || partial.Skipped != 1 {
		t.Errorf("%+v", err)
	}
	for r, why := range partial.Rejected {
		if why.Answer != "" {
			t.Errorf("%s: %v: the index was not asked", r.Value, why)
		}
	}
}

package processors_test

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A null, or an older record, that another writer puts into the tables or the index is undone, while the groups run and
// when they start again: row, index record and counts stay one.
func TestForeignRecordsInTheTablesAreReverted(t *testing.T) {
	for _, guarantee := range []epochs.Guarantee{epochs.AtLeastOnce, epochs.ExactlyOnce} {
		t.Run(string(guarantee), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.conf.Guarantee, b.conf.InstanceID = guarantee, "one"
			s, row, workspace := b.conf.Streams, tidemarkv1.JoinKey("w", "f"), tidemarkv1.JoinKey("w", "")
			foreign := func(topic topology.Topic, key string, value []byte) {
				t.Helper()
				b.put(t, &kgo.Record{
					Topic: topic.Name, Partition: kafka.Partition("w", 4), Key: []byte(key),
					Value: value,
				})
			}
			look := func() string {
				state, index := &tidemarkv1.FileState{}, b.last(t, s.Index, row)
				if err := proto.Unmarshal(b.last(t, s.Files, row), state); err != nil {
					t.Fatal(err)
				}
				indexed := int64(0)
				if index != nil {
					indexed = decode[struct{ Version int64 }](t, &kgo.Record{Value: index}).Version
				}
				w := b.workspace(t, "w")
				return fmt.Sprintf("row v%d, index v%d, %d files of %d bytes, %d events", state.GetVersion(), indexed,
					w.GetFiles(), w.GetBytes(), w.GetEvents())
			}

			stop := b.start(t)
			b.send(t, "w", event("added", "w", "e1", "f", `,"size":10`))
			waitFor(t, look, "row v1, index v1, 1 files of 10 bytes, 1 events")
			oldRow, oldIndex, oldCounts := b.last(t, s.Files, row), b.last(t, s.Index, row), b.last(t, s.Workspaces,
				workspace)
			b.send(t, "w", event("updated", "w", "e2", "f", `,"size":12`))
			waitFor(t, look, "row v2, index v2, 1 files of 12 bytes, 2 events")
			nulls := func() {
				t.Helper()
				foreign(s.Files, row, nil)
				foreign(s.Index, row, nil)
				foreign(s.Workspaces, workspace, nil)
			}
			nulls()
			waitFor(t, look, "row v2, index v2, 1 files of 12 bytes, 2 events")
			foreign(s.Files, row, oldRow)
			foreign(s.Index, row, oldIndex)
			foreign(s.Workspaces, workspace, oldCounts)
			waitFor(t, look, "row v2, index v2, 1 files of 12 bytes, 2 events")
			b.send(t, "w", event("updated", "w", "e3", "f", `,"size":15`))
			waitFor(t, look, "row v3, index v3, 1 files of 15 bytes, 3 events")
			stop()

			nulls()
			stop = b.start(t)
			waitFor(t, look, "row v3, index v3, 1 files of 15 bytes, 3 events")
			b.send(t, "w", event("deleted", "w", "e4", "f", ""))
			waitFor(t, look, "row v4, index v4, 0 files of 0 bytes, 4 events")
			stop()

			nulls()
			b.conf.Dir = t.TempDir() // the changelog is enough as long as compaction has not run
			stop = b.start(t)
			defer stop()
			b.send(t, "w", event("restored", "w", "e5", "f", ""))
			waitFor(t, look, "row v5, index v5, 1 files of 15 bytes, 5 events")
		})
	}
}

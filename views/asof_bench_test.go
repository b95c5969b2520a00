package views

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	rules "tidemark/file"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const benchFiles = 20_000

// newBenchPast returns a server with files of one workspace, each of which was added and then changed.
func newBenchPast(b *testing.B) *fixture {
	b.Helper()
	f := newFixture(b, func(c *Config) { c.Log, c.Metrics = slog.New(slog.DiscardHandler), prometheus.NewRegistry() })
	f.beginHistory()
	partition := kafka.Partition("ws", 4)
	var row *tidemarkv1.WorkspaceState
	for i := range int64(2 * benchFiles) {
		id := fmt.Sprintf("2abcdefghijk%08d", i%benchFiles)
		state := func(version, offset int64) *tidemarkv1.FileState {
			s := fileRow("ws", id, fmt.Sprintf("/reports/%d/of/%s", version, id), isActive, version)
			s.Position, s.Size = &tidemarkv1.Position{Partition: partition, Offset: offset}, new(offset)
			s.Seen = make([]byte, 24*version)
			return s
		}
		n := &tidemarkv1.Notice{WorkspaceId: "ws", FileId: id, EventId: "e", Event: "e", At: i * 1e6, ActorId: "u"}
		version := i/benchFiles + 1
		n.After, n.Version = state(version, i), &version
		n.Position = n.After.Position
		if version > 1 {
			n.Before = state(1, i-benchFiles)
		}
		value, err := codecs.Notice{}.Encode(n)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.history.Apply(&kgo.Record{
			Partition: partition, Offset: i, Value: value, Timestamp: time.Now(),
		}); err != nil {
			b.Fatal(err)
		}
		f.put(n.After)
		row, _ = rules.Count(row, n, testLog)
	}
	f.putWorkspace(row)
	p := partition
	f.now.filesCommit[p], f.now.eventsEnd[p], f.now.filesEnd[p] = 2*benchFiles, 2*benchFiles, f.files[p]
	f.now.notifyEnd[p], f.now.notifyCommit[p], f.now.workspacesEnd[p] = 2*benchFiles, 2*benchFiles, f.works[p]
	f.poll()
	return f
}

// BenchmarkAsOf reports pages of 100 of which the history has all states, none, and no file at all, the counts of a
// workspace less 20,000 notices, and the usage of 20,000 files.
func BenchmarkAsOf(b *testing.B) {
	f := newBenchPast(b)
	at := func(offset int) string { return fmt.Sprintf("as_of=%d:%d", kafka.Partition("ws", 4), offset) }
	for _, c := range []struct{ name, target string }{
		{"page from history", "/files?limit=100&" + at(benchFiles-1)},
		{"page from rows", "/files?limit=100&" + at(2*benchFiles-1)},
		{"page without hits", "/files?limit=100&status=trashed&" + at(benchFiles-1)},
		{"page of now", "/files?limit=100"},
		{"file", "/files/2abcdefghijk00000007?" + at(benchFiles-1)},
		{"workspace", "?" + at(benchFiles-1)},
		{"usage cached", "/usage?by=type,folder,actor"},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if w := f.get("/v1/workspaces/ws" + c.target); w.Code != 200 {
					b.Fatal(w.Code, w.Body)
				}
			}
		})
	}
	b.Run("usage", func(b *testing.B) {
		for b.Loop() {
			f.usages = usageCache{}
			if w := f.get("/v1/workspaces/ws/usage"); w.Code != 200 {
				b.Fatal(w.Code, w.Body)
			}
		}
	})
}

package processors_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// states returns the last row of each file, by its id.
func (b *bench) states(t *testing.T) map[string]*tidemarkv1.FileState {
	t.Helper()
	found := map[string]*tidemarkv1.FileState{}
	extent, err := kafka.Extent(t.Context(), b.conf.Kafka, b.conf.Streams.Files.Name)
	if err != nil {
		t.Fatal(err)
	}
	err = kafka.Read(t.Context(), b.conf.Kafka, b.conf.Streams.Files.Name, extent, func(r *kgo.Record) error {
		row := new(tidemarkv1.FileState)
		if err := proto.Unmarshal(r.Value, row); err != nil {
			return err
		}
		found[row.GetFileId()] = row
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// show counts rows by where they are and by their status.
func show(rows map[string]*tidemarkv1.FileState) string {
	count := map[string]int{}
	for _, row := range rows {
		dir := row.GetPath()[:max(0, len(row.GetPath())-len("/f0000"))]
		if row.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
			dir = row.GetPath() + "/"
		}
		count[fmt.Sprintf("%s %s", dir, map[tidemarkv1.Status]string{1: "active", 2: "trashed"}[row.GetStatus()])]++
	}
	all := ""
	for _, key := range slices.Sorted(maps.Keys(count)) {
		all += fmt.Sprintf("%s: %d; ", key, count[key])
	}
	return all
}

// A folder's entries are visited in steps of 500 events; each entry gets one event, whatever the folder has.
func TestFoldersReachTheirEntries(t *testing.T) {
	for _, guarantee := range []epochs.Guarantee{epochs.AtLeastOnce, epochs.ExactlyOnce} {
		t.Run(string(guarantee), func(t *testing.T) {
			b := newBench(t)
			b.conf.Guarantee, b.conf.InstanceID = guarantee, "one"
			stop := b.start(t)
			second := 0
			send := func(event, id, more string) {
				second++
				b.send(t, "w", fmt.Sprintf(`{"event":"workspace_storage_%s","workspace_id":"w","event_id":"e%d","object_id":%q,"created":%q%s}`,
					event, second, id, time.Date(2026, 9, 25, 0, 0, second, 0, time.UTC).Format(time.RFC3339), more))
			}
			const files = 1200
			send("folder_created", "d1", `,"path":"/docs"`)
			send("folder_created", "d2", `,"path":"/docs/sub","parent_id":"d1"`)
			for i := range files {
				switch name := fmt.Sprintf("f%04d", i); i % 3 {
				case 0:
					send("file_added", name, `,"path":"/docs/`+name+`","parent_id":"d1","size":1`)
				case 1:
					send("file_added", name, `,"path":"/docs/sub/`+name+`","parent_id":"d2","size":1`)
				case 2:
					send("file_added", name, `,"path":"/docs/x/`+name+`","size":1`)
				}
			}
			send("file_deleted", "f0000", "")
			send("folder_moved", "d1", `,"path":"/papers"`)
			waitFor(t, func() string { return show(b.states(t)) },
				"/papers active: 399; /papers trashed: 1; /papers/ active: 1; /papers/sub active: 400; /papers/sub/ "+
					"active: 1; /papers/x active: 400; ")
			send("folder_deleted", "d1", "")
			waitFor(t, func() string { return show(b.states(t)) },
				"/papers trashed: 400; /papers/ trashed: 1; /papers/sub trashed: 400; /papers/sub/ trashed: 1; "+
					"/papers/x trashed: 400; ")
			send("file_added", "f9999", `,"path":"/papers/f9999"`)
			send("folder_restored", "d1", "")
			waitFor(t, func() string { return show(b.states(t)) },
				"/papers active: 400; /papers trashed: 1; /papers/ active: 1; /papers/sub active: 400; /papers/sub/ "+
					"active: 1; /papers/x active: 400; ")
			waitFor(t, func() string {
				w := b.workspace(t, "w")
				return fmt.Sprintf("%d files, %d bytes, %d trashed, %d events", w.GetFiles(), w.GetBytes(),
					w.GetTrashed(), w.GetEvents())
			}, fmt.Sprintf("%d files, %d bytes, 1 trashed, %d events", files, files-1, second))
			stop()
			changes := 3*(files+1) - 2 // moved, deleted and restored, and f0000 only moved
			// Each change of an entry gives one notice, and of a file one index record.
			b.records(t, b.conf.Streams.Notify, second+changes)
			b.records(t, b.conf.Streams.Index, files+2+changes-3)
		})
	}
}

// One of a folder's paths may be below another. The entries below both are visited once, and the walk ends.
func TestWalkEndsWithNestedPaths(t *testing.T) {
	b := newBench(t)
	stop := b.start(t)
	defer stop()
	send := func(event, id, path string) {
		b.send(t, "w", fmt.Sprintf(`{"event":"workspace_storage_%s","workspace_id":"w","event_id":"%s %s","object_id":%q,"path":%q}`, event, event, path, id, path))
	}
	const files = 1100
	send("folder_created", "d", "/a/b")
	for i := range files {
		name := fmt.Sprintf("f%04d", i)
		send("file_added", name, "/a/b/"+name)
	}
	events := func() (n int64) {
		extent, err := kafka.Extent(t.Context(), b.conf.Kafka, b.conf.Streams.Events.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, span := range extent {
			n += span.To - span.From
		}
		return n
	}
	for _, path := range []string{"/a", "/a/b/c"} {
		send("folder_moved", "d", path)
		waitFor(t, func() string { return show(b.states(t)) },
			fmt.Sprintf("%s active: %d; %s/ active: 1; ", path, files, path))
		last := int64(-1)
		waitFor(t, func() string {
			now := events()
			ended := now == last
			last = now
			time.Sleep(300 * time.Millisecond)
			return fmt.Sprint(ended)
		}, "true")
	}
	if n := events(); n > 3+3*files+40 {
		t.Errorf("%d events of %d files and 3 of their folder", n, files)
	}
}

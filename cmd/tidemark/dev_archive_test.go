package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
	"tidemark/replay"
)

// Every event that the ingress of dev accepted is in the archive once, at the position that was answered, also after a
// restart in the middle of an object. DuckDB finds the same.
func TestDevArchives(t *testing.T) {
	data, prefix := t.TempDir(), fmt.Sprintf("cmd%08x", rand.Uint32())
	folder := filepath.Join(data, "archive")
	more := []string{"--archive-window", "1s"}
	if os.Getenv("KAFKA_BROKERS") != "" { // on a cluster dev has no archive by itself
		more = append(more, "--archive-url", "file://"+folder)
	}
	accepted := map[string]string{} // position by event
	d := startDev(t, data, prefix, more...)
	send := func(kind string, n int) {
		for i := range n {
			id := fmt.Sprintf("%s%d", kind, i)
			accepted[id] = d.send(t, data, "--workspace", fmt.Sprint("w", i%16), "--file", fmt.Sprint("f", i),
				"--event-id", id, "--name", "q3.pdf", "--size", "12", "--wait", "0")
		}
	}
	send("first", 60)
	time.Sleep(1100 * time.Millisecond) // the next event of each partition ends its object
	send("second", 30)
	d.stop(t)
	d = startDev(t, data, prefix, more...)
	send("third", 40)
	time.Sleep(1100 * time.Millisecond)
	want := maps.Clone(accepted)
	send("last", 16) // some of them are in objects that stay open
	found := map[string]string{}
	for begin := time.Now(); len(found) < len(want) && time.Since(begin) < 20*time.Second; {
		time.Sleep(50 * time.Millisecond)
		found = archivedEvents(t, "file://"+folder, prefix+"-events")
		maps.DeleteFunc(found, func(id, _ string) bool { return strings.HasPrefix(id, "last") })
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("position of each event (-accepted +archived):\n%s", diff)
	}
	t.Run("DuckDB", func(t *testing.T) { countWithDuckDB(t, folder, len(found)) })
	d.stop(t)
}

func TestArchiveOfDev(t *testing.T) {
	for _, test := range []struct{ given, brokers, want string }{
		{"", "", "file:///a%20b/archive"},
		{"none", "", ""},
		{"", "kafka:9092", ""},
		{"s3://bucket", "kafka:9092", "s3://bucket"},
	} {
		c := devCommand{Data: "/a b"}
		c.ArchiveURL = test.given
		if test.brokers != "" {
			c.Brokers = []string{test.brokers}
		}
		if got, err := c.archiveURL(); err != nil || got != test.want {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
}

// archivedEvents returns the positions of archived events, and fails if there are two of one.
func archivedEvents(t *testing.T, url, topic string) map[string]string {
	t.Helper()
	reader, err := replay.OpenArchive(t.Context(), parquetlog.Location{URL: url}, topic, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for partition := range int32(4) {
		err := reader.Read(t.Context(), partition, 0, func(r *kgo.Record) error {
			var event struct {
				ID string `json:"event_id"`
			}
			if err := json.Unmarshal(r.Value, &event); err != nil {
				return err
			}
			if at := found[event.ID]; at != "" {
				t.Errorf("%s is archived twice: at %s and at offset %d", event.ID, at, r.Offset)
			}
			found[event.ID] = fmt.Sprintf("%d:%d", partition, r.Offset)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func countWithDuckDB(t *testing.T, folder string, want int) {
	t.Helper()
	python, err := exec.Command("../../.ci/python").Output()
	if err != nil {
		t.Skip("no Python with DuckDB: see .ci/python")
	}
	query := exec.Command(strings.TrimSpace(string(python)), "-c", `
import duckdb, sys
print(*duckdb.connect().execute(f"""
	SELECT count(*), count(DISTINCT event_id), count(DISTINCT (partition, "offset")), count(*) FILTER (size = 12)
	FROM '{sys.argv[1]}/*/*/*/*.parquet' WHERE event_id NOT LIKE 'last%'
""").fetchone())`, folder)
	query.Stderr = os.Stderr
	out, err := query.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != fmt.Sprintf("%d %[1]d %[1]d %[1]d", want) {
		t.Errorf("DuckDB counts %s, want %d", got, want)
	}
}

package views_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tidemark/codecs"
	"tidemark/devbroker"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/views"
)

// The history of one file on a broker: over a restart, with a new folder, and by time.
func TestHistoryOnABroker(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	begin := time.Now().Add(-3 * time.Hour)
	var before *tidemarkv1.FileState
	var positions []*tidemarkv1.Position
	change := func() {
		t.Helper()
		version := int64(len(positions) + 1)
		p := r.produce(r.streams.Events.Name, "ws", []byte("{}"), begin.Add(time.Duration(version-1)*time.Minute))
		positions = append(positions, p)
		after := &tidemarkv1.FileState{
			WorkspaceId: "ws", FileId: "f", Path: fmt.Sprint("/", version), Version: version,
			Status: tidemarkv1.Status_STATUS_ACTIVE, Position: p,
		}
		value, err := codecs.Notice{}.Encode(&tidemarkv1.Notice{
			WorkspaceId: "ws", FileId: "f", EventId: "e", Event: "workspace_storage_file_updated", Position: p,
			At: begin.UnixMicro(), Version: &version, Before: before, After: after,
		})
		if err != nil {
			t.Fatal(err)
		}
		before = after
		for range 2 { // repeated
			r.produce(r.streams.Notify.Name, "ws/f", value, time.Time{})
		}
		r.row("ws", "f", after.Path, version, p)
		r.commit(r.streams.FilesGroup, r.streams.Events.Name, p)
	}
	keep := func(c *views.Config) { c.History = 168 * time.Hour }
	for range 3 {
		change()
	}
	for _, state := range []string{"new", "kept", "wiped"} {
		up := r.serve(keep)
		change()
		for i, p := range positions {
			want := fmt.Sprintf(`"path":"/%d"`, i+1)
			at := begin.Add(time.Duration(i)*time.Minute + 30*time.Second).UTC().Format(time.RFC3339)
			for _, asOf := range []string{p.Text(), at} {
				status, body, _ := up.get("/v1/workspaces/ws/files/f?wait=20s&as_of=" + asOf)
				if status != 200 || !strings.Contains(body, want) {
					t.Errorf("folder %s, as of %s: %d %s, want %s", state, asOf, status, body, want)
				}
				status, body, _ = up.get("/v1/workspaces/ws/files?wait=20s&as_of=" + asOf)
				if status != 200 || !strings.Contains(body, want) {
					t.Errorf("folder %s, listing as of %s: %d %s, want %s", state, asOf, status, body, want)
				}
			}
		}
		status, body, _ := up.get("/v1/workspaces/ws/files/f/history?wait=20s")
		if status != 200 || strings.Count(body, `"changed"`) != len(positions) {
			t.Errorf("folder %s: history %d %s", state, status, body)
		}
		if status, body, _ := up.get("/v1/workspaces/ws/usage?wait=20s"); status != 200 ||
			!strings.Contains(body, fmt.Sprintf(`"events":%d,"added":1`, len(positions))) {
			t.Errorf("folder %s: usage %d %s", state, status, body)
		}
		early := begin.Add(-time.Minute).UTC().Format(time.RFC3339)
		if status, body, _ := up.get("/v1/workspaces/ws/files/f?as_of=" + early); status != 404 {
			t.Errorf("folder %s, before the first event: %d %s", state, status, body)
		}
		up.stop()
		if state == "kept" {
			r.dir = t.TempDir()
		}
	}
}

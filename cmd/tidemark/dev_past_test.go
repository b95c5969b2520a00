package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// checkPast asks what file 2abc of w/1 was after it was added, and what has happened.
func (d *devProcess) checkPast(t *testing.T, added, deleted string) {
	t.Helper()
	for path, want := range map[string]string{
		"/files/2abc?as_of=" + added:                          `"status":"active","incomplete":false,"version":1,`,
		"/files?as_of=" + added:                               `"file_id":"2abc"`,
		"/files?as_of=" + deleted:                             `"files":[]`,
		"?as_of=" + added:                                     `"files":1,"bytes":12,"trashed":0,"by_type":{"unknown":1},`,
		"?as_of=" + deleted:                                   `"files":0,"bytes":0,"trashed":1,"by_type":{},"events":2}`,
		"/files/2abc/history?at_least=" + deleted:             `"status":{"from":"active","to":"trashed"}`,
		"/usage?by=folder,actor&at_least=" + deleted:          `"added":1,"updated":0,"deleted":1,"bytes_added":12,`,
		"/files/2abc/history?limit=1":                         `"complete_from":"` + strings.Split(added, ":")[0] + `:0"`,
		"?as_of=" + time.Now().UTC().Format(time.RFC3339Nano): `"trashed":1`,
		"/files/2abc?as_of=2001-01-01T00:00:00Z&wait=0":       `"code":"unknown_file"`,
	} {
		if status, body := d.ask(t, d.api+"/v1/workspaces/w%2F1"+path); !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %s", path, status, body, want)
		}
	}
}

// A file as of a position is what was answered when that was the last one, with moves of its folder, transactions and
// the markers between them.
func TestThePastIsWhatWasAnswered(t *testing.T) {
	for _, guarantee := range []string{"at_least_once", "exactly_once"} {
		t.Run(guarantee, func(t *testing.T) {
			data, prefix := t.TempDir(), fmt.Sprintf("cmd%08x", rand.Uint32())
			d := startDev(t, data, prefix, "--guarantee", guarantee, "--instance-id", "past")
			answered := map[string]string{} // by position
			send := func(args ...string) string {
				t.Helper()
				at := d.send(t, data, append([]string{"--workspace", "w"}, args...)...)
				status, body := d.ask(t, d.api+"/v1/workspaces/w/files/f?wait=30s&at_least="+at)
				if status == 200 {
					answered[at] = body
				}
				return at
			}
			folder := func(event, path string) {
				at := send("--file", "d", "--event", "workspace_storage_folder_"+event, "--path", path)
				for range 300 { // the file follows with an event of its own
					status, body := d.ask(t, d.api+"/v1/workspaces/w/files/f?wait=30s&at_least="+at)
					if status == 404 || strings.Contains(body, `"path":"`+path+"/") {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
				t.Fatalf("the file has not followed its folder to %s", path)
			}
			folder("created", "/r")
			send("--file", "f", "--path", "/r/a.txt", "--size", "1")
			folder("moved", "/s")
			send("--file", "f", "--event", "workspace_storage_file_updated", "--size", "2")
			folder("moved", "/t")
			last := send("--file", "f", "--event", "workspace_storage_file_deleted")
			moves := 0
			for at, want := range answered {
				status, body := d.ask(t, d.api+"/v1/workspaces/w/files/f?wait=30s&as_of="+at)
				position := want[strings.Index(want, `"position":"`)+len(`"position":"`):]
				if position[:strings.Index(position, `"`)] != at { // of the move that followed
					moves++
					continue
				}
				if status != 200 || body != want {
					t.Errorf("as of %s: %d %s, want %s", at, status, body, want)
				}
			}
			_, history := d.ask(t, d.api+"/v1/workspaces/w/files/f/history?at_least="+last)
			if strings.Count(history, `"changed"`) != 5 || strings.Count(history, `"cause"`) != 2 || moves > 2 {
				t.Errorf("%d positions of folders, %s", moves, history)
			}
			d.checkUsage(t, data)
			d.stop(t)
		})
	}
}

// checkUsage sends each event twice, and asks what they add up to.
func (d *devProcess) checkUsage(t *testing.T, data string) {
	t.Helper()
	var last string
	for i, args := range [][]string{
		{"--file", "x", "--path", "/r/x", "--size", "10"},
		{"--file", "y", "--path", "/r/y", "--size", "5"},
		{"--file", "x", "--event", "workspace_storage_file_updated", "--size", "12"},
		{"--file", "y", "--event", "workspace_storage_file_deleted"},
	} {
		for range 2 {
			id := []string{"--workspace", "u", "--event-id", fmt.Sprint("evt_u", i)}
			last = d.send(t, data, append(id, args...)...)
		}
	}
	status, body := d.ask(t, d.api+"/v1/workspaces/u/usage?by=folder&wait=30s&at_least="+last)
	var u struct {
		Totals   struct{ Files, Bytes int }
		Activity struct{ Windows []map[string]any }
	}
	if err := json.Unmarshal([]byte(body), &u); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	sums := map[string]float64{}
	for _, w := range u.Activity.Windows { // two at midnight
		for name, n := range w {
			if n, ok := n.(float64); ok {
				sums[name] += n
			}
		}
	}
	want := map[string]float64{
		"events": 4, "added": 2, "updated": 1, "deleted": 1, "bytes_added": 17, "bytes_removed": 5,
	}
	if u.Totals.Files != 1 || u.Totals.Bytes != 12 || !maps.Equal(sums, want) {
		t.Errorf("%s, want %v", body, want)
	}
}

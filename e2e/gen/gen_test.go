package gen

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var base = time.Date(2026, 9, 25, 21, 40, 11, 0, time.UTC)

func TestSameSeedSameBytes(t *testing.T) {
	a, b := New(Config{Seed: 7, Events: 2000, Base: base}), New(Config{Seed: 7, Events: 2000, Base: base})
	if !bytes.Equal(flat(a), flat(b)) {
		t.Error("two histories of one seed differ")
	}
	if c := New(Config{Seed: 8, Events: 2000, Base: base}); bytes.Equal(flat(a), flat(c)) {
		t.Error("another seed gave the same history")
	}
}

func flat(h *History) []byte {
	var b bytes.Buffer
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			b.Write(d.Body)
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// The shares are the ones that the promise is tested with: a generator that drifts would test something else.
func TestShares(t *testing.T) {
	const n = 20_000
	h := New(Config{Seed: 1, Events: n, Base: base})
	var resent, late, refused, total, undated, withFile int
	first := map[string]bool{}
	perFile := map[string]int{}
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			if d.Refused {
				refused++
				continue
			}
			total++
			if d.Resent {
				resent++
			} else if first[w.ID+"\x00"+d.EventID] {
				t.Fatalf("event id %q is used twice", d.EventID)
			}
			first[w.ID+"\x00"+d.EventID] = true
			if d.Late {
				late++
			}
			if !utf8.Valid(d.Body) {
				t.Fatalf("not UTF-8: %q", d.Body)
			}
			var m map[string]any
			if err := json.Unmarshal(d.Body, &m); err != nil {
				t.Fatalf("%v: %s", err, d.Body)
			}
			if m["canary"] != w.Canary {
				t.Fatalf("canary of workspace %q is %v", w.ID, m["canary"])
			}
			if m["created"] == nil && m["timestamp"] == nil {
				undated++
			}
			name, _ := m["event"].(string)
			if other, _ := m["eventType"].(string); other != "" {
				name = other
			}
			object, _ := m["object_id"].(string)
			if other, _ := m["fileId"].(string); other != "" {
				object = other
			}
			if strings.Contains(name, "storage_file_") && object != "" && !d.Resent {
				withFile++
				perFile[w.ID+"\x00"+object]++
			}
		}
	}
	if total-resent != n {
		t.Errorf("%d first deliveries, want %d", total-resent, n)
	}
	between(t, "resends", resent, n*4/100, n*6/100)
	between(t, "out of order", late, n*15/1000, n*25/1000)
	between(t, "refused", refused, n*3/1000, n*8/1000)
	between(t, "undated", undated, n*1/100, n*4/100)
	hot := 0
	for range hotFiles {
		var best string
		for f, k := range perFile {
			if k > perFile[best] {
				best = f
			}
		}
		hot += perFile[best]
		delete(perFile, best)
	}
	between(t, "events on the 50 hottest files", hot, withFile*45/100, withFile*55/100)
	if len(h.Workspaces[0].Deliveries) < n/3 {
		t.Errorf("the hot workspace has %d deliveries", len(h.Workspaces[0].Deliveries))
	}
}

// A workspace waits for each acknowledgement: with a large share of the events it would bound how fast all are sent.
func TestSpreadLeavesNoWorkspaceALargeShare(t *testing.T) {
	h := New(Config{Seed: 1, Events: 100_000, Base: base, Spread: 400})
	most := 0
	for _, w := range h.Workspaces {
		most = max(most, len(w.Deliveries))
	}
	between(t, "deliveries of the hottest workspace", most, h.Deliveries()*5/1000, h.Deliveries()*9/1000)
}

func between(t *testing.T, what string, n, low, high int) {
	t.Helper()
	if n < low || n > high {
		t.Errorf("%s: %d, want %d to %d", what, n, low, high)
	}
}

func TestIDsAreWithinTheProvidersBounds(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range workspaceIDs {
		if id == "" || len(id) > 256 || !utf8.ValidString(id) || seen[id] {
			t.Errorf("workspace id %q of %d bytes", id, len(id))
		}
		seen[id] = true
	}
}

// Folders make up the promised share, each tree lies in one workspace, and nothing is larger than the receiver takes.
func TestFolders(t *testing.T) {
	const n = 20_000
	h := New(Config{Seed: 1, Events: n, Base: base})
	folders, files, late, unreadable := map[string]int{}, 0, 0, 0
	byID, deleted := map[string]string{}, map[string]string{} // the workspace of a folder; when it was deleted last
	names := map[string]int{}
	for _, w := range h.Workspaces {
		for _, d := range w.Deliveries {
			if len(d.Body) > 256<<10 {
				t.Errorf("a body of %d bytes", len(d.Body))
			}
			e := read(t, d)
			if d.Refused || d.Resent {
				continue
			}
			if e.created != "" && (!readable.MatchString(e.created) || strings.Contains(e.created, "-02-30")) {
				unreadable++
			}
			_, what, folder := strings.Cut(e.name, "storage_folder_")
			switch {
			case folder:
				folders[w.ID]++
				names[what]++
				if other := byID[e.object]; other != "" && other != w.ID {
					t.Errorf("folder %q is in %q and in %q", e.object, other, w.ID)
				}
				byID[e.object] = w.ID
				if what == "deleted" {
					deleted[e.object] = e.created
				}
			case byID[e.parent] == w.ID:
				files++
				if since := deleted[e.parent]; since != "" && e.created < since && strings.HasSuffix(e.name, "_added") {
					late++
				}
			}
		}
	}
	total := 0
	for _, k := range folders {
		total += k
	}
	between(t, "events of folders", total, n*3/100, n*6/100)
	between(t, "events of files in them", files, n*1/100, n*4/100)
	between(t, "times that cannot be read", unreadable, n*5/1000, n*15/1000)
	if len(folders) < 9 || folders[h.Workspaces[0].ID] < total/5 || late == 0 {
		t.Errorf("%d workspaces have folders, the hot one %d events of them; %d files came late into one",
			len(folders), folders[h.Workspaces[0].ID], late)
	}
	for _, what := range []string{"created", "moved", "renamed", "updated", "deleted", "restored"} {
		if names[what] < n/1000 {
			t.Errorf("folder_%s: %d events", what, names[what])
		}
	}
}

var readable = regexp.MustCompile(`^2\d{3}-\d\d-\d\d[ T]\d\d:\d\d:\d\d`)

type said struct{ name, object, parent, created string }

// read takes out of a body what it says in either shape; a time that is no text as JSON.
func read(t *testing.T, d Delivery) (s said) {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(d.Body, &m); err != nil && !d.Refused {
		t.Fatalf("%v: %s", err, d.Body)
	}
	for name, to := range map[string]*string{
		"event": &s.name, "object_id": &s.object, "parent_id": &s.parent,
		"created": &s.created,
	} {
		for _, spelling := range []string{name, second[name]} {
			if v := m[spelling]; v != nil {
				*to = strings.TrimSpace(fmt.Sprint(v))
			}
		}
	}
	return s
}

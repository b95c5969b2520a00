package views

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func runPastWorld(t *testing.T, seed uint64, fault pastFault) string {
	t.Helper()
	w := newPastWorld(t, seed, fault)
	for range 300 {
		switch n := w.random.IntN(100); {
		case n < 25:
			w.epoch()
		case n < 50:
			w.apply(w.random.IntN(30))
		case n < 65:
			w.count(w.random.IntN(30))
		case n < 80:
			w.pollAll()
		case n < 83:
			w.restart()
			if m := w.checkHistories(); m != "" {
				return m
			}
		case n < 86 && seed%4 != 1: // one of four keeps all
			w.trim()
		case w.events > 0:
			if m := w.check(w.random.Int64N(w.events+1)-1, false); m != "" {
				return m
			}
		}
	}
	t.Logf("seed %d: %d of %d requests were answered while the server was behind", seed, w.answered, w.asked)
	if m := w.checkHistories(); m != "" {
		return m
	}
	w.count(len(w.log))
	w.pollAll()
	for offset := int64(-1); offset < w.events; offset += 1 + w.random.Int64N(8) {
		if m := w.check(offset, true); m != "" {
			return m
		}
	}
	return ""
}

// checkHistories lets the history read everything, and compares those of all files with their states.
func (w *pastWorld) checkHistories() string {
	w.apply(len(w.log))
	w.pollAll()
	for id := range w.states {
		if m := w.checkHistory(id); m != "" {
			return m
		}
	}
	return ""
}

// checkHistory compares the history of a file with its states.
func (w *pastWorld) checkHistory(id string) string {
	all := w.states[id]
	if all[len(all)-1].Status == isErased {
		return ""
	}
	cursor := ""
	for i := len(all) - 1; ; {
		r := w.get(fmt.Sprintf("/v1/workspaces/%s/files/%s/history?limit=3&wait=0&cursor=%s", w.id, id, cursor))
		var page struct {
			Versions []struct {
				Version  int64
				Position string
			}
			NextCursor   string `json:"next_cursor"`
			CompleteFrom string `json:"complete_from"`
		}
		if err := json.Unmarshal(r.Body.Bytes(), &page); err != nil || r.Code != 200 {
			return fmt.Sprintf("history of %s: %d %s", id, r.Code, r.Body)
		}
		for _, v := range page.Versions {
			if i < 0 || v.Version != all[i].Version || v.Position != all[i].Position.Text() {
				return fmt.Sprintf("history of %s has %+v, want %v", id, v, all[max(0, i)])
			}
			i--
		}
		if cursor = page.NextCursor; cursor != "" {
			continue
		}
		if i >= 0 && all[i].Position.Offset > w.keptFrom() {
			return fmt.Sprintf("history of %s lacks %v, and is said to be complete from %s", id, all[i],
				page.CompleteFrom)
		}
		return ""
	}
}

// Files, listings and counts as of any position are those of the model, however often notices are repeated, wherever
// the reading is interrupted, and whatever is not kept any more. A server that has not read enough says so.
func TestThePastIsExact(t *testing.T) {
	for seed := range uint64(6) { // 2 and 4 begin among late notices, 1 and 5 are in partition 0
		if m := runPastWorld(t, seed, noFault); m != "" {
			t.Errorf("seed %d: %s", seed, m)
		}
	}
}

// The same judge finds a history that is wrong.
func TestAWrongHistoryIsFound(t *testing.T) {
	for name, fault := range map[string]pastFault{
		"loses": loses, "applies twice": appliesTwice, "forgets bounds": forgetsBounds,
	} {
		found := 0
		for seed := range uint64(5) {
			if runPastWorld(t, seed, fault) != "" {
				found++
			}
		}
		if found < 3 {
			t.Errorf("%s: found with %d of 5 seeds", name, found)
		}
	}
}

func (w *pastWorld) checkListing(offset int64, atEnd bool) string {
	status, name := isActive, statusActive
	if w.random.IntN(3) == 0 {
		status, name = isTrashed, statusTrashed
	}
	prefix := []string{"", "/a", "/b/f0"}[w.random.IntN(3)]
	var all []string
	for cursor := ""; ; {
		path := fmt.Sprintf("/files?limit=%d&status=%s&path_prefix=%s", 1+w.random.IntN(4), name, prefix)
		if prefix == "" {
			path = strings.TrimSuffix(path, "&path_prefix=")
		}
		if cursor != "" {
			path += "&cursor=" + cursor
		}
		code, body, ok := w.ask(path, offset, atEnd)
		if !ok {
			return ""
		}
		if code != http.StatusOK {
			return fmt.Sprintf("%s as of %d: %d %s", path, offset, code, body)
		}
		var page struct {
			Files []struct {
				FileID  string `json:"file_id"`
				Version int64
			}
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			return err.Error()
		}
		for _, f := range page.Files {
			all = append(all, fmt.Sprint(f.FileID, "@", f.Version))
		}
		if cursor = page.NextCursor; cursor == "" {
			break
		}
		if !atEnd && w.random.IntN(4) == 0 {
			w.epoch() // what happens meanwhile is later
		}
	}
	if got, want := strings.Join(all, " "), w.listing(offset, status, prefix); got != want {
		return fmt.Sprintf("%s files in %q as of %d: %s, want %s", name, prefix, offset, got, want)
	}
	return ""
}

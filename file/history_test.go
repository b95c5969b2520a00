package file

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tidemark/codecs"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

var update = flag.Bool("update", false, "rewrite the states in testdata to what the fold gives")

// A history lists events, a line each, and what the row is after each. An event without a workspace_id is one of "ws".
// It is recorded one second after the one before, at the next offset of partition 0. Names that begin with "~" are for
// the test:
//
//	~at "0:7", ~log "second", ~recorded "2026-…", ~replay true: of the record
//	~times 300: so many events; in each %d stands for its number, %t for a time as many seconds after 20:00:00
//	~erase "f1": no event: the row's data is erased, as a later release does after some time in the trash
//
// The events derived from one of a folder are folded right after it, and shown on the same line. The event of another
// row is shown with its id.
type step struct {
	At       string    `json:"~at"`
	Log      string    `json:"~log"`
	Recorded time.Time `json:"~recorded"`
	Replay   bool      `json:"~replay"`
	Times    int       `json:"~times"`
	Erase    string    `json:"~erase"`
}

// A world is what the events of a history have led to.
type world struct {
	t         *testing.T
	rows      map[string]*tidemarkv1.FileState
	workspace *tidemarkv1.WorkspaceState
	log       string
	offset    int64
	recorded  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{
		t: t, rows: map[string]*tidemarkv1.FileState{}, log: "first", offset: -1,
		recorded: time.Date(2026, 9, 25, 21, 59, 59, 0, time.UTC),
	}
}

func TestHistories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no histories: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, section(archive, "events"))
			changed := false
			for i := range archive.Files {
				f := &archive.Files[i]
				want, known := got[f.Name]
				if !known {
					continue
				}
				if *update {
					changed = changed || string(f.Data) != want
					f.Data = []byte(want)
				} else if d := cmp.Diff(string(f.Data), want); d != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, d)
				}
			}
			if changed {
				if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func section(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// play returns, by name of a section, a line for each event.
func play(t *testing.T, events string) map[string]string {
	t.Helper()
	w := newWorld(t)
	var states, workspace strings.Builder
	for line := range strings.Lines(strings.TrimRight(events, "\n")) {
		line = strings.TrimRight(line, "\n")
		var s step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		outcome := ""
		for i := range max(1, s.Times) {
			text := strings.ReplaceAll(line, "%d", fmt.Sprint(i))
			text = strings.ReplaceAll(text, "%t",
				time.Date(2026, 9, 25, 20, 0, i, 0, time.UTC).Format("2006-01-02 15:04:05 UTC"))
			outcome = w.step(s, text)
		}
		fmt.Fprintln(&states, outcome)
		fmt.Fprintln(&workspace, showWorkspace(w.workspace))
	}
	return map[string]string{"states": states.String(), "workspace": workspace.String()}
}

func (w *world) step(s step, line string) string {
	if s.Erase != "" {
		w.rows[s.Erase] = erase(w.rows[s.Erase])
		return showFile(w.rows[s.Erase])
	}
	w.offset, w.recorded = w.offset+1, w.recorded.Add(time.Second)
	if s.Log != "" {
		w.log = s.Log
	}
	if !s.Recorded.IsZero() {
		w.recorded = s.Recorded
	}
	at := &tidemarkv1.Position{Offset: w.offset}
	if s.At != "" {
		var err error
		if at, err = tidemarkv1.ParsePosition(s.At); err != nil {
			w.t.Fatal(err)
		}
		w.offset = at.GetOffset()
	}
	if !strings.Contains(line, `"workspace_id"`) {
		line = `{"workspace_id":"ws",` + line[1:]
	}
	e, err := codecs.ParseEvent([]byte(line))
	if err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	e.RecordedAt, e.Replayed = w.recorded.UnixMicro(), s.Replay
	return w.event(e, at)
}

// event does what the processors do with one event, and with those that follow from it.
func (w *world) event(e *tidemarkv1.Event, at *tidemarkv1.Position) string {
	outcome, more := w.fold(e, at)
	for n := 0; len(more) > 0; n++ {
		if n > 1000 {
			w.t.Fatalf("events are derived without end: %s %s", outcome[max(0, len(outcome)-2000):], more[0])
		}
		e, more = more[0], more[1:]
		w.offset, w.recorded = w.offset+1, w.recorded.Add(time.Second)
		e.RecordedAt = w.recorded.UnixMicro()
		shown, follows := w.fold(e, &tidemarkv1.Position{Offset: w.offset})
		outcome += "; " + e.GetFileId() + ": " + shown
		more = append(more, follows...)
	}
	return outcome
}

// follow returns the events derived from one: for its own row, and for the entries of its folder.
func (w *world) follow(before, after *tidemarkv1.FileState, e *tidemarkv1.Event) (more []*tidemarkv1.Event) {
	add := func(e *tidemarkv1.Event) {
		if e != nil {
			more = append(more, e)
		}
	}
	own := e
	if e.GetCause() != nil {
		own = nil
	}
	folder := w.rows[after.GetParentId()]
	if folder == nil {
		folder = NearestFolder(slices.Collect(maps.Values(w.rows)), after)
	}
	add(Derive(folder, after, own))
	if after.GetInheritable().GetStamp() == before.GetInheritable().GetStamp() {
		return more
	}
	for _, id := range slices.Sorted(maps.Keys(w.rows)) {
		entry := w.rows[id]
		if entry.GetParentId() == after.GetFileId() || w.rows[entry.GetParentId()] == nil {
			add(Derive(after, entry, nil))
		}
	}
	return more
}

// fold folds one event, and returns what is shown of it and the events that follow from it.
func (w *world) fold(e *tidemarkv1.Event, at *tidemarkv1.Position) (outcome string, more []*tidemarkv1.Event) {
	var before, after *tidemarkv1.FileState
	late, outcome := false, "no row"
	if Touches(e) {
		var v Verdict
		before = w.rows[e.GetFileId()]
		after, late, v = Apply(before, e, at, w.log)
		if v != Accepted && v != Unchanged {
			if after != before {
				w.t.Errorf("%v: %v changed the row", e, v)
			}
			if v == Duplicate && e.GetCause() != nil {
				more = w.follow(before, before, e)
			}
			return map[Verdict]string{
				Applied: "applied already", Duplicate: "duplicate",
				BeyondWindow: "beyond the window",
			}[v], more
		}
		w.rows[e.GetFileId()] = after
		more = w.follow(before, after, e)
		if v == Unchanged {
			if e.GetCause() == nil {
				w.workspace, _ = Count(w.workspace, NoticeOf(nil, nil, e, at, false), w.log)
			}
			return "unchanged", more
		}
		outcome = showFile(after)
	}
	if late {
		outcome += " LATE"
	}
	w.workspace, _ = Count(w.workspace, NoticeOf(before, after, e, at, late), w.log)
	return outcome, more
}

// erase makes the stub of a row.
func erase(s *tidemarkv1.FileState) *tidemarkv1.FileState {
	stub := &tidemarkv1.FileState{
		WorkspaceId: s.GetWorkspaceId(), FileId: s.GetFileId(), Status: tidemarkv1.Status_STATUS_ERASED,
		Version: s.GetVersion() + 1, Position: s.GetPosition(), LogId: s.GetLogId(), Seen: s.GetSeen(),
	}
	times{fieldStatus: timesOf(s)[fieldStatus]}.store(stub)
	return stub
}

func showFile(s *tidemarkv1.FileState) string {
	words := []string{
		fmt.Sprintf("v%d", s.GetVersion()),
		strings.ToLower(strings.TrimPrefix(s.GetStatus().String(), "STATUS_")),
	}
	if s.GetKind() == tidemarkv1.Kind_KIND_FOLDER {
		words = append(words, "folder")
	}
	if s.GetIncomplete() {
		words = append(words, "incomplete")
	}
	if s.Size != nil {
		words = append(words, fmt.Sprintf("%dB", s.GetSize()))
	}
	for _, f := range []struct{ name, value string }{
		{"name", s.GetName()},
		{"path", s.GetPath()},
		{"parent", s.GetParentId()},
		{"mime", s.GetMime()},
		{"hash", s.GetHash()},
		{"actor", s.GetActorId()},
		{"last", s.GetLastEventId()},
		{"created", clockOf(s.CreatedAt)},
		{"updated", clockOf(s.UpdatedAt)},
		{"deleted", clockOf(s.DeletedAt)},
	} {
		if f.value != "" {
			words = append(words, f.name+"="+f.value)
		}
	}
	if n := len(s.GetSeen()) / seenIDSize; n > 9 {
		words = append(words, fmt.Sprintf("remembers=%d", n))
	}
	return strings.Join(words, " ")
}

// clockOf shows a time as that of the day on which the histories play, else in full.
func clockOf(us *int64) string {
	if us == nil {
		return ""
	}
	at := time.UnixMicro(*us).UTC()
	return strings.TrimPrefix(at.Format("2006-01-02/15:04:05.999999"), "2026-09-25/")
}

func showWorkspace(w *tidemarkv1.WorkspaceState) string {
	if w == nil {
		return "never seen"
	}
	text := string(codecs.AppendWorkspace(nil, w))
	_, text, _ = strings.Cut(text, `,`)
	return strings.NewReplacer(`"`, "", `{`, "", `}`, "", ",", " ", "2026-09-25T", "", ":0 ", ":0 ").Replace(text)
}

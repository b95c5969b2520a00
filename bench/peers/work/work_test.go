package work

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const body = `{"event":"workspace_storage_file_%s","event_id":"e%d","workspace_id":"ws","object_id":"f","name":"a.pdf",` +
	`"path":"/x/a.pdf","size":%d,"hash":"sha256:0f","mime":"application/pdf","actor_id":"usr_1",` +
	`"created":"2026-01-01T00:00:0%d.003Z","received_at":"2026-01-01T00:00:09Z"}`

func event(t *testing.T, kind string, n int) *Event {
	t.Helper()
	value := fmt.Appendf(nil, body, kind, n, n*10, n)
	e, err := Parse(value)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestFold(t *testing.T) {
	s := &State{}
	for i, step := range []struct {
		kind   string
		n      int
		ok     bool
		status string
	}{
		{"added", 1, true, "active"},
		{"deleted", 2, true, "trashed"},
		{"updated", 3, true, "trashed"}, // an update does not restore a file
		{"deleted", 2, false, "trashed"},
		{"added", 4, true, "active"},
	} {
		before, ok := s.Fold(event(t, step.kind, step.n), 3, int64(i))
		if ok != step.ok || s.Status != step.status || (before == nil) != (i == 0 || !ok) {
			t.Errorf("step %d: before %v, ok %t, status %q", i, before, ok, s.Status)
		}
	}
	if s.Version != 4 || s.Size != 40 || s.Position != "3:4" || s.CreatedAt != "2026-01-01T00:00:01.003Z" {
		t.Errorf("row %+v", s)
	}
	if _, ok := s.Fold(event(t, "updated", 5), 3, 4); ok {
		t.Error("an offset that the row has was folded again")
	}
}

// TestParse compares the short way with encoding/json.
func TestParse(t *testing.T) {
	want := &Event{}
	value := fmt.Appendf(nil, body, "updated", 1, 7, 2)
	if err := json.Unmarshal(value, want); err != nil {
		t.Fatal(err)
	}
	var got Event
	if !got.flat(string(value)) {
		t.Fatal("a flat event was not read")
	}
	if d := cmp.Diff(want, &got); d != "" {
		t.Error(d)
	}
	for _, other := range []string{``, `{}`, `{"a":"\u0041"}`, `{"a":{"b":1}}`, `{"a":1.5}`, `{"a":1]`, `{"a":"b"`, `{"a"}`} {
		if new(Event).flat(other) {
			t.Errorf("%q is not flat", other)
		}
	}
}

// TestAppend compares the appended JSON with that of encoding/json.
func TestAppend(t *testing.T) {
	s := &State{}
	for i, kind := range []string{"added", "updated", "deleted"} {
		e := event(t, kind, i)
		e.Name = `a "b" ü`
		before, _ := s.Fold(e, 0, int64(i))
		index, notice := IndexOf(&s.File), NoticeOf(e, before, &s.File)
		for _, c := range []struct {
			got  []byte
			want any
		}{{index.Append(nil), index}, {notice.Append(nil), notice}} {
			want, err := json.Marshal(c.want)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(c.got)); d != "" {
				t.Errorf("%s: %s", kind, d)
			}
		}
	}
}

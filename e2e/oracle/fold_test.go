package oracle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
)

// logOf makes a log of one workspace from bodies; each record is a second after the one before, from base on.
func logOf(base time.Time, bodies ...string) []*kgo.Record {
	var records []*kgo.Record
	for i, body := range bodies {
		records = append(records, &kgo.Record{
			Topic: "events", Partition: int32(Partition("events", "w", 8)), Offset: int64(i), Key: []byte("w"),
			Value: []byte(body), Timestamp: base.Add(time.Duration(i) * time.Second),
		})
	}
	return records
}

var base = time.Date(2026, 9, 25, 21, 40, 0, 0, time.UTC)

// body writes an event of file f of workspace w; at is a second after base, or empty for an undated one.
func body(id, what, at, more string) string {
	if at != "" {
		at = fmt.Sprintf(`,"created":"2026-09-25 21:40:%s UTC"`, at)
	}
	return fmt.Sprintf(`{"event":"workspace_storage_file_%s","workspace_id":"w","event_id":"%s","object_id":"f"%s%s}`, what, id, at, more)
}

func history(t *testing.T, bodies ...string) (states []string, m *Model) {
	t.Helper()
	records := logOf(base, bodies...)
	m = NewModel("events", 8, records)
	for _, r := range records {
		n := m.notices[position(r.Partition, r.Offset)]
		if n == nil {
			states = append(states, "-")
			continue
		}
		a := n.after
		s := fmt.Sprintf("v%d %s", a.version, a.status)
		for flag, on := range map[string]bool{" incomplete": a.incomplete, " late": n.late} {
			if on {
				s += flag
			}
		}
		if a.texts["name"] != "" {
			s += " " + a.texts["name"]
		}
		if a.size != nil {
			s += fmt.Sprintf(" %dB", *a.size)
		}
		states = append(states, s)
	}
	return states, m
}

func TestFoldFollowsTheDesign(t *testing.T) {
	for _, test := range []struct {
		name   string
		bodies []string
		want   []string
	}{
		{
			"a late added does not bring a deleted file back",
			[]string{body("1", "deleted", "20", ""), body("2", "added", "10", `,"size":3`)},
			[]string{"v1 trashed incomplete", "v2 trashed late 3B"},
		},
		{
			"an update never resurrects",
			[]string{body("1", "added", "01", ""), body("2", "deleted", "02", ""), body("3", "updated", "03", `,"size":9`)},
			[]string{"v1 active", "v2 trashed", "v3 trashed 9B"},
		},
		{
			"an old size does not replace a new one, a name of its own time does",
			[]string{body("1", "updated", "05", `,"size":5`), body("2", "updated", "03", `,"size":3,"name":"n"`)},
			[]string{"v1 active incomplete 5B", "v2 active incomplete late n 5B"},
		},
		{
			"equal times go by the log",
			[]string{body("1", "added", "05", `,"size":5`), body("2", "updated", "05", `,"size":3`)},
			[]string{"v1 active 5B", "v2 active 3B"},
		},
		{
			"undated counts as newest and dates nothing",
			[]string{body("1", "added", "05", `,"size":5`), body("2", "updated", "", `,"size":7`), body("3", "updated", "05", `,"size":6`)},
			[]string{"v1 active 5B", "v2 active 7B", "v3 active 6B"},
		},
		{
			"the same id again is dropped",
			[]string{body("1", "added", "05", ""), body("2", "updated", "06", ""), body("1", "added", "05", "")},
			[]string{"v1 active", "v2 active", "-"},
		},
		{"a size of another type is absent", []string{body("1", "added", "05", `,"size":"5 B"`)}, []string{"v1 active"}},
		{"a size as text is one", []string{body("1", "added", "05", `,"size":"5"`)}, []string{"v1 active 5B"}},
	} {
		states, _ := history(t, test.bodies...)
		for i, s := range states { // flags come from a map
			states[i] = strings.ReplaceAll(s, " late incomplete", " incomplete late")
		}
		if d := cmp.Diff(test.want, states); d != "" {
			t.Errorf("%s:\n%s", test.name, d)
		}
	}
}

func TestBeyondTheWindow(t *testing.T) {
	var bodies []string
	dated := func(id string, at int) string {
		return body(id, "updated", "", fmt.Sprintf(`,"created":%q`, base.Add(time.Duration(at)*time.Second).Format(time.RFC3339)))
	}
	for i := range windowIDs + 1 { // e1 is the oldest that is remembered
		bodies = append(bodies, dated(fmt.Sprintf("e%d", i), i))
	}
	bodies = append(bodies, dated("old", 0), dated("e0", 0), dated("e1", 1), dated("same second", 1), dated("new", 2),
		body("undated", "updated", "", ""))
	_, m := history(t, bodies...)
	if m.Duplicates != 1 {
		t.Errorf("%d duplicates, want e1 alone", m.Duplicates)
	}
	if len(m.dead) != 3 {
		t.Errorf("%d dead letters, want old, e0 and same second", len(m.dead))
	}
	if n := len(m.rows["w/f"].seen); n != windowIDs {
		t.Errorf("%d ids are remembered", n)
	}
}

func TestReasons(t *testing.T) {
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	for _, test := range []struct{ value, want string }{
		{"{", notJSON},
		{"\xff", notJSON},
		{`[1]`, notJSON},
		{`{"a":1,"a":2}`, notJSON},
		{`{"d":` + deep + `}`, notJSON},
		{body("1", "added", "", "") + "x", notJSON},
		{`{"event_id":"1"}`, missingField},
		{`{"event":"x","event_id":"1"}`, missingField},
		{`{"event":"x","event_id":"1","workspace_id":"` + "w\u007f" + `"}`, badField},
		{body("1", "added", "", `,"name":"`+strings.Repeat("n", 4097)+`"`), fieldTooLarge},
		{body("1", "added", "", ""), ""},
	} {
		if _, reason := parse([]byte(test.value), base); reason != test.want {
			t.Errorf("%.80s: reason %q, want %q", test.value, reason, test.want)
		}
	}
	m := NewModel("events", 8, nil)
	record := func(key string, partition int, value []byte) *kgo.Record {
		return &kgo.Record{Topic: "events", Key: []byte(key), Partition: int32(partition), Value: value}
	}
	good, at := []byte(body("1", "added", "", "")), Partition("events", "w", 8)
	for _, test := range []struct {
		record *kgo.Record
		want   string
	}{
		{record("w", at, good), ""}, {record("v", at, good), keyMismatch}, {record("w", at+1, good), wrongPart}, {record("w", at, nil), nullValue},
	} {
		if _, reason := m.decode(test.record); reason != test.want {
			t.Errorf("%v: reason %q, want %q", test.record, reason, test.want)
		}
	}
}

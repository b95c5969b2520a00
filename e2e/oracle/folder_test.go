package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/gen"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// eventJSON writes an event of the file or folder id of workspace w, at a second after base; at is negative for one
// without a time.
func eventJSON(id string, serial, at int, what, more string) string {
	created := ""
	if at >= 0 {
		created = fmt.Sprintf(`,"created":"2026-09-25 21:40:%02d UTC"`, at)
	}
	return fmt.Sprintf(`{"event":"workspace_storage_%s","workspace_id":"w","event_id":"e%d","object_id":%q%s%s}`, what, serial, id, created, more)
}

// docs are a folder that is moved, deleted and restored, with a file in it by its parent and one by its path alone.
var docs = []string{
	eventJSON("d", 1, 1, "folder_created", `,"path":"/docs","name":"docs"`),
	eventJSON("f", 2, 2, "file_added", `,"path":"/docs/f","name":"f","parent_id":"d","size":1`),
	eventJSON("g", 3, 3, "file_added", `,"path":"/docs/x/g","size":2`),
	eventJSON("d", 4, 4, "folder_moved", `,"path":"/papers"`),
	eventJSON("f", 5, 5, "file_moved", `,"path":"/papers/f"`),
	eventJSON("d", 6, 6, "folder_deleted", ""),
	eventJSON("h", 7, 5, "file_added", `,"path":"/papers/h","name":"h","parent_id":"d"`),
	eventJSON("d", 8, 8, "folder_restored", ""),
}

// playDocs folds the first n of them, each with what follows from it.
func playDocs(t *testing.T, n int, lose func(*tidemarkv1.Event) bool) (*product, *Model) {
	t.Helper()
	p := newProduct(t)
	if lose != nil {
		p.lose = lose
	}
	for i, body := range docs[:n] {
		p.send([]byte(body), base.Add(time.Duration(i)*time.Second))
		p.settle(1 << 30)
	}
	return p, NewModel("events", 8, p.log)
}

func TestFoldersAreFolded(t *testing.T) {
	for n, want := range map[int]string{
		1: "d v1 active /docs folder",
		3: "d v1 active /docs folder; f v1 active /docs/f; g v1 active /docs/x/g",
		4: "d v2 active /papers folder; f v2 active /papers/f; g v2 active /papers/x/g",
		// said once more by the provider
		5: "d v2 active /papers folder; f v2 active /papers/f +1; g v2 active /papers/x/g",
		6: "d v3 trashed /papers folder; f v3 trashed /papers/f +1; g v3 trashed /papers/x/g",
		// added late
		7: "d v3 trashed /papers folder; f v3 trashed /papers/f +1; g v3 trashed /papers/x/g; h v2 trashed /papers/h",
		8: "d v4 active /papers folder; f v4 active /papers/f +1; g v4 active /papers/x/g; h v3 active /papers/h",
	} {
		_, m := playDocs(t, n, nil)
		var shown []string
		for _, key := range slices.Sorted(maps.Keys(m.rows)) {
			r := m.rows[key]
			s := fmt.Sprintf("%s v%d %s %s", r.object, r.version, r.status, r.texts["path"])
			if r.folder {
				s += " folder"
			}
			if r.silent > 0 {
				s += fmt.Sprintf(" +%d", r.silent)
			}
			shown = append(shown, s)
		}
		if got := strings.Join(shown, "; "); got != want {
			t.Errorf("after %d events:\n got  %s\n want %s", n, got, want)
		}
		if c := m.counts["w"]; c.events != int64(n) {
			t.Errorf("after %d events the workspace has %d", n, c.events)
		}
	}
	_, m := playDocs(t, 7, nil)
	if c := m.counts["w"]; c.files != 0 || c.trashed != 3 || c.bytes != 0 {
		t.Errorf("%+v: want three files in the trash, and no folder", c)
	}
	if len(m.index["w/d"]) != 0 || len(m.versions["w/d"]) != 3 || len(m.index["w/f"]) != 3 {
		t.Errorf("index: %d of the folder, %d of a file", len(m.index["w/d"]), len(m.index["w/f"]))
	}
	said := m.notices[position(m.log[5].Partition, m.log[5].Offset+1)] // the file's own event, which changed nothing
	if said == nil || said.after != nil || said.event.id != "e5" {
		t.Errorf("e5 has the notice %+v, want one without a row", said)
	}
}

// A step that was lost is found by the provider's events, though each row is what the log makes of it.
func TestLostStepsAreFound(t *testing.T) {
	const where, how = "entries not where their folder is", "entries not as their folder is"
	for _, test := range []struct {
		name  string
		n     int
		lost  string // event and entry
		found string
	}{
		{"none", len(docs), "", ""},
		{"a move of a file known by its parent", 4, "file_moved f", where},
		{"a move of a file known by its path", 4, "file_moved g", where},
		{"a delete", 6, "file_deleted g", how},
		{"what a late file takes over", 7, "file_deleted h", how},
		{"a restore", 8, "file_restored f", how},
	} {
		p, m := playDocs(t, test.n, func(e *tidemarkv1.Event) bool {
			return strings.TrimPrefix(e.GetEvent(), "workspace_storage_")+" "+e.GetFileId() == test.lost
		})
		r := &Report{}
		m.judgeGroupRecords(r)
		m.judgeFiles(slices.Values(p.table(t)), r)
		expect(t, test.name, test.found, r)
		if n := r.Count("rows wrong"); n > 0 {
			t.Errorf("%s: %d rows are not what the log makes of them\n%s", test.name, n, r)
		}
	}
}

// Records that the files group wrote itself need a cause before them, and only those two headers excuse from having
// been sent.
func TestOwnRecordsNeedACause(t *testing.T) {
	const wrong = "records of the group without a cause"
	// The first of them is what the folder's move gives to f.
	for _, test := range []struct {
		name   string
		change func(log []*kgo.Record, own int) []*kgo.Record
		found  string
	}{
		{"nothing", func(log []*kgo.Record, _ int) []*kgo.Record { return log }, ""},
		{"the cause comes later", func(log []*kgo.Record, own int) []*kgo.Record {
			log[own].Offset, log[own-1].Offset = log[own-1].Offset, log[own].Offset
			log[own], log[own-1] = log[own-1], log[own]
			return log
		}, wrong},
		{"the cause is another event", func(log []*kgo.Record, own int) []*kgo.Record {
			log[own].Value = []byte(strings.Replace(string(log[own].Value), `"event_id":"e4","folder_id"`, `"event_id":"e1","folder_id"`, 1))
			return log
		}, wrong},
		{"the header names another", func(log []*kgo.Record, own int) []*kgo.Record {
			log[own].Headers[0].Value = []byte(position(log[own].Partition, 0))
			return log
		}, wrong},
		{"the entry is not known", func(log []*kgo.Record, own int) []*kgo.Record {
			log[own].Value = []byte(strings.Replace(string(log[own].Value), `"object_id":"f"`, `"object_id":"z"`, 1))
			return log
		}, wrong},
		{"a walk of no folder", func(log []*kgo.Record, own int) []*kgo.Record {
			return append(log, walk(log[len(log)-1], "f"))
		}, wrong},
		{"a walk of a folder", func(log []*kgo.Record, own int) []*kgo.Record {
			return append(log, walk(log[len(log)-1], "d"))
		}, ""},
	} {
		p, _ := playDocs(t, 4, nil)
		own := slices.IndexFunc(p.log, func(r *kgo.Record) bool { return header(r, "tidemark-cause") != "" })
		r := &Report{}
		m := NewModel("events", 8, test.change(p.log, own))
		m.judgeGroupRecords(r)
		expect(t, test.name, test.found, r)
		by := &Sent{History: &gen.History{}}
		m.judgeSenders(int(p.log[0].Partition), by, r)
		if n := r.Count("records nobody sent"); n != 4 {
			t.Errorf("%s: %d records that nobody sent, want the four of the senders who are not here", test.name, n)
		}
	}
}

func walk(last *kgo.Record, folder string) *kgo.Record {
	return &kgo.Record{
		Topic: last.Topic, Partition: last.Partition, Offset: last.Offset + 1, Key: []byte("w"),
		Timestamp: last.Timestamp,
		Value:     []byte(fmt.Sprintf(`{"event":"tidemark_folder_walk","event_id":"tidemark_folder_walk/2","workspace_id":"w","object_id":%q}`, folder)),
		Headers:   []kgo.RecordHeader{{Key: "tidemark-walk", Value: []byte("2 from")}},
	}
}

// A walk's record has no notice, and is one more silent fold of its folder.
func TestWalksAreSilent(t *testing.T) {
	p, _ := playDocs(t, 4, nil)
	log := append(p.log, walk(p.log[len(p.log)-1], "d"))
	m := NewModel("events", 8, log)
	last := log[len(log)-1]
	if m.notices[position(last.Partition, last.Offset)] != nil {
		t.Error("a walk has a notice")
	}
	if d := m.rows["w/d"]; d.version != 2 || d.silent != 1 || d.silentOffset != last.Offset {
		t.Errorf("version %d, silent %d, at %d", d.version, d.silent, d.silentOffset)
	}
	r := &Report{}
	m.judgeFiles(slices.Values(p.table(t)), r)
	expect(t, "a row from before the walk", "rows wrong", r)
}

// The rules of single fields, in the words of the design.
func TestFieldsHaveTheirOwnTime(t *testing.T) {
	added := eventJSON("f", 1, 10, "file_added", `,"path":"/a/x","name":"x","size":1,"hash":"h1"`)
	for name, test := range map[string]struct {
		bodies []string
		want   string
	}{
		"a newer name renames":                    {[]string{added, eventJSON("f", 2, 11, "file_updated", `,"name":"y"`)}, "/a/y y h1"},
		"an older name does not":                  {[]string{added, eventJSON("f", 2, 9, "file_updated", `,"name":"y"`)}, "/a/x x h1"},
		"a newer name that came first renames":    {[]string{eventJSON("f", 2, 11, "file_updated", `,"name":"y"`), added}, "/a/y y h1"},
		"a newer parent takes the path away":      {[]string{added, eventJSON("f", 2, 11, "file_moved", `,"parent_id":"p"`)}, " x h1"},
		"also when it came first":                 {[]string{eventJSON("f", 2, 11, "file_moved", `,"parent_id":"p"`), added}, " x h1"},
		"a hash older than the size is left out":  {[]string{added, eventJSON("f", 2, 11, "file_updated", `,"size":2`)}, "/a/x x "},
		"also when it came later":                 {[]string{eventJSON("f", 2, 11, "file_updated", `,"size":2`), added}, "/a/x x "},
		"a time that cannot be read is arrival's": {[]string{eventJSON("f", 2, 30, "file_updated", `,"name":"y"`), eventJSON("f", 3, -1, "file_updated", `,"name":"z","created":"noon"`)}, " y "},
		"a far time orders nothing": {[]string{
			eventJSON("f", 2, -1, "file_updated", `,"name":"y","created":"2030-01-01T00:00:00Z"`), eventJSON("f", 3, 1, "file_updated", `,"name":"z"`),
		}, " z "},
	} {
		m := NewModel("events", 8, logOf(base, test.bodies...))
		r := m.rows["w/f"]
		if got := r.texts["path"] + " " + r.texts["name"] + " " + r.texts["hash"]; got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	acted := NewModel("events", 8, logOf(base, eventJSON("f", 1, -1, "file_added", `,"user_id":"u1"`), eventJSON("f", 2, 10, "file_updated", ""), eventJSON("f", 3, 5, "file_updated", `,"user_id":"u2"`)))
	if r := acted.rows["w/f"]; r.actor != "u2" {
		t.Errorf("%s acted last, want u2: no dated event has said who did", r.actor)
	}
	far := NewModel("events", 8, logOf(base, eventJSON("f", 1, -1, "file_added", `,"created":"2030-01-01T00:00:00Z"`)))
	if r := far.rows["w/f"]; *r.created != base.UnixMicro() || *r.updated != base.UnixMicro() || r.newestAt != nil ||
		*far.counts["w"].last != base.UnixMicro() {
		t.Errorf("a far time shows: %v", r.doc())
	}
}

// Notices of entries and of folders are judged like all others; what changed nothing has a notice without a row.
func TestNoticesOfFoldersAreJudged(t *testing.T) {
	of := func(records []*kgo.Record, what string) int {
		return slices.IndexFunc(records, func(r *kgo.Record) bool { return strings.Contains(string(r.Value), what) })
	}
	for _, test := range []struct{ name, of, old, new, found string }{
		{"nothing", `"event_id":"e1"`, "", "", ""},
		{"the cause is left out", `"event_id":"e4/f"`, `"cause":{`, `"why":{`, "notices wrong"},
		{"another cause", `"event_id":"e4/f"`, `"event_id":"e4",`, `"event_id":"e1",`, "notices wrong"},
		{"a folder that is none", `"event_id":"e1"`, `"kind":"folder",`, "", "notices wrong"},
		{"a version of what changed nothing", `"event_id":"e5"`, `"late":false`, `"late":false,"version":2`, "notices wrong"},
		{"the key of an event without a file", `"event_id":"e5"`, "", "", "notices wrong"},
		{"a notice of an entry is lost", `"event_id":"e6/g"`, "", "", "notices missing"},
	} {
		_, m := playDocs(t, len(docs), nil)
		notices := notified(t, m)
		i := of(notices, test.of)
		switch {
		case test.old != "":
			notices[i] = replaced(t, notices[i], test.old, test.new)
		case strings.Contains(test.name, "key"):
			notices[i].Key = []byte("w")
		case test.found != "":
			notices = slices.Delete(notices, i, i+1)
		}
		r := &Report{}
		m.judgeNotices(slices.Values(notices), r)
		expect(t, test.name, test.found, r)
	}
}

// Search holds files: an index record of a folder is one too many.
func TestIndexRecordsOfFoldersAreFound(t *testing.T) {
	_, m := playDocs(t, 1, nil)
	value := fmt.Sprintf(`{"op":"delete","id":"w/d","workspace_id":"w","file_id":"d","version":1,"position":%q}`, m.rows["w/d"].position)
	r := &Report{}
	m.judgeIndex(slices.Values([]*kgo.Record{{Key: []byte("w/d"), Value: []byte(value)}}), r)
	expect(t, "of a folder", "index records wrong", r)
}

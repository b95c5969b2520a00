package oracle

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// wire undoes doc: it gives the JSON value that a member is read from.
func (d doc) wire() map[string]any {
	out := map[string]any{}
	for name, v := range d {
		kind, rest, _ := strings.Cut(v, " ")
		switch kind {
		case "number", "json":
			out[name] = json.RawMessage(rest)
		case "bool":
			out[name] = rest == "true"
		default:
			out[name] = rest
		}
	}
	return out
}

// notified returns the notices that a right program would write.
func notified(t *testing.T, m *Model) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	for i, source := range m.log {
		n := m.notices[position(source.Partition, source.Offset)]
		if n == nil {
			continue
		}
		object := doc{
			"op_id": text(opID(n.event)), "event": text(n.event.name), "event_id": text(n.event.id),
			"workspace_id": text("w"),
			"file_id":      text(n.event.object), "position": text(n.position), "late": boolean(n.late),
			"at": instant(n.event.at()),
		}.wire()
		object["payload"] = json.RawMessage(source.Value)
		if n.after != nil {
			object["version"], object["before"], object["after"] = n.after.version, nil, n.after.doc().wire()
		}
		if n.before != nil {
			object["before"] = n.before.doc().wire()
		}
		if n.event.cause != nil {
			object["cause"] = n.event.cause
		}
		value, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records,
			&kgo.Record{
				Key: []byte(joinKey("w", n.event.object)), Value: value, Partition: source.Partition,
				Offset: int64(i),
			})
	}
	return records
}

func indexed(t *testing.T, m *Model) []*kgo.Record {
	t.Helper()
	var records []*kgo.Record
	for v := int64(1); v <= int64(len(m.index["w/f"])); v++ {
		row := m.index["w/f"][v]
		object := doc{
			"op": text("upsert"), "id": text("w/f"), "workspace_id": text("w"), "file_id": text("f"),
			"version":  number(v),
			"position": text(row.position),
		}.wire()
		if object["file"] = row.doc().wire(); row.status == "trashed" {
			object["op"] = "delete"
			delete(object, "file")
		}
		value, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, &kgo.Record{Key: []byte("w/f"), Value: value, Offset: v})
	}
	return records
}

var story = []string{
	body("1", "added", "01", `,"size":5,"name":"a"`), body("2", "updated", "02", `,"size":6`), body("3", "deleted", "03", ""),
	body("4", "restored", "04", ""), body("2", "updated", "02", `,"size":6`),
}

func replaced(t *testing.T, r *kgo.Record, old, new string) *kgo.Record {
	t.Helper()
	if !strings.Contains(string(r.Value), old) {
		t.Fatalf("%q is not in %s", old, r.Value)
	}
	copied := *r
	copied.Value = []byte(strings.ReplaceAll(string(r.Value), old, new))
	return &copied
}

// TestNoticesAreJudged breaks a right stream in every way that matters, and wants each way named.
func TestNoticesAreJudged(t *testing.T) {
	replace := func(r *kgo.Record, old, new string) *kgo.Record { return replaced(t, r, old, new) }
	for _, test := range []struct {
		name   string
		change func([]*kgo.Record) []*kgo.Record
		found  string
	}{
		{"nothing", func(r []*kgo.Record) []*kgo.Record { return r }, ""},
		{"a repeated attempt", func(r []*kgo.Record) []*kgo.Record { return append(r, r[1:]...) }, ""},
		{"one is lost", func(r []*kgo.Record) []*kgo.Record { return r[1:] }, "notices missing"},
		{"before is of another version", func(r []*kgo.Record) []*kgo.Record { r[2] = replace(r[2], `"size":6`, `"size":5`); return r }, "notices wrong"},
		{"a repeat that differs", func(r []*kgo.Record) []*kgo.Record { return append(r, replace(r[1], `"size":6`, `"size":7`)) }, "notices two of one event that differ"},
		{"a duplicate has an effect", func(r []*kgo.Record) []*kgo.Record { return append(r, replace(r[1], `:1"`, `:4"`)) }, "notices unexpected"},
		{"swapped", func(r []*kgo.Record) []*kgo.Record { r[0], r[1] = r[1], r[0]; return r }, "notices out of order in a workspace"},
		{"elsewhere", func(r []*kgo.Record) []*kgo.Record { c := *r[0]; c.Partition++; r[0] = &c; return r }, "notices in another partition than the event"},
		{"the payload is said to be too large", func(r []*kgo.Record) []*kgo.Record {
			r[0] = replace(r[0], `"late":`, `"payload_omitted":true,"late":`)
			return r
		}, "notices wrong"},
		{"another key", func(r []*kgo.Record) []*kgo.Record { c := *r[0]; c.Key = []byte("v/f"); r[0] = &c; return r }, "notices wrong"},
	} {
		_, m := history(t, story...)
		r := &Report{}
		m.judgeNotices(slices.Values(test.change(notified(t, m))), r)
		expect(t, test.name, test.found, r)
	}
}

// TestRepeatsAreFoundWhereNoneMayBe repeats what is right otherwise.
func TestRepeatsAreFoundWhereNoneMayBe(t *testing.T) {
	_, m := history(t, story...)
	m.once = true
	once, notices, index := &Report{}, &Report{}, &Report{}
	m.judgeNotices(slices.Values(notified(t, m)), once)
	m.judgeIndex(slices.Values(indexed(t, m)), once)
	expect(t, "nothing", "", once)
	m.judgeNotices(slices.Values(append(notified(t, m), notified(t, m)[2:]...)), notices)
	expect(t, "a repeated notice", "notices repeated", notices)
	m.judgeIndex(slices.Values(append(indexed(t, m), indexed(t, m)[2:]...)), index)
	expect(t, "a repeated index record", "index records repeated", index)
}

func expect(t *testing.T, name, found string, r *Report) {
	t.Helper()
	if found == "" && r.Broken() > 0 {
		t.Errorf("%s: a right stream is found guilty\n%s", name, r)
	}
	if found != "" && r.Count(found) == 0 {
		t.Errorf("%s: not found\n%s", name, r)
	}
}

func TestIndexIsJudged(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func([]*kgo.Record) []*kgo.Record
		found  string
	}{
		{"nothing", func(r []*kgo.Record) []*kgo.Record { return r }, ""},
		{"repeated from the middle", func(r []*kgo.Record) []*kgo.Record { return append(r, r[2:]...) }, ""},
		{"the last is lost", func(r []*kgo.Record) []*kgo.Record { return r[:len(r)-1] }, "index not at the newest version"},
		{"one is lost", func(r []*kgo.Record) []*kgo.Record { return append(r[:1], r[2:]...) }, "index records missing"},
		{"swapped", func(r []*kgo.Record) []*kgo.Record { r[1], r[2] = r[2], r[1]; return r }, "index versions out of order"},
		{"an old one comes last", func(r []*kgo.Record) []*kgo.Record { return append(r, r[0]) }, "index not at the newest version"},
		{"a version is of another state", func(r []*kgo.Record) []*kgo.Record { c := *r[1]; c.Value = r[0].Value; r[1] = &c; return r }, "index records missing"},
		{"a version too many", func(r []*kgo.Record) []*kgo.Record {
			c := *r[3]
			c.Value = []byte(strings.Replace(string(c.Value), `"version":4`, `"version":5`, 1))
			return append(r, &c)
		}, "index records wrong"},
	} {
		_, m := history(t, story...)
		r := &Report{}
		m.judgeIndex(slices.Values(test.change(indexed(t, m))), r)
		expect(t, test.name, test.found, r)
	}
}

func TestRowsAreJudged(t *testing.T) {
	_, m := history(t, story...)
	row := m.rows["w/f"]
	right := &tidemarkv1.FileState{
		WorkspaceId: "w", FileId: "f", Name: "a", Size: row.size, Status: tidemarkv1.Status_STATUS_ACTIVE, Version: 4,
		Position: &tidemarkv1.Position{Partition: m.log[3].Partition, Offset: 3}, LastEvent: row.lastEvent,
		LastEventId: "4", CreatedAt: row.created,
		// 01, 02 and 04 of 04
		UpdatedAt: row.updated, LastAt: row.newestAt, FieldTimes: []uint64{3e6 + 1, 0, 0, 2e6 + 1, 0, 0, 1},
		Seen: []byte(strings.TrimPrefix(row.bookkeeping()["seen"], "text ")),
	}
	record := func(change func(*tidemarkv1.FileState)) *kgo.Record {
		state := proto.CloneOf(right)
		change(state)
		value, err := proto.Marshal(state)
		if err != nil {
			t.Fatal(err)
		}
		return &kgo.Record{Key: []byte("w/f"), Value: value}
	}
	same := record(func(*tidemarkv1.FileState) {})
	old := record(func(s *tidemarkv1.FileState) { s.Version = 3 })
	for _, test := range []struct {
		name    string
		once    bool
		records []*kgo.Record
		found   string
	}{
		{"right", true, []*kgo.Record{old, same, same}, ""},
		{"none", false, nil, "rows missing"},
		{"old", false, []*kgo.Record{old}, "rows wrong"},
		{"back in time, and again", false, []*kgo.Record{same, old, same}, ""},
		{"back in time", false, []*kgo.Record{same, same, old}, "rows wrong"},
		{"back in time, and again, under exactly_once", true, []*kgo.Record{same, old, same}, "rows going back in time"},
		{"another size", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.Size = proto.Int64(5) })}, "rows wrong"},
		{"an id too many", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.Seen = append(s.Seen, make([]byte, 24)...) })}, "rows wrong"},
		{"another id", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.Seen[0]++ })}, "rows wrong"},
		{"the status's time is lost", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.FieldTimes = s.FieldTimes[:4] })}, "rows wrong"},
		{"the name has the size's time", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.FieldTimes[0] = s.FieldTimes[3] })}, "rows wrong"},
		{"a field of which nothing is known has a time", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.FieldTimes = append(s.FieldTimes, 1, 1) })}, "rows wrong"},
		{"times of groups are written", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.StatusAt = s.LastAt })}, "rows wrong"},
		{"a silent fold too many", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.Silent = 1 })}, "rows wrong"},
		{"a folder", false, []*kgo.Record{record(func(s *tidemarkv1.FileState) { s.Kind = tidemarkv1.Kind_KIND_FOLDER })}, "rows wrong"},
		{"another key", false, []*kgo.Record{same, {Key: []byte("w/g"), Value: same.Value}}, "rows unexpected"},
	} {
		m.once = test.once
		r := &Report{}
		m.judgeFiles(slices.Values(test.records), r)
		expect(t, test.name, test.found, r)
	}
}

func TestDeadLettersAreJudged(t *testing.T) {
	letter := func(change func(*kgo.Record)) []*kgo.Record {
		r := &kgo.Record{Key: []byte("w"), Value: []byte("no JSON"), Headers: []kgo.RecordHeader{
			{Key: "mine", Value: []byte("1")},
			{Key: "dlq.topic", Value: []byte("events")},
			{Key: "dlq.partition", Value: []byte("3")},
			{Key: "dlq.offset", Value: []byte("0")},
			{Key: "dlq.reason", Value: []byte("not_json")},
			{Key: "dlq.message", Value: []byte("m")},
			{Key: "dlq.exception", Value: []byte("e")},
			{Key: "dlq.first_failed_at", Value: []byte("t")},
		}}
		change(r)
		return []*kgo.Record{r}
	}
	for _, test := range []struct {
		name    string
		letters []*kgo.Record
		found   string
	}{
		{"right", letter(func(*kgo.Record) {}), ""},
		{"none", nil, "dead letters missing"},
		{"another reason", letter(func(r *kgo.Record) { r.Headers[4].Value = []byte("bad_field") }), "dead letters wrong"},
		{"another value", letter(func(r *kgo.Record) { r.Value = []byte("JSON") }), "dead letters wrong"},
		{"another key", letter(func(r *kgo.Record) { r.Key = []byte("v") }), "dead letters wrong"},
		{"a lost header", letter(func(r *kgo.Record) { r.Headers = r.Headers[1:] }), "dead letters wrong"},
		{"of a record that is none", letter(func(r *kgo.Record) { r.Headers[3].Value = []byte("1") }), "dead letters unexpected"},
		{"a mark", letter(func(r *kgo.Record) { r.Headers[0].Key = "dlq.resolved" }), "dead letters marked by nobody"},
	} {
		source := &kgo.Record{
			Topic: "events", Partition: 3, Key: []byte("w"), Value: []byte("no JSON"),
			Headers: []kgo.RecordHeader{{Key: "mine", Value: []byte("1")}},
		}
		m, r := NewModel("events", 8, []*kgo.Record{source}), &Report{}
		m.judgeDead(slices.Values(test.letters), r)
		expect(t, test.name, test.found, r)
	}
}

func TestDocsCompareInstantsAndTypes(t *testing.T) {
	a := toDoc(map[string]any{"at": "2026-09-25T21:40:11.50Z", "size": json.Number("1"), "gone": nil})
	b := doc{"at": instant(time.Date(2026, 9, 25, 21, 40, 11, 5e8, time.UTC).UnixMicro()), "size": number(1)}
	if d := a.diff(b); d != "" {
		t.Error(d)
	}
	c := maps.Clone(b)
	c["size"] = text("1")
	if a.diff(c) == "" {
		t.Error("a number and a text are the same")
	}
}

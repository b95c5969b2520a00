package codecs

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func micros(s string) *int64 {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	us := at.UnixMicro()
	return &us
}

func fullFile() *tidemarkv1.FileState {
	return &tidemarkv1.FileState{
		WorkspaceId: "123", FileId: "2abc", Name: `q3 <"né">&.pdf`, Path: "/reports/q3.pdf", ParentId: "2dir",
		Size: proto.Int64(18233), Mime: "application/pdf", Hash: "sha256:00ff",
		Status: tidemarkv1.Status_STATUS_TRASHED, Version: 3,
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, ActorId: "usr_1",
		LastEvent:   "workspace_storage_file_deleted",
		LastEventId: "evt_1", CreatedAt: micros("2026-09-25T21:40:11Z"), UpdatedAt: micros("2026-09-25T21:40:12.5Z"),
		DeletedAt: micros("2026-09-25T21:40:12.000001Z"), LogId: "log", PlaceAt: proto.Int64(1), Seen: []byte("hidden"),
	}
}

const fullFileJSON = `{"workspace_id":"123","file_id":"2abc","name":"q3 <\"né\">&.pdf","path":"/reports/q3.pdf","parent_id":"2dir","size":18233,` +
	`"mime":"application/pdf","hash":"sha256:00ff","status":"trashed","incomplete":false,"version":3,"position":"7:1234","actor_id":"usr_1",` +
	`"last_event":"workspace_storage_file_deleted","last_event_id":"evt_1","created_at":"2026-09-25T21:40:11Z",` +
	`"updated_at":"2026-09-25T21:40:12.5Z","deleted_at":"2026-09-25T21:40:12.000001Z"}`

func bareFile() *tidemarkv1.FileState {
	return &tidemarkv1.FileState{
		WorkspaceId: "123", FileId: "f", Status: tidemarkv1.Status_STATUS_ACTIVE, Incomplete: true, Version: 1,
		Position: &tidemarkv1.Position{}, LastEvent: "e", LastEventId: "i", UpdatedAt: micros("2026-09-25T21:40:12Z"),
	}
}

const bareFileJSON = `{"workspace_id":"123","file_id":"f","status":"active","incomplete":true,"version":1,"position":"0:0","last_event":"e",` +
	`"last_event_id":"i","updated_at":"2026-09-25T21:40:12Z","deleted_at":null}`

func TestAppendFile(t *testing.T) {
	for want, s := range map[string]*tidemarkv1.FileState{fullFileJSON: fullFile(), bareFileJSON: bareFile()} {
		if d := cmp.Diff("x"+want, string(AppendFile([]byte("x"), s))); d != "" {
			t.Error(d)
		}
	}
}

func TestAppendWorkspace(t *testing.T) {
	w := &tidemarkv1.WorkspaceState{
		WorkspaceId: "123", Files: 57, Bytes: 1596, Trashed: 2,
		ByType:  map[string]int64{"unknown": 1, "b/c": 12, "a/\"b": 44, "gone": 0},
		Members: []*tidemarkv1.Member{{Id: "usr_2"}, {Id: "gone", Left: true}, {Id: "usr_1"}}, Events: 60,
		LastEventAt: micros("2026-09-25T21:40:12Z"), Position: &tidemarkv1.Position{Partition: 7, Offset: 1234},
		LogId: "log", Applied: []byte{1},
	}
	want := `{"workspace_id":"123","files":57,"bytes":1596,"trashed":2,"by_type":{"a/\"b":44,"b/c":12,"unknown":1},"members":["usr_1","usr_2"],` +
		`"events":60,"last_event_at":"2026-09-25T21:40:12Z","position":"7:1234"}`
	if d := cmp.Diff(want, string(AppendWorkspace(nil, w))); d != "" {
		t.Error(d)
	}
	want = `{"workspace_id":"123","files":57,"bytes":1596,"trashed":2,"events":60,"last_event_at":"2026-09-25T21:40:12Z","position":"7:1234"}`
	if d := cmp.Diff(want, string(AppendWorkspaceCounts(nil, w))); d != "" {
		t.Error(d)
	}
	want = `{"workspace_id":"123","files":0,"bytes":0,"trashed":0,"by_type":{},"members":[],"events":0}`
	if d := cmp.Diff(want, string(AppendWorkspace(nil, &tidemarkv1.WorkspaceState{WorkspaceId: "123"}))); d != "" {
		t.Error(d)
	}
}

// shown is a file without what the JSON does not show.
func shown(s *tidemarkv1.FileState) *tidemarkv1.FileState {
	s.LogId, s.PlaceAt, s.Seen = "", nil, nil
	return s
}

func TestIndex(t *testing.T) {
	op := &tidemarkv1.IndexOp{
		Op: tidemarkv1.IndexOp_OP_UPSERT, Id: "123/2abc", WorkspaceId: "123", FileId: "2abc", Version: 3,
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, File: fullFile(),
	}
	want := `{"op":"upsert","id":"123/2abc","workspace_id":"123","file_id":"2abc","version":3,"position":"7:1234","file":` + fullFileJSON + `}`
	roundTrip(t, Index{}, op, want)
	op.Op, op.File = tidemarkv1.IndexOp_OP_DELETE, nil
	roundTrip(t, Index{}, op, `{"op":"delete","id":"123/2abc","workspace_id":"123","file_id":"2abc","version":3,"position":"7:1234"}`)
	for _, broken := range []string{
		`{"op":"insert"}`, `{"op":1}`, `{"op":"upsert","version":1.5}`, `{"op":"upsert","version":"1"}`, `{"op":"delete"} `[:14],
		`{"op":"upsert","position":"7"}`, `{"op":"upsert","file":[]}`, `{"op":"upsert","file":{"status":"lost"}}`, ``,
	} {
		if op, err := (Index{}).Decode([]byte(broken)); err == nil {
			t.Errorf("%s was read as %v", broken, op)
		}
	}
}

func TestNotice(t *testing.T) {
	n := &tidemarkv1.Notice{
		OpId: "123/evt_1", Event: "workspace_storage_file_updated", EventId: "evt_1", WorkspaceId: "123",
		FileId:  "2abc",
		Version: proto.Int64(3), Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, ActorId: "usr_1",
		At:    *micros("2026-09-25T21:40:11Z"),
		After: shown(fullFile()), Payload: []byte(` {"event" : "x", "deep":` + strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1) + "}"),
	}
	head := `{"op_id":"123/evt_1","event":"workspace_storage_file_updated","event_id":"evt_1","workspace_id":"123","file_id":"2abc","version":3,` +
		`"position":"7:1234","late":false,"actor_id":"usr_1","at":"2026-09-25T21:40:11Z",`
	want := head + `"before":null,"after":` + fullFileJSON + `,"payload":` + string(n.GetPayload()) + `}`
	n.Payload = bytes.TrimSpace(n.GetPayload())
	want = strings.Replace(want, `"payload": {`, `"payload":{`, 1)
	roundTrip(t, Notice{}, n, want)

	n.Before, n.Late, n.Payload = shown(bareFile()), true, nil
	want = strings.Replace(head, `"late":false`, `"late":true`, 1) + `"before":` + bareFileJSON + `,"after":` + fullFileJSON + `}`
	roundTrip(t, Notice{}, n, want)
}

func TestNoticeOfUnreadableAndCause(t *testing.T) {
	n := &tidemarkv1.Notice{
		OpId: "w/i/f", Event: "e", EventId: "i", WorkspaceId: "w", FileId: "f",
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, At: *micros("2026-09-25T21:40:11Z"),
		Unreadable: []string{"created", "size"},
		Cause: &tidemarkv1.Cause{
			Event: "workspace_storage_folder_moved", EventId: "evt_1",
			Position:  &tidemarkv1.Position{Partition: 7, Offset: 1200},
			Inherited: &tidemarkv1.Inherited{FolderId: "2dir"},
		},
	}
	head := `{"op_id":"w/i/f","event":"e","event_id":"i","workspace_id":"w","file_id":"f","position":"7:1234","late":false,`
	roundTrip(t, Notice{}, n, head+`"unreadable":["created","size"],"cause":{"event":"workspace_storage_folder_moved","event_id":"evt_1","folder_id":"2dir","position":"7:1200"},`+
		`"at":"2026-09-25T21:40:11Z"}`)
	for _, broken := range []string{
		`"unreadable":"size"`, `"unreadable":[7]`, `"unreadable":["size"`, `"unreadable":["size",]`, `"unreadable":["a" "b"]`, `"cause":"x"`, `"cause":{"position":"7"}`, `"cause":{"event":7}`,
	} {
		if n, err := (Notice{}).Decode([]byte(`{"workspace_id":"w","position":"1:1",` + broken + `}`)); err == nil {
			t.Errorf("%s was read as %v", broken, n)
		}
	}
	for _, fine := range []string{`"unreadable":[]`, `"unreadable":null`, `"cause":null`, `"cause":{"later":[1]}`, ` "unreadable" : [ "size" , "name" ] `} {
		if _, err := (Notice{}).Decode([]byte(`{"workspace_id":"w","position":"1:1",` + fine + `}`)); err != nil {
			t.Errorf("%s: %v", fine, err)
		}
	}
}

func TestNoticeWithoutRow(t *testing.T) {
	n := &tidemarkv1.Notice{
		OpId: "123/evt_1", Event: "added_member_to_workspace", EventId: "evt_1", WorkspaceId: "123",
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, At: *micros("2026-09-25T21:40:11Z"),
		Member: &tidemarkv1.Member{Id: "usr_1", At: *micros("2026-09-25T21:40:11Z")}, Payload: []byte(`{"event":"added_member_to_workspace"}`),
	}
	roundTrip(t, Notice{}, n, `{"op_id":"123/evt_1","event":"added_member_to_workspace","event_id":"evt_1","workspace_id":"123","position":"7:1234",`+
		`"late":false,"member":{"id":"usr_1","left":false,"at":"2026-09-25T21:40:11Z"},"at":"2026-09-25T21:40:11Z",`+
		`"payload":{"event":"added_member_to_workspace"}}`)
	for _, broken := range []string{
		`{}`, `{"workspace_id":"w"}`, `{"position":"1:1"}`, `{"workspace_id":"w","position":"1:-1"}`,
		`{"workspace_id":"w","position":"1:1","at":"noon"}`, `{"workspace_id":"w","position":"1:1","late":"no"}`, `{"workspace_id":"w","position":"1:1"}}`,
	} {
		if n, err := (Notice{}).Decode([]byte(broken)); err == nil {
			t.Errorf("%s was read as %v", broken, n)
		}
	}
}

// A notice that would be larger than 1 MiB has payload_omitted in place of the payload.
func TestNoticeOmitsLargePayload(t *testing.T) {
	n := &tidemarkv1.Notice{WorkspaceId: "123", Position: &tidemarkv1.Position{}, At: 1, Payload: []byte(`{"a":"` + strings.Repeat("x", maxNotice-200) + `"}`)}
	b := appendNotice(nil, n)
	n.Payload = []byte(`{"a":"` + strings.Repeat("x", maxNotice-len(b)+len(n.Payload)-len(`{"a":""}`)) + `"}`)
	if b = appendNotice(nil, n); len(b) != maxNotice {
		t.Fatalf("%d bytes", len(b))
	}
	n.Payload = append(n.Payload, ' ')
	b = appendNotice(nil, n)
	if len(b) > 1000 || !bytes.HasSuffix(b, []byte(`,"payload_omitted":true}`)) || !json.Valid(b) {
		t.Fatalf("%d bytes: %.200s", len(b), b)
	}
	decoded, err := Notice{}.Decode(b)
	if err != nil || !decoded.(*tidemarkv1.Notice).GetPayloadOmitted() {
		t.Errorf("%v, %v", decoded, err)
	}
}

// With the longest names and ids, rows and notices are far smaller than the largest record.
func TestLargestOutputs(t *testing.T) {
	long, id := strings.Repeat("\x01", maxText), strings.Repeat("\"", MaxID)
	s := &tidemarkv1.FileState{
		WorkspaceId: id, FileId: id, Name: long, Path: long, ParentId: id, Size: proto.Int64(math.MaxInt64),
		Mime: long, Hash: long,
		Status: tidemarkv1.Status_STATUS_TRASHED, Incomplete: true, Version: 1 << 62,
		Position: &tidemarkv1.Position{Partition: 1 << 30, Offset: 1 << 62},
		ActorId:  id, LastEvent: id, LastEventId: id, CreatedAt: micros("2026-09-25T21:40:11.000001Z"),
		UpdatedAt: micros("2026-09-25T21:40:11.000001Z"),
		DeletedAt: micros("2026-09-25T21:40:11.000001Z"), LogId: id, Seen: make([]byte, 256*24),
	}
	n := &tidemarkv1.Notice{
		OpId: id + id + id + id + id + id, Event: id, EventId: id, WorkspaceId: id, FileId: id,
		Version: proto.Int64(1 << 62), Position: s.Position, Late: true,
		ActorId: id, At: 1 << 50, Before: s, After: s,
		Payload:    append(append([]byte{'"'}, bytes.Repeat([]byte("x"), maxNotice)...), '"'),
		Member:     &tidemarkv1.Member{Id: id, At: 1 << 50},
		Unreadable: OptionalFields(),
		Cause: &tidemarkv1.Cause{
			Event: id, EventId: id, Position: s.Position,
			Inherited: &tidemarkv1.Inherited{FolderId: id},
		},
	}
	row, notice := proto.Size(s), appendNotice(nil, n)
	t.Logf("a row of %d bytes, a notice of %d", row, len(notice))
	if row > 1<<15 || len(notice) > maxNotice/4 || !bytes.Contains(notice, []byte(`"payload_omitted":true`)) {
		t.Errorf("a row of %d bytes, a notice of %d", row, len(notice))
	}
}

// What a later release may add is skipped.
func TestReadSkipsUnknownMembers(t *testing.T) {
	b := []byte(`{"unknown":{"a":[1,{}]},"workspace_id":"w","position":"1:2","after":{"file_id":"f","unknown":[],"status":"active","incomplete":false,"version":1}}`)
	n, err := Notice{}.Decode(b)
	if err != nil || n.(*tidemarkv1.Notice).GetAfter().GetFileId() != "f" {
		t.Errorf("%v, %v", n, err)
	}
}

// An error names the member with the wrong value, not the object that contains it.
func TestReadNamesTheMember(t *testing.T) {
	for value, want := range map[string]string{
		`{"workspace_id":7}`:                                        "workspace_id: want a string",
		`{"before":{"size":"12"}}`:                                  "size: want a whole number",
		`{"before":{"size":1},"after":{"created_at":"soon"}}`:       "created_at: want a time",
		`{"after":{"file_id":"f","status":"lost"}}`:                 `status: want a known word, found "lost"`,
		`{"after":{"size":1},"late":1}`:                             "late: want true or false",
		`{"member":{"id":"m","left":"no"},"position":"1:2"}`:        "left: want true or false",
		`{"member":{"id":"m"},"position":"01:2"}`:                   "position: want a position",
		`{"after":{"unknown":{"size":[]},"pa\u0074h":["/a"]}}`:      "path: want a string",
		`{"after":{"file_id":"f"},"unknown":{},"at":"2026-13-01T"}`: "at: want a time",
	} {
		if _, err := (Notice{}).Decode([]byte(value)); err == nil || !strings.Contains(err.Error(), ": "+want) {
			t.Errorf("%s: %v, want %s", value, err, want)
		}
	}
}

func roundTrip(t *testing.T, codec interface {
	Encode(any) ([]byte, error)
	Decode([]byte) (any, error)
}, m proto.Message, want string,
) {
	t.Helper()
	b, err := codec.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
	if !json.Valid(b) {
		t.Errorf("not JSON: %s", b)
	}
	decoded, err := codec.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if op, ok := m.(*tidemarkv1.IndexOp); ok && op.File != nil {
		shown(op.File)
	}
	if d := cmp.Diff(m, decoded, protocmp.Transform()); d != "" {
		t.Error(d)
	}
	if _, err := codec.Encode(42); err == nil {
		t.Error("42 was encoded")
	}
}

func TestAppendString(t *testing.T) {
	for _, s := range []string{
		"", "plain", "<&>'", "\x00\x1f\x7f", "a\"b\\c/d", "\n\r\t\b\f", "né🙂\u2028", "\ufffd",
		"eight by", "eight \"b", "eight by\n", "eight by te\\t", "eight byé",
	} {
		b := appendString(nil, s)
		var back string
		if err := json.Unmarshal(b, &back); err != nil || back != s {
			t.Errorf("%q was written as %s", s, b)
		}
	}
	if got := string(appendString(nil, "a\xffb\xc3")); got != "\"a\ufffdb\ufffd\"" {
		t.Errorf("invalid UTF-8 was written as %q", got)
	}
}

func benchIndex() *tidemarkv1.IndexOp {
	return &tidemarkv1.IndexOp{
		Op: tidemarkv1.IndexOp_OP_UPSERT, Id: "123/2abc", WorkspaceId: "123", FileId: "2abc", Version: 3,
		Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, File: fullFile(),
	}
}

func benchNotice() *tidemarkv1.Notice {
	return &tidemarkv1.Notice{
		OpId: "123/evt_1", Event: "workspace_storage_file_updated", EventId: "evt_1", WorkspaceId: "123",
		FileId:  "2abc",
		Version: proto.Int64(3), Position: &tidemarkv1.Position{Partition: 7, Offset: 1234}, ActorId: "usr_1",
		At:     *micros("2026-09-25T21:40:11Z"),
		Before: fullFile(), After: fullFile(), Payload: typical,
	}
}

// An appender is an epochs.Appender.
type appender interface {
	Append(b []byte, value any) ([]byte, error)
}

func benchmarkAppend(b *testing.B, codec appender, message any) {
	b.Helper()
	b.ReportAllocs()
	var record []byte
	for b.Loop() {
		var err error
		if record, err = codec.Append(record[:0], message); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(record)))
	}
}

func BenchmarkAppendIndex(b *testing.B)  { benchmarkAppend(b, Index{}, benchIndex()) }
func BenchmarkAppendNotice(b *testing.B) { benchmarkAppend(b, Notice{}, benchNotice()) }

// An output that fits into its buffer takes no allocation.
func TestAppendAllocatesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		codec   appender
		message any
	}{"index": {Index{}, benchIndex()}, "notice": {Notice{}, benchNotice()}} {
		record, err := c.codec.Append(nil, c.message)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { record, _ = c.codec.Append(record[:0], c.message) }); n > 0 {
			t.Errorf("%s: %.1f allocations", name, n)
		}
	}
}

func BenchmarkDecodeNotice(b *testing.B) {
	data := appendNotice(nil, benchNotice())
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := (Notice{}).Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}

package codecs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

var typical = []byte(`{"event":"workspace_storage_file_updated","workspace_id":"4821930571648203911","event_id":"evt_01J9ZK4T8W2M5N7Q9R3S6V8X0Y",` +
	`"object_id":"2abcdefghijklmnopqrstuvwxyz23","name":"q3 report.pdf","path":"/reports/2026/q3 report.pdf","parent_id":"2zyxwvutsrqponmlkjihgfedcba98",` +
	`"size":18233,"mime":"application/pdf","hash":"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","user_id":"usr_0123456789",` +
	`"created":"2026-09-25 21:40:11 UTC","received_at":"2026-09-25T21:40:11.123456Z","partition_key":"4821930571648203911"}`)

// parsed is an event without the payload, which must be the value.
func parsed(t *testing.T, value string) *tidemarkv1.Event {
	t.Helper()
	e, err := ParseEvent([]byte(value))
	if err != nil {
		t.Fatalf("%s: %v", value, err)
	}
	if string(e.GetPayload()) != value {
		t.Errorf("%s: the payload is %s", value, e.GetPayload())
	}
	e.Payload = nil
	return e
}

func TestParseEventShapes(t *testing.T) {
	at := micros("2026-09-25T21:40:11Z")
	full := &tidemarkv1.Event{
		Event: "workspace_storage_file_updated", WorkspaceId: "4821930571648203911", EventId: "evt_01J9ZK4T8W2M5N7Q9R3S6V8X0Y",
		FileId: "2abcdefghijklmnopqrstuvwxyz23", Name: "q3 report.pdf", Path: "/reports/2026/q3 report.pdf", ParentId: "2zyxwvutsrqponmlkjihgfedcba98",
		Size: proto.Int64(18233), Mime: "application/pdf", Hash: "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		ActorId: "usr_0123456789", MemberId: "usr_0123456789", OccurredAt: at, ReceivedAt: *micros("2026-09-25T21:40:11.123456Z"),
	}
	for value, want := range map[string]*tidemarkv1.Event{
		string(typical): full,
		// the recipe's own
		`{"event":"workspace_storage_file_added","workspace_id":"123","event_id":"evt1"}`: {
			Event: "workspace_storage_file_added", WorkspaceId: "123", EventId: "evt1",
		},
		// the other shape
		`{"eventType":"workspace_storage_file_added","workspaceId":"w","eventId":"e","fileId":"f","fileName":"q3.pdf","filePath":"/q3.pdf","fileSize":18233,
		 "mimeType":"m","checksum":"h","folderId":"p","userId":"u","timestamp":"2026-09-25T21:40:11Z"}`: {
			Event: "workspace_storage_file_added", WorkspaceId: "w", EventId: "e", FileId: "f", Name: "q3.pdf", Path: "/q3.pdf", Size: proto.Int64(18233),
			Mime: "m", Hash: "h", ParentId: "p", ActorId: "u", MemberId: "u", OccurredAt: at,
		},
		// escapes in names and values, space everywhere, unknown names, as Flask's isoformat writes a time
		" {\t\"\\u0065vent\" :\n\"\\u0061\\ud83d\\ude00\\\"\" , \"event_id\":\"\\/\",\"workspace_id\":\"w\",\"x\":[{},[],-1.5e+3,true,null],\"received_at\":\"2026-09-25T21:40:11.5+00:00\"}\r\n": {
			Event: "a😀\"", EventId: "/", WorkspaceId: "w", ReceivedAt: *at + 500000,
		},
		// member and actor
		`{"event":"e","event_id":"i","workspace_id":"w","actor_id":"a","member_id":"m","userId":"u"}`: {
			Event: "e", EventId: "i", WorkspaceId: "w", ActorId: "a", MemberId: "m",
		},
		// names by exact case
		`{"event":"e","event_id":"i","workspace_id":"w","Event":"f","NAME":"n","Event_ID":7}`: {Event: "e", EventId: "i", WorkspaceId: "w"},
	} {
		if d := cmp.Diff(want, parsed(t, value), protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", value, d)
		}
	}
}

// Every accepted spelling, alone and beside those that come after it.
func TestParseEventSpellings(t *testing.T) {
	const ids = `{"event":"e","event_id":"i","workspace_id":"w"`
	for _, f := range []struct {
		names string
		get   func(*tidemarkv1.Event) string
	}{
		{"object_id|objectId|fileId|file_id", (*tidemarkv1.Event).GetFileId},
		{"name|fileName|file_name", (*tidemarkv1.Event).GetName},
		{"path|filePath|file_path", (*tidemarkv1.Event).GetPath},
		{"mime|mimeType|mime_type|content_type", (*tidemarkv1.Event).GetMime},
		{"hash|checksum|sha256", (*tidemarkv1.Event).GetHash},
		{"parent_id|folder_id|parentId|folderId", (*tidemarkv1.Event).GetParentId},
		{"actor_id|user_id|userId|actorId", (*tidemarkv1.Event).GetActorId},
		{"user_id|member_id|userId|memberId", (*tidemarkv1.Event).GetMemberId},
		{"size|fileSize|file_size", func(e *tidemarkv1.Event) string { return fmt.Sprint(e.GetSize()) }},
		{"created|timestamp|occurred_at|createdAt", func(e *tidemarkv1.Event) string { return fmt.Sprint(e.GetOccurredAt() / 1e6) }},
	} {
		names := strings.Split(f.names, "|")
		number := names[0] == "size" || names[0] == "created"
		for i := range names {
			forward, backward := ids, ids
			for j := i; j < len(names); j++ {
				value := fmt.Sprintf("%q", fmt.Sprint(100+j))
				if number {
					value = fmt.Sprint(100 + j)
				}
				forward += fmt.Sprintf(`,%q:%s`, names[j], value)
				backward = ids + fmt.Sprintf(`,%q:%s`, names[j], value) + backward[len(ids):]
			}
			for _, value := range []string{forward, backward} {
				if got := f.get(parsed(t, value+"}")); got != fmt.Sprint(100+i) {
					t.Errorf("%s}: got %s, want the value of %s", value, got, names[i])
				}
			}
		}
	}
}

func TestParseEventScope(t *testing.T) {
	for scope, want := range map[string]string{
		`"workspace_id":"w"`:                 "w",
		`"workspaceId":"w"`:                  "w",
		`"profile_id":"p"`:                   "p",
		`"profileId":"p"`:                    "p",
		`"share_id":"s"`:                     "s",
		`"shareId":"s"`:                      "s",
		`"org_id":"o"`:                       "o",
		`"orgId":"o"`:                        "o",
		`"workspace_id":null,"share_id":"s"`: "s",
		`"profile_type":"workspace","profile_id":"w"`:                "w",
		`"profile_id":"s","profile_type":"share"`:                    "s",
		`"profile_id":"o","profileType":"org"`:                       "o",
		`"profile_id":"u","profile_type":"user"`:                     "u",
		`"profile_id":"x","profile_type":7,"workspaceId":"x"`:        "x",
		`"share_id":"s","org_id":"o","workspace_id":"w"`:             "w", // a share's event that carries its workspace
		`"share_id":"s","org_id":"o"`:                                "s",
		`"workspace_id":"w","profile_id":"s","profile_type":"share"`: "w",
		`"share_id":"s","profile_id":"u","profile_type":"user"`:      "s",
		`"workspace_id":"w","workspaceId":"\u0077"`:                  "w",
	} {
		if got := parsed(t, `{"event":"e","event_id":"i",`+scope+`}`).GetWorkspaceId(); got != want {
			t.Errorf("%s: got %q, want %q", scope, got, want)
		}
	}
}

func TestParseEventAbsent(t *testing.T) {
	for _, field := range []string{
		`"object_id":null`, `"object_id":""`, `"name":""`, `"name":7`, `"path":["p"]`, `"size":"12"`, `"size":-1`, `"size":1.0`, `"size":1e3`,
		`"size":-0`, `"size":9007199254740993`, `"size":99999999999999999999`, `"size":null`, `"size":true`, `"mime":{}`, `"hash":false`, `"parent_id":7`, `"user_id":7`,
		`"created":"yesterday"`, `"created":true`, `"created":-1`, `"created":1e9`, `"created":""`, `"created":"2026-02-30 00:00:00 UTC"`, `"received_at":"soon"`, `"received_at":{}`,
	} {
		want := &tidemarkv1.Event{Event: "e", EventId: "i", WorkspaceId: "w"}
		if d := cmp.Diff(want, parsed(t, `{"event":"e","event_id":"i","workspace_id":"w",`+field+`}`), protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", field, d)
		}
	}
	for _, size := range []int64{0, 1, 1 << 53} {
		if e := parsed(t, fmt.Sprintf(`{"event":"e","event_id":"i","workspace_id":"w","size":%d}`, size)); e.Size == nil || e.GetSize() != size {
			t.Errorf("size %d was read as %v", size, e.Size)
		}
	}
}

func TestParseEventRefuses(t *testing.T) {
	long := strings.Repeat("é", MaxID/2)
	with := func(fields string) string { return `{"event":"e","event_id":"i","workspace_id":"w",` + fields + `}` }
	for _, test := range []struct{ value, reason, field string }{
		{`{"event_id":"i","workspace_id":"w"}`, ReasonMissingField, "event"},
		{`{"event":null,"event_id":"i","workspace_id":"w"}`, ReasonMissingField, "event"},
		{`{"event":"e","workspace_id":"w"}`, ReasonMissingField, "event_id"},
		{`{"event":"e","event_id":"i"}`, ReasonMissingField, "workspace_id"},
		{`{"event":"e","event_id":"i","profile_type":"share"}`, ReasonMissingField, "workspace_id"},
		{`{"event":"","event_id":"i","workspace_id":"w"}`, ReasonBadField, "event"},
		{`{"event":7,"event_id":"i","workspace_id":"w"}`, ReasonBadField, "event"},
		{`{"event":"e","event_id":7,"workspace_id":"w"}`, ReasonBadField, "event_id"},
		{`{"event":"e","event_id":"i","workspace_id":123}`, ReasonBadField, "workspace_id"},
		{`{"event":"e","event_id":"i","workspace_id":["w"]}`, ReasonBadField, "workspace_id"},
		{`{"event":"e","event_id":"i","profile_id":1}`, ReasonBadField, "workspace_id"},
		{`{"event":"e","event_id":"i\u0000","workspace_id":"w"}`, ReasonBadField, "event_id"},
		{`{"event":"e","event_id":"i\u007f","workspace_id":"w"}`, ReasonBadField, "event_id"},
		{"{\"event\":\"e\",\"event_id\":\"i\",\"workspace_id\":\"w\u0085\"}", ReasonBadField, "workspace_id"},
		{`{"event":"e","event_id":"` + long + `x","workspace_id":"w"}`, ReasonBadField, "event_id"},
		{`{"event":"e","event_id":"i","workspace_id":"` + long + `x"}`, ReasonBadField, "workspace_id"},
		{with(`"eventType":"f"`), ReasonBadField, "event"},
		{with(`"event_type":""`), ReasonBadField, "event"},
		{with(`"eventId":"j"`), ReasonBadField, "event_id"},
		{with(`"eventId":1`), ReasonBadField, "event_id"},
		{with(`"workspaceId":"v"`), ReasonBadField, "workspace_id"},
		{with(`"profile_id":"v"`), ReasonBadField, "workspace_id"},
		{with(`"profile_id":"v","profile_type":"workspace"`), ReasonBadField, "workspace_id"},
		{`{"event":"e","event_id":"i","share_id":"s","profile_id":"t","profile_type":"share"}`, ReasonBadField, "workspace_id"},
		{with(`"object_id":7`), ReasonBadField, "object_id"},
		{with(`"file_id":{}`), ReasonBadField, "object_id"},
		{with(`"object_id":"\n"`), ReasonBadField, "object_id"},
		{with(`"object_id":"` + long + `x"`), ReasonBadField, "object_id"},
		{with(`"parent_id":"` + long + `x"`), ReasonBadField, "parent_id"},
		{with(`"user_id":"\t"`), ReasonBadField, "actor_id"},
		{with(`"memberId":"\t"`), ReasonBadField, "member_id"},
		{with(`"name":"` + strings.Repeat("n", maxText+1) + `"`), ReasonFieldTooLarge, "name"},
		{with(`"path":"` + strings.Repeat(`\u00e9`, maxText/2) + `x"`), ReasonFieldTooLarge, "path"},
		{with(`"mime":"` + strings.Repeat("n", maxText+1) + `"`), ReasonFieldTooLarge, "mime"},
		{with(`"hash":"` + strings.Repeat("n", maxText+1) + `"`), ReasonFieldTooLarge, "hash"},
		{with(`"folderId":"` + strings.Repeat("n", maxText+1) + `"`), ReasonFieldTooLarge, "parent_id"},
		{with(`"actorId":"` + strings.Repeat("n", maxText+1) + `"`), ReasonFieldTooLarge, "actor_id"},
		{`{"event":7}x`, ReasonNotJSON, ""},
	} {
		var got *EventError
		if e, err := ParseEvent([]byte(test.value)); !errors.As(err, &got) || got.Reason != test.reason || got.Field != test.field {
			t.Errorf("%.200s: %v, %v; want %s of %s", test.value, e, err, test.reason, test.field)
		} else if len(got.Detail) == 0 || !strings.HasPrefix(got.Error(), test.field) {
			t.Errorf("%.200s: says %q", test.value, got.Error())
		}
	}
	endless := strings.Repeat("n", 1<<20)
	if _, err := ParseEvent([]byte(`{"` + endless + `":1,"` + endless + `":2}`)); err == nil || len(err.Error()) > 300 {
		t.Error("an error repeats all that the sender wrote") // it goes into a header
	}
	var got *EventError
	if _, err := ParseEvent(nil); !errors.As(err, &got) || got.Reason != ReasonNullValue {
		t.Errorf("a null value: %v", err)
	}
	for _, value := range []string{`"name":"` + strings.Repeat("n", maxText) + `"`, `"object_id":"` + long + `"`, `"path":"` + strings.Repeat(`\u00e9`, maxText/2) + `"`} {
		parsed(t, with(value))
	}
}

func TestParseTime(t *testing.T) {
	at := time.Date(2026, 9, 25, 21, 40, 11, 0, time.UTC).UnixMicro()
	for text, want := range map[string]int64{
		"2026-09-25 21:40:11 UTC": at, "2026-09-25T21:40:11Z": at, "2026-09-25t21:40:11z": at, "2026-09-25 21:40:11": at, "2026-09-25T21:40:11": at,
		"2026-09-25T21:40:11.5": at + 500000, "2026-09-25T21:40:11.123456789Z": at + 123456, "2026-09-25T21:40:11.000001+00:00": at + 1,
		"2026-09-25T23:40:11+02:00": at, "2026-09-25 16:10:11 -0530": at, "2026-09-25 21:40:11.25 GMT": at + 250000,
		"1790372411": at, "1790372411000": at, "1790372411.25": at + 250000, "1790372411123.5": at + 123500, "0": 0,
		"1970-01-01T00:00:00Z": 0, "9999-12-31T23:59:59.999999Z": maxTime, "2024-02-29T00:00:00Z": time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC).UnixMicro(),
	} {
		if got, ok := parseTime([]byte(text)); !ok || got != want {
			t.Errorf("%s: %d %t, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "now", "2026-09-25", "2026-9-25 21:40:11 UTC", "2026-13-25T21:40:11Z", "2026-00-25T21:40:11Z", "2025-02-29T00:00:00Z", "2026-04-31T00:00:00Z",
		"2026-09-25T24:00:00Z", "2026-09-25T21:60:11Z", "2026-09-25T21:40:60Z", "2026-09-25T21:40:11.Z", "2026-09-25T21:40:11 CET", "2026-09-25T21:40:11+25:00", "2026-09-25T21:40:11+0:00",
		"1969-12-31T23:59:59Z", "1970-01-01T00:30:00+01:00", "9999-12-31T23:59:59-01:00", "+2026-09-25T21:40:11", "-1", "+1", "1e9", "1.", ".5", "1.2.3", "0x10", "9999999999999999",
		"2026-09-25T21:40:11Zx", "2026x09-25T21:40:11Z", "2026-09-25T21:40-11Z", "２０２６-09-25T21:40:11Z",
	} {
		if got, ok := parseTime([]byte(text)); ok {
			t.Errorf("%q was read as %s", text, time.UnixMicro(got).UTC())
		}
	}
	for days := range 3000 * 365 / 100 { // a hundred days at a time, every month and leap year comes by
		want := time.Date(1970, 1, 1, 1, 2, 3, 450000000, time.UTC).AddDate(0, 0, days*100)
		if want.Year() > 9999 {
			break
		}
		text := appendTime(nil, want.UnixMicro())
		if string(text) != `"`+want.Format(time.RFC3339Nano)+`"` {
			t.Fatalf("%s was written as %s", want, text)
		}
		if got, ok := parseTime(bytes.Trim(text, `"`)); !ok || got != want.UnixMicro() {
			t.Fatalf("%s was read as %d %t", text, got, ok)
		}
	}
}

func TestParseEventAllocates(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseEvent(typical); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("%v allocations an event", n)
	}
}

func BenchmarkParseEvent(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(typical)))
	for b.Loop() {
		if _, err := ParseEvent(typical); err != nil {
			b.Fatal(err)
		}
	}
}

// For comparison: the standard library reads the same fields, and is not strict.
func BenchmarkStandardLibrary(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var e struct {
			Event       string `json:"event"`
			WorkspaceID string `json:"workspace_id"`
			EventID     string `json:"event_id"`
			ObjectID    string `json:"object_id"`
			Name        string `json:"name"`
			Path        string `json:"path"`
			ParentID    string `json:"parent_id"`
			Size        *int64 `json:"size"`
			Mime        string `json:"mime"`
			Hash        string `json:"hash"`
			UserID      string `json:"user_id"`
			Created     string `json:"created"`
			ReceivedAt  string `json:"received_at"`
		}
		if err := json.Unmarshal(typical, &e); err != nil {
			b.Fatal(err)
		}
	}
}

package codecs

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

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
		Event: "workspace_storage_file_updated", WorkspaceId: "4821930571648203911",
		EventId: "evt_01J9ZK4T8W2M5N7Q9R3S6V8X0Y",
		FileId:  "2abcdefghijklmnopqrstuvwxyz23", Name: "q3 report.pdf", Path: "/reports/2026/q3 report.pdf",
		ParentId: "2zyxwvutsrqponmlkjihgfedcba98",
		Size:     proto.Int64(18233), Mime: "application/pdf",
		Hash:    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		ActorId: "usr_0123456789", MemberId: "usr_0123456789", OccurredAt: at,
		ReceivedAt: *micros("2026-09-25T21:40:11.123456Z"),
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
			Event: "workspace_storage_file_added", WorkspaceId: "w", EventId: "e", FileId: "f", Name: "q3.pdf",
			Path: "/q3.pdf", Size: proto.Int64(18233),
			Mime: "m", Hash: "h", ParentId: "p", ActorId: "u", MemberId: "u", OccurredAt: at,
		},
		// escapes in names and values, space everywhere, unknown names, as Flask's isoformat writes a time
		" {\t\"\\u0065vent\" :\n\"\\u0061\\ud83d\\ude00\\\"\" , " +
			"\"event_id\":\"\\/\",\"workspace_id\":\"w\",\"x\":[{},[],-1.5e+3,true,null],\"received_at\":\"2026-09-25T21:40:11.5+00:00\"}\r\n": {
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

// Every accepted spelling, alone and with those of lower precedence.
func TestParseEventSpellings(t *testing.T) {
	const ids, year2026 = `{"event":"e","event_id":"i","workspace_id":"w"`, 1767225600
	for _, f := range []struct {
		names string
		get   func(*tidemarkv1.Event) string
	}{
		{"object_id|objectId|fileId|file_id", (*tidemarkv1.Event).GetFileId},
		{"name|fileName|file_name", (*tidemarkv1.Event).GetName},
		{"path|filePath|file_path", (*tidemarkv1.Event).GetPath},
		{"mime|mimeType|mime_type|mimetype|content_type", (*tidemarkv1.Event).GetMime},
		{"hash|checksum|sha256", (*tidemarkv1.Event).GetHash},
		{"parent_id|folder_id|parentId|folderId|parent", (*tidemarkv1.Event).GetParentId},
		{"calling_user_id|callingUserId|actor_id|actorId|user_id|userId", (*tidemarkv1.Event).GetActorId},
		{"user_id|member_id|userId|memberId", (*tidemarkv1.Event).GetMemberId},
		{"size|fileSize|file_size", func(e *tidemarkv1.Event) string { return fmt.Sprint(e.GetSize()) }},
		{"created|timestamp|occurred_at|createdAt", func(e *tidemarkv1.Event) string { return fmt.Sprint(e.GetOccurredAt()/1e6 - year2026) }},
	} {
		names := strings.Split(f.names, "|")
		number := names[0] == "size" || names[0] == "created"
		for i := range names {
			forward, backward := ids, ids
			for j := i; j < len(names); j++ {
				value := fmt.Sprintf("%q", fmt.Sprint(100+j))
				if names[0] == "created" {
					value = fmt.Sprint(year2026 + 100 + j)
				} else if number {
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

// with is an event that has one more member.
func with(member string) string {
	return `{"event":"e","event_id":"i","workspace_id":"w",` + member + `}`
}

func TestParseEventAbsent(t *testing.T) {
	for _, field := range []string{
		`"object_id":null`, `"object_id":""`, `"name":""`, `"name":null`, `"path":""`, `"size":null`, `"size":""`, `"mime":null`, `"user_id":""`, `"hash":null`,
		`"created":null`, `"created":""`, `"created":0`, `"created":"0"`, `"created":-1`, `"created":"1999-12-31T23:59:59Z"`, `"created":946684799`,
		`"created":"1970-01-01T00:00:00Z"`, `"created":"1969-12-31T23:59:59Z"`, `"created":"0001-01-01T00:00:00Z"`,
		`"received_at":"soon"`, `"received_at":{}`, `"received_at":-1`, `"hash_algo":"md5"`, `"profile_type":7`, `"canonical_event":7`, `"canonical_event":""`,
		`"modified":"2026-09-25 21:40:11 UTC"`, `"deleted_from":"/x"`, `"version":7`,
	} {
		want := &tidemarkv1.Event{Event: "e", EventId: "i", WorkspaceId: "w"}
		if d := cmp.Diff(want, parsed(t, with(field)), protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got):\n%s", field, d)
		}
	}
}

func TestParseEventUnreadable(t *testing.T) {
	for fields, want := range map[string]string{
		`"name":7`: "name", `"path":["p"]`: "path", `"mime":{}`: "mime", `"hash":false`: "hash", `"parent_id":7`: "parent_id", `"actor_id":{}`: "actor_id",
		`"user_id":7`: "actor_id member_id", `"member_id":1.5`: "member_id", `"calling_user_id":7`: "actor_id",
		`"size":-1`: "size", `"size":1.5`: "size", `"size":"1.5"`: "size", `"size":"-1"`: "size", `"size":9223372036854775808`: "size", `"size":1e19`: "size",
		`"size":99999999999999999999`: "size", `"size":1e999999999999999999999`: "size", `"size":1e-1`: "size", `"size":true`: "size", `"size":[]`: "size",
		`"size":"18 kB"`: "size", `"size":"0x10"`: "size", `"size":"1,000"`: "size", `"size":"+5"`: "size", `"size":"007"`: "size", `"size":" 7"`: "size",
		`"created":"yesterday"`: "created", `"created":true`: "created", `"created":{}`: "created", `"created":"2026-02-30 00:00:00 UTC"`: "created",
		`"created":"2026-09-25"`: "created", `"created":"20260925"`: "created", `"created":20260925`: "created", `"created":"0000-00-00 00:00:00"`: "created",
		`"created":"10000-01-01T00:00:00Z"`: "created", `"created":1e21`: "created",
		`"size":1.5,"name":7,"created":"noon","path":{}`: "created name path size",
		// another spelling that could be read, in either order
		`"size":"x","fileSize":7`: "", `"fileSize":7,"size":"x"`: "", `"name":7,"fileName":"n"`: "", `"timestamp":"2026-09-25T21:40:11Z","created":"x"`: "",
		`"created":0,"timestamp":"x"`: "created", `"created":"x","timestamp":null`: "created",
		`"actor_id":7,"user_id":"u"`: "",
	} {
		e := parsed(t, with(fields))
		if got := strings.Join(e.GetUnreadable(), " "); got != want {
			t.Errorf("%s: unreadable are %q, want %q", fields, got, want)
		}
		if want != "" && (e.Size != nil || e.OccurredAt != nil ||
			e.GetName()+e.GetPath()+e.GetMime()+e.GetHash()+e.GetParentId()+e.GetActorId()+e.GetMemberId() != "") {
			t.Errorf("%s: an unreadable field does not count as absent: %v", fields, e)
		}
		for _, name := range e.GetUnreadable() {
			if !slices.Contains(OptionalFields(), name) {
				t.Errorf("%s is not among %v", name, OptionalFields())
			}
		}
	}
}

// hash_algo is kept with a hash that does not name its algorithm.
func TestParseEventHashAlgorithm(t *testing.T) {
	for fields, want := range map[string]string{
		`"hash":"00ff","hash_algo":"md5"`: "md5:00ff", `"hash_algo":"md5","checksum":"00ff"`: "md5:00ff", `"hash":"sha256:00ff","hash_algo":"md5"`: "sha256:00ff",
		`"hash":"00ff","hash_algo":""`: "00ff", `"hash":"00ff","hash_algo":null`: "00ff", `"hash":"00ff","hash_algo":7`: "00ff", `"sha256":"00ff","hash_algo":"md5"`: "00ff",
		`"hash":"\u0030","hash_algo":"md\u0035"`: "md5:0", `"hash":"","hash_algo":"md5"`: "",
	} {
		if got := parsed(t, with(fields)).GetHash(); got != want {
			t.Errorf("%s: the hash is %q, want %q", fields, got, want)
		}
	}
	var fault *EventError
	if _, err := ParseEvent([]byte(with(`"hash":"00ff","hash_algo":"` + strings.Repeat("m", maxText) + `"`))); !errors.As(err, &fault) || fault.Field != "hash" {
		t.Errorf("an endless algorithm: %v", err)
	}
}

// A lone surrogate is accepted in a text and refused in an id.
func TestParseEventLoneSurrogate(t *testing.T) {
	for text, want := range map[string]string{
		`\ud83d`: "\ufffd", `a\ud83db`: "a\ufffdb", `\ude00`: "\ufffd", `\ud83d\ud83d`: "\ufffd\ufffd", `\ud83d\ud83d\ude00`: "\ufffd😀", `\ud83d\n`: "\ufffd\n", `\uD83D\ufffd`: "\ufffd\ufffd",
	} {
		value := with(`"name":"` + text + `","path":"/` + text + `","x":["` + text + `"]`)
		e := parsed(t, value)
		if e.GetName() != want || e.GetPath() != "/"+want || e.GetUnreadable() != nil {
			t.Errorf("%s: name %q, path %q, unreadable %v", value, e.GetName(), e.GetPath(), e.GetUnreadable())
		}
		enveloped(t, []byte(value))
		notice := &tidemarkv1.Notice{
			WorkspaceId: "w", Position: &tidemarkv1.Position{}, At: 1, Payload: []byte(value),
			After: &tidemarkv1.FileState{
				Name: e.GetName(), Status: tidemarkv1.Status_STATUS_ACTIVE,
				Position: &tidemarkv1.Position{},
			}, Version: proto.Int64(1),
		}
		read, err := (Notice{}).Decode(appendNotice(nil, notice))
		if d := cmp.Diff(notice, read, protocmp.Transform()); err != nil || d != "" {
			t.Errorf("%s: its notice: %v\n%s", value, err, d)
		}
		if !json.Valid(appendNotice(nil, notice)) {
			t.Errorf("%s: its notice is no JSON", value)
		}
	}
	for field, member := range map[string]string{
		"event_id": `{"event":"e","event_id":"\ud83d","workspace_id":"w"}`, "event": `{"event":"\ud83d","event_id":"i","workspace_id":"w"}`,
		"workspace_id": `{"event":"e","event_id":"i","workspaceId":"\ud83d"}`, "object_id": with(`"fileId":"\ud83d"`), "parent_id": with(`"parent":"\ud83d"`),
		"actor_id": with(`"calling_user_id":"\ud83d"`), "member_id": with(`"member_id":"\ud83d"`),
	} {
		var fault *EventError
		if _, err := ParseEvent([]byte(member)); !errors.As(err, &fault) || fault.Reason != ReasonBadField ||
			fault.Field != field {
			t.Errorf("%s: %v", member, err)
		}
	}
}

// The error names the form that was sent in place of JSON.
func TestParseEventNamesOtherForms(t *testing.T) {
	wide := func(b string, low, high int) string {
		out := make([]byte, 2*len(b))
		for i := range len(b) {
			out[2*i+low], out[2*i+high] = b[i], 0
		}
		return string(out)
	}
	const object = `{"event":"e","event_id":"i","workspace_id":"w"}`
	for _, test := range []struct{ name, value, want string }{
		{"UTF-8 with a mark", "\ufeff" + object, "byte order mark: send UTF-8 without one"},
		{"UTF-16, little end first, with a mark", "\xff\xfe" + wide(object, 0, 1), "UTF-16 or UTF-32: send it in UTF-8"},
		{"UTF-16, big end first, with a mark", "\xfe\xff" + wide(object, 1, 0), "UTF-16 or UTF-32: send it in UTF-8"},
		{"UTF-16, little end first", wide(object, 0, 1), "UTF-16 or UTF-32: send it in UTF-8"},
		{"UTF-16, big end first", wide(object, 1, 0), "UTF-16 or UTF-32: send it in UTF-8"},
		{"form with a payload", "payload=" + object, "is a form"},
		{"form, escaped", "payload=%7B%22event%22%3A%22e%22%7D", "is a form"},
		{"form of fields", "event=e&event_id=i&workspace_id=w", "is a form"},
		{"multipart form", "--x\r\nContent-Disposition: form-data; name=\"payload\"\r\n\r\n" + object + "\r\n--x--\r\n", "multipart form"},
		{"JSON with a mistake", `{"event"="e"}`, "want ':'"},
		{"text", "a text = b", "want an object"},
		{"nothing", "", "want an object"},
	} {
		var fault *EventError
		if _, err := ParseEvent([]byte(test.value)); !errors.As(err, &fault) || fault.Reason != ReasonNotJSON ||
			!strings.Contains(fault.Detail, test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

func TestParseEventRefuses(t *testing.T) {
	long := strings.Repeat("é", MaxID/2)
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
		if e, err := ParseEvent([]byte(test.value)); !errors.As(err, &got) || got.Reason != test.reason ||
			got.Field != test.field {
			t.Errorf("%.200s: %v, %v; want %s of %s", test.value, e, err, test.reason, test.field)
		} else if len(got.Detail) == 0 || !strings.HasPrefix(got.Error(), test.field) {
			t.Errorf("%.200s: the error is %q", test.value, got.Error())
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

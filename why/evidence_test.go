package why

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A dead letter whose value was too large to keep is that of the event where it says, and of no other.
func TestADeadLetterWithoutItsValue(t *testing.T) {
	streams, err := topology.New("t", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	value := `{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"e","object_id":"f"}`
	record := func(offset int64, length int) *kgo.Record {
		return &kgo.Record{Topic: streams.DLQ.Name, Offset: offset, Headers: []kgo.RecordHeader{
			{Key: "dlq.reason", Value: []byte("field_too_large")},
			{Key: "dlq.topic", Value: []byte(streams.Events.Name)},
			{Key: "dlq.partition", Value: []byte("0")},
			{Key: "dlq.offset", Value: fmt.Append(nil, offset)},
			{Key: "dlq.value_omitted", Value: fmt.Append(nil, length)},
		}}
	}
	elsewhere := record(8, len(value)) // in a partition that is not read; key and header name the file
	elsewhere.Key = []byte("w")
	elsewhere.Headers = append(elsewhere.Headers, kgo.RecordHeader{Key: "ce_subject", Value: []byte("f")})
	elsewhere.Headers[2].Value = []byte("1")
	e := newEvidence(Search{WorkspaceID: "w", FileID: "f", Streams: streams}, 0, "log", 10)
	var reported []Event
	e.report = func(event Event) error {
		reported = append(reported, event)
		return nil
	}
	rejected := record(6, len(value)) // by a sink: that is not what was done with the event
	rejected.Headers = append(rejected.Headers, kgo.RecordHeader{Key: "dlq.sink", Value: []byte("archive")})
	// the second is of a deleted topic, the third another file's
	for _, dead := range []*kgo.Record{
		record(5, len(value)), record(6, len(value)+1), record(9, 77), elsewhere,
		rejected,
	} {
		if err := e.deadLetter(dead); err != nil {
			t.Fatal(err)
		}
	}
	for _, offset := range []int64{5, 6} {
		if err := e.event(&kgo.Record{
			Topic: streams.Events.Name, Offset: offset, Key: []byte("w"),
			Value: []byte(value),
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.reportOthers(); err != nil {
		t.Fatal(err)
	}
	if len(reported) != 3 || reported[2].Position != "1:8" || reported[0].Verdict != DeadLettered ||
		reported[0].Reason != "field_too_large" || reported[1].Verdict != NoTrace {
		t.Errorf("reported %+v", reported)
	}
}

// Once the notice of an accepted event has expired, the id that the row remembers does not make a copy of it.
func TestAnEventWhoseNoticeHasExpired(t *testing.T) {
	streams, err := topology.New("t", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	record := func(offset int64, id string) *kgo.Record {
		value := fmt.Appendf(nil, `{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":%q,"object_id":"f"}`, id)
		return &kgo.Record{
			Topic: streams.Events.Name, Offset: offset, Key: []byte("w"), Value: value,
			Timestamp: at.Add(time.Duration(offset) * time.Second),
		}
	}
	seen := func(id string) []byte { // an entry as FileState.seen describes it
		sum := sha256.Sum256([]byte(id))
		return append(sum[:16:16], make([]byte, 8)...)
	}
	e := newEvidence(Search{WorkspaceID: "w", FileID: "f", Streams: streams}, 0, "log", 10)
	e.row = &tidemarkv1.FileState{
		LogId: "log", LastEventId: "last", Position: &tidemarkv1.Position{Offset: 6},
		Seen: slices.Concat(seen("before"), seen("last")),
	}
	e.noticesFrom, e.noticed = 100, at.Add(8*time.Second)
	verdicts := map[int64]Verdict{}
	e.report = func(event Event) error {
		var offset int64
		if _, err := fmt.Sscanf(event.Position, "0:%d", &offset); err != nil {
			return err
		}
		verdicts[offset] = event.Verdict
		return nil
	}
	for offset, id := range map[int64]string{5: "before", 6: "last", 9: "before"} {
		if err := e.event(record(offset, id)); err != nil {
			t.Fatal(err)
		}
	}
	if want := map[int64]Verdict{5: NoTrace, 6: Accepted, 9: Duplicate}; !maps.Equal(verdicts, want) {
		t.Errorf("verdicts %v, want %v", verdicts, want)
	}
}

// The notices of copied events stay under the old prefix.
func TestACopiedEventSaysWhereItCameFrom(t *testing.T) {
	streams, err := topology.New("t", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	e := newEvidence(Search{WorkspaceID: "w", FileID: "f", Streams: streams}, 0, "log", 10)
	var reported []Event
	e.report = func(event Event) error {
		reported = append(reported, event)
		return nil
	}
	value := `{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":"e","object_id":"f"}`
	record := &kgo.Record{
		Topic: streams.Events.Name, Offset: 5, Value: []byte(value),
		Headers: []kgo.RecordHeader{{Key: topology.HeaderCopied, Value: []byte("3:17")}},
	}
	if err := e.event(record); err != nil {
		t.Fatal(err)
	}
	if len(reported) != 1 || reported[0].Verdict != NoTrace ||
		!strings.Contains(reported[0].Detail, "copied from 3:17 of another prefix") {
		t.Errorf("reported %+v", reported)
	}
}

// An event that tidemark wrote for an entry of a folder says which event it follows from, whether it changed the file
// or not.
func TestAnEventOfAnEntryNamesItsCause(t *testing.T) {
	streams, err := topology.New("t", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	e := newEvidence(Search{WorkspaceID: "w", FileID: "f", Streams: streams}, 0, "log", 10)
	e.row = &tidemarkv1.FileState{LogId: "log", Position: &tidemarkv1.Position{Offset: 3}}
	for i, id := range []string{"moved", "moved/f"} {
		var v file.Verdict
		e.row, _, v = file.Apply(e.row,
			&tidemarkv1.Event{
				Event: "workspace_storage_file_moved", EventId: id, FileId: "f",
				WorkspaceId: "w",
			}, &tidemarkv1.Position{Offset: int64(4 + i)}, "other")
		if v != file.Accepted {
			t.Fatal(v)
		}
	}
	var said []string
	e.report = func(event Event) error {
		said = append(said, fmt.Sprintf("%s %s: %s", event.EventID, event.Verdict, event.Detail))
		return nil
	}
	one := int64(1)
	e.notices[noticeSource{5, "deleted/f"}] = outcome{version: &one}
	e.notices[noticeSource{7, "deleted"}] = outcome{}
	for i, r := range []struct{ id, event, header string }{
		{"deleted/f", "file_deleted", topology.HeaderCause},
		{"moved/f", "file_moved", topology.HeaderCause},
		{"deleted", "file_deleted", ""},
		{"walk", "x", topology.HeaderWalk},
	} {
		record := &kgo.Record{Topic: streams.Events.Name, Offset: int64(5 + i), Value: fmt.Appendf(nil,
			`{"event":"workspace_storage_%s","workspace_id":"w","event_id":%q,"object_id":"f"}`, r.event, r.id)}
		if r.header != "" {
			record.Headers = []kgo.RecordHeader{{Key: r.header, Value: []byte("0:4")}}
		}
		if err := e.event(record); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"deleted/f accepted: follows from the event of its folder at 0:4",
		"moved/f unchanged: the file was like that already; follows from the event of its folder at 0:4",
		"deleted unchanged: an event of its folder had already done that",
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q", said)
	}
}

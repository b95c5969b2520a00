package codecs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A derived event is read again as an event and with its cause, also if its path is longer than that of an event may
// be.
func TestDerivedEventsAreReadAgain(t *testing.T) {
	since := &tidemarkv1.EventTime{At: 1790372411_000000, Arrived: 1790372412_000001}
	e := &tidemarkv1.Event{
		Event: "workspace_storage_file_moved", EventId: "e/1/ü\"", WorkspaceId: "w/1", FileId: "f", ActorId: "u",
		OccurredAt: new(since.GetAt()), ReceivedAt: since.GetArrived(),
		Cause: &tidemarkv1.Cause{
			Event: "workspace_storage_folder_moved", EventId: "e/1",
			Position: &tidemarkv1.Position{Partition: 3, Offset: 14},
			Time:     since, ActorId: "u",
			Inherited: &tidemarkv1.Inherited{
				FolderId: "d", Stamp: 7, Path: "/" + strings.Repeat("p", 9000), PathSince: since, FromPath: "/docs",
				FromUntil: since, Trashed: true,
				TrashedSince: &tidemarkv1.EventTime{Arrived: 5}, RestoredSince: since, Above: []string{"x", "y"},
			},
		},
	}
	inherited := e.GetCause().GetInherited().ProtoReflect()
	for fields, i := inherited.Descriptor().Fields(), 0; i < fields.Len(); i++ {
		if !inherited.Has(fields.Get(i)) {
			t.Errorf("this test does not set %s", fields.Get(i).FullName())
		}
	}
	for _, path := range []string{"", "/docs/a", strings.Repeat("/long", 1000)} {
		e.Path = path
		value := AppendDerived(nil, e)
		got, err := ParseEvent(value)
		if err != nil {
			t.Fatal(err)
		}
		if got.Cause, err = ParseCause(value, got); err != nil {
			t.Fatal(err)
		}
		want := proto.CloneOf(e)
		if want.Payload = value; len(path) > maxText {
			want.Path = ""
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Errorf("path of %d bytes (-want +got):\n%s", len(path), d)
		}
	}
	for _, value := range []string{`{}`, `{"cause":{"event_id":"e"}}`, `{"inherited":{"folder_id":"d"}}`, `{"cause":{"event_id":"e"},"inherited":{"folder_id":"d","stamp":"x"}}`} {
		if c, err := ParseCause([]byte(value), new(tidemarkv1.Event)); err == nil {
			t.Errorf("%s: %v", value, c)
		}
	}
}

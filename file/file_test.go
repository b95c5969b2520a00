package file

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const log = "log"

var noon = time.Date(2026, 9, 25, 12, 0, 0, 0, time.UTC).UnixMicro()

// randomEvent is the i-th event of a file, dated near the i-th second; some are undated or out of order.
func randomEvent(r *rand.Rand, i int) *tidemarkv1.Event {
	names := []string{
		"file_added", "file_updated", "file_updated", "file_moved", "file_deleted", "file_restored",
		"file_copied",
	}
	e := &tidemarkv1.Event{
		Event: "workspace_storage_" + names[r.IntN(len(names))], EventId: fmt.Sprintf("e%d", i), WorkspaceId: "ws",
		FileId: "f", RecordedAt: noon + int64(i)*1e6, Payload: []byte(`{}`),
	}
	if r.IntN(10) > 0 {
		at := noon + int64(i-r.IntN(20))*1e6
		e.OccurredAt = &at
	}
	if r.IntN(2) == 0 {
		e.Name, e.ActorId = fmt.Sprintf("name%d", i), "u"
	}
	if r.IntN(2) == 0 {
		size := int64(r.IntN(1000))
		e.Size, e.Mime = &size, fmt.Sprintf("type/%d", r.IntN(4))
	}
	return e
}

func at(offset int) *tidemarkv1.Position { return &tidemarkv1.Position{Offset: int64(offset)} }

func bytesOf(t *testing.T, m proto.Message) string {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Resends of what was folded, at any place in the log, leave the row as it is; and no row that was ever returned
// changes.
func TestResendsChangeNothing(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var plain, row *tidemarkv1.FileState
		var kept []*tidemarkv1.FileState
		var was []string
		var folded []*tidemarkv1.Event
		offset := 0
		for i := range 600 {
			e := randomEvent(r, i)
			var v, w Verdict
			plain, _, v = Apply(plain, e, at(i), log)
			row, _, w = Apply(row, e, at(offset), log)
			offset++
			if v != w {
				t.Fatalf("seed %d, event %d: %v with resends, %v without", seed, i, w, v)
			}
			if v == Accepted {
				folded = append(folded, e)
			}
			kept, was = append(kept, row), append(was, bytesOf(t, row))
			for range r.IntN(3) {
				again := proto.CloneOf(folded[r.IntN(len(folded))])
				again.RecordedAt = e.GetRecordedAt()
				if again.OccurredAt == nil && len(folded) > windowIDs {
					continue // it may be forgotten, and without a time that cannot be seen
				}
				after, late, verdict := Apply(row, again, at(offset), log)
				offset++
				if after != row || late || verdict != Duplicate && verdict != BeyondWindow {
					t.Fatalf("seed %d: a resend of %v was not dropped: %v", seed, again, verdict)
				}
			}
		}
		if got, want := stripped(t, row), stripped(t, plain); got != want {
			t.Fatalf("seed %d: with resends\n%s\nwithout\n%s", seed, got, want)
		}
		for i := range kept {
			if bytesOf(t, kept[i]) != was[i] {
				t.Fatalf("seed %d: the row after event %d was changed later", seed, i)
			}
		}
	}
}

func stripped(t *testing.T, s *tidemarkv1.FileState) string {
	t.Helper()
	c := proto.CloneOf(s)
	c.Position = nil
	return bytesOf(t, c)
}

// An event of which nobody knows when it arrived is ordered by its own time, like any other.
func TestDatedWithoutAnArrival(t *testing.T) {
	first, second := noon, noon-1e6
	row, _, _ := Apply(nil,
		&tidemarkv1.Event{
			Event: "workspace_storage_file_added", EventId: "a", WorkspaceId: "ws", FileId: "f",
			Name: "new", OccurredAt: &first,
		}, at(0), log)
	row, late, _ := Apply(row,
		&tidemarkv1.Event{
			Event: "workspace_storage_file_updated", EventId: "b", WorkspaceId: "ws", FileId: "f",
			Name: "old", OccurredAt: &second,
		}, at(1), log)
	if !late || row.GetName() != "new" {
		t.Errorf("an older event turned the name into %q, late %v", row.GetName(), late)
	}
}

func TestSamePositionChangesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var row *tidemarkv1.FileState
	for i := range 300 {
		row, _, _ = Apply(row, randomEvent(r, i), at(i), log)
	}
	for i := range 300 {
		if after, late, v := Apply(row, randomEvent(r, 1000+i), at(i), log); after != row || late || v != Applied {
			t.Fatalf("offset %d: %v", i, v)
		}
	}
	if _, _, v := Apply(row, randomEvent(r, 2000), at(5), "another log"); v != Accepted {
		t.Errorf("an offset of another log was compared: %v", v)
	}
	if _, _, v := Apply(row, randomEvent(r, 2000), &tidemarkv1.Position{Partition: 1, Offset: 5}, log); v != Accepted {
		t.Errorf("an offset of another partition was compared: %v", v)
	}
}

// A fold that is repeated after a crash gives the same bytes.
func TestRepeatedFoldIsTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	var row *tidemarkv1.FileState
	for i := range 400 {
		e := randomEvent(r, i)
		stored := proto.CloneOf(row) // what a restart finds
		first, late1, _ := Apply(row, e, at(i), log)
		second, late2, _ := Apply(stored, e, at(i), log)
		if bytesOf(t, first) != bytesOf(t, second) || late1 != late2 {
			t.Fatalf("event %d: %v and %v", i, first, second)
		}
		row = first
	}
}

func TestEventIsNotChanged(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	var row *tidemarkv1.FileState
	for i := range 100 {
		e := randomEvent(r, i)
		was := bytesOf(t, e)
		row, _, _ = Apply(row, e, at(i), log)
		NoticeOf(row, row, e, at(i), false)
		if bytesOf(t, e) != was {
			t.Fatalf("event %d was changed", i)
		}
	}
}

// fill sets every field of a message, so that a copy that misses one fails the test.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(),
				protoreflect.ValueOfInt64(int64(f.Number())))
		case f.IsList():
			l := m.Mutable(f).List()
			l.Append(l.NewElement())
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message())
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(fmt.Sprint("text", f.Number())))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte(fmt.Sprint("bytes", f.Number()))))
		case f.Kind() == protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(2))
		case f.Kind() == protoreflect.Int32Kind:
			m.Set(f, protoreflect.ValueOfInt32(int32(f.Number())))
		default:
			m.Set(f, protoreflect.ValueOfInt64(int64(f.Number())))
		}
	}
	m.SetUnknown(unknownFields)
}

var unknownFields = protowire.AppendString(protowire.AppendTag(nil, 999, protowire.BytesType), "of a later release")

func TestCloneMissesNothing(t *testing.T) {
	row := new(tidemarkv1.FileState)
	fill(row.ProtoReflect())
	if c := clone(row); !proto.Equal(c, row) {
		t.Errorf("a row\n%v\nbecame\n%v", row, c)
	}
	w := new(tidemarkv1.WorkspaceState)
	fill(w.ProtoReflect())
	n := &tidemarkv1.Notice{Position: w.GetPosition()}
	if c := cloneWorkspace(w, n, w.GetLogId()); !proto.Equal(c, w) {
		t.Errorf("a workspace\n%v\nbecame\n%v", w, c)
	}
}

// Fields of a later release survive a fold by this one.
func TestUnknownFieldsSurvive(t *testing.T) {
	row, _, _ := Apply(nil, randomEvent(rand.New(rand.NewPCG(1, 1)), 1), at(1), log)
	row.ProtoReflect().SetUnknown(unknownFields)
	after, _, v := Apply(row, randomEvent(rand.New(rand.NewPCG(1, 1)), 2), at(2), log)
	if v != Accepted || string(after.ProtoReflect().GetUnknown()) != string(unknownFields) {
		t.Errorf("%v: after the fold a row's unknown fields are %q", v, after.ProtoReflect().GetUnknown())
	}
	w, _ := Count(nil, NoticeOf(nil, row, randomEvent(rand.New(rand.NewPCG(1, 1)), 1), at(1), false), log)
	w.ProtoReflect().SetUnknown(unknownFields)
	w, done := Count(w, NoticeOf(row, after, randomEvent(rand.New(rand.NewPCG(1, 1)), 2), at(2), false), log)
	if !done || string(w.ProtoReflect().GetUnknown()) != string(unknownFields) {
		t.Errorf("after the count a workspace's unknown fields are %q", w.ProtoReflect().GetUnknown())
	}
}

func TestRemembers(t *testing.T) {
	var row *tidemarkv1.FileState
	for i, id := range []string{"a", "b", strings.Repeat("c", 300)} {
		if Remembers(row, id) {
			t.Errorf("%.9s is remembered before it came", id)
		}
		row, _, _ = Apply(row,
			&tidemarkv1.Event{
				Event: "workspace_storage_file_updated", EventId: id, WorkspaceId: "ws",
				FileId: "f",
			}, at(i), log)
		if !Remembers(row, id) || !Remembers(row, "a") {
			t.Errorf("%.9s or the first is not remembered", id)
		}
	}
}

// The index has active files only; the record of any other has no document.
func TestIndexOf(t *testing.T) {
	for status, want := range map[tidemarkv1.Status]tidemarkv1.IndexOp_Op{
		tidemarkv1.Status_STATUS_ACTIVE:  tidemarkv1.IndexOp_OP_UPSERT,
		tidemarkv1.Status_STATUS_TRASHED: tidemarkv1.IndexOp_OP_DELETE,
		tidemarkv1.Status_STATUS_ERASED:  tidemarkv1.IndexOp_OP_DELETE,
	} {
		row := &tidemarkv1.FileState{WorkspaceId: "w/s", FileId: "_f", Status: status, Version: 7, Position: at(3)}
		op := IndexOf(row)
		if op.GetOp() != want || op.GetId() != "w%2Fs/%5Ff" || op.GetVersion() != 7 ||
			op.GetPosition().GetOffset() != 3 ||
			op.GetFileId() != "_f" || (op.GetFile() != nil) != (want == tidemarkv1.IndexOp_OP_UPSERT) {
			t.Errorf("%v: %v", status, op)
		}
	}
}

func TestNoticeOf(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	e := randomEvent(r, 1)
	e.EventId = "_e/1"
	row, _, _ := Apply(nil, e, at(1), log)
	n := NoticeOf(nil, row, e, at(1), true)
	if n.GetOpId() != "ws/%5Fe%2F1/f" || n.GetVersion() != 1 || !n.GetLate() || n.Before != nil || n.After != row ||
		n.Member != nil ||
		string(n.GetPayload()) != `{}` || n.GetAt() != displayTime(e) {
		t.Errorf("%v", n)
	}
	if n = NoticeOf(nil, nil, e, at(1), false); n.Version != nil || n.After != nil {
		t.Errorf("without a row: %v", n)
	}
}

func benchmarkApply(b *testing.B, events int) {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	var row *tidemarkv1.FileState
	for i := range events {
		row, _, _ = Apply(row, randomEvent(r, i), at(i), log)
	}
	e := randomEvent(r, events)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, v := Apply(row, e, at(events), log); v != Accepted {
			b.Fatal(v)
		}
	}
}

func BenchmarkApplyTo3(b *testing.B)   { benchmarkApply(b, 3) }
func BenchmarkApplyTo300(b *testing.B) { benchmarkApply(b, 300) }

// A folder's row that tidemark did not write may have inheritable values without their cause.
func TestDeriveFromARowWithoutACause(t *testing.T) {
	folder := &tidemarkv1.FileState{
		WorkspaceId: "w", FileId: "d", Kind: tidemarkv1.Kind_KIND_FOLDER,
		Inheritable: &tidemarkv1.Inherited{
			FolderId: "d", Stamp: 1, Trashed: true, TrashedSince: &tidemarkv1.EventTime{At: 2e15, Arrived: 2e15},
		},
	}
	entry := &tidemarkv1.FileState{
		WorkspaceId: "w", FileId: "f", ParentId: "d", Status: tidemarkv1.Status_STATUS_ACTIVE,
	}
	if e := Derive(folder, entry, nil); e.GetCause().GetInherited().GetFolderId() != "d" {
		t.Errorf("derived %v", e)
	}
}

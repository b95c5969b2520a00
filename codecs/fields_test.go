package codecs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// bookkeeping is the number of the first field of a row that clients do not see.
const bookkeeping = 30

// populate sets each field of m that clients see, and returns their names.
func populate(m protoreflect.Message) (names []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Number() >= bookkeeping {
			continue
		}
		names = append(names, string(f.Name()))
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfInt64(1))
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			populate(m.Mutable(f).List().AppendMutable().Message())
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("text"))
		case f.Kind() == protoreflect.MessageKind:
			populate(m.Mutable(f).Message())
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(fmt.Sprint("text", f.Number())))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte("{}")))
		case f.Kind() == protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(1))
		case f.Kind() == protoreflect.Int32Kind:
			m.Set(f, protoreflect.ValueOfInt32(int32(f.Number())))
		default:
			m.Set(f, protoreflect.ValueOfInt64(int64(f.Number())))
		}
	}
	slices.Sort(names)
	return names
}

// memberNames returns the names in a JSON object.
func memberNames(t *testing.T, b []byte) []string {
	t.Helper()
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return slices.Sorted(maps.Keys(all))
}

// documented returns the names of an object's properties in the description of the query API.
func documented(t *testing.T, object string) []string {
	t.Helper()
	b, err := os.ReadFile("../views/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(doc.Components.Schemas[object].Properties))
}

// A field of a message that clients see is written, read again, and described: none of the three lists of fields lacks
// one.
func TestFieldsAreWrittenReadAndDocumented(t *testing.T) {
	s := new(tidemarkv1.FileState)
	names := populate(s.ProtoReflect())
	if d := cmp.Diff(names, memberNames(t, AppendFile(nil, s))); d != "" {
		t.Errorf("FileState and AppendFile (-want +got):\n%s", d)
	}
	if d := cmp.Diff(names, documented(t, "File")); d != "" {
		t.Errorf("FileState and openapi.json (-want +got):\n%s", d)
	}
	r := newReader(AppendFile(nil, s))
	if d := cmp.Diff(s, r.file(), protocmp.Transform()); d != "" || r.end() != nil {
		t.Errorf("FileState and reader.file: %v (-want +got):\n%s", r.end(), d)
	}

	w := new(tidemarkv1.WorkspaceState)
	names = populate(w.ProtoReflect())
	if d := cmp.Diff(names, memberNames(t, AppendWorkspace(nil, w))); d != "" {
		t.Errorf("WorkspaceState and AppendWorkspace (-want +got):\n%s", d)
	}
	if d := cmp.Diff(names, documented(t, "Workspace")); d != "" {
		t.Errorf("WorkspaceState and openapi.json (-want +got):\n%s", d)
	}

	op := new(tidemarkv1.IndexOp)
	names = populate(op.ProtoReflect())
	if d := cmp.Diff(names, memberNames(t, appendIndex(nil, op))); d != "" {
		t.Errorf("IndexOp and appendIndex (-want +got):\n%s", d)
	}
	if got, err := parseIndex(appendIndex(nil, op)); !proto.Equal(op, got) {
		t.Errorf("IndexOp %v was read as %v, %v", op, got, err)
	}

	n := new(tidemarkv1.Notice)
	names = slices.DeleteFunc(populate(n.ProtoReflect()), func(name string) bool { return name == "payload_omitted" })
	n.PayloadOmitted = false // else there is no payload: see TestNoticeOmitsLargePayload
	n.Member.Offset = 0      // that of the position
	n.Cause.Time, n.Cause.ActorId, n.Cause.Inherited = nil, "", &tidemarkv1.Inherited{FolderId: "f"}
	if d := cmp.Diff(names, memberNames(t, appendNotice(nil, n))); d != "" {
		t.Errorf("Notice and appendNotice (-want +got):\n%s", d)
	}
	if got, err := parseNotice(appendNotice(nil, n)); !proto.Equal(n, got) {
		t.Errorf("Notice %v was read as %v, %v", n, got, err)
	}
}

package codecs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// scatter sets fields of a message at random.
func scatter(r *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch f := fields.Get(i); {
		case r.IntN(3) == 0:
		case f.IsList():
			for range r.IntN(4) {
				l := m.Mutable(f).List()
				if f.Kind() == protoreflect.MessageKind {
					scatter(r, l.AppendMutable().Message())
				} else {
					l.Append(scalar(r, f))
				}
			}
		case f.Kind() == protoreflect.MessageKind:
			scatter(r, m.Mutable(f).Message())
		default:
			m.Set(f, scalar(r, f))
		}
	}
	m.SetUnknown([]byte{0xb8, 0x3e, byte(r.IntN(128))}) // field 999
}

func scalar(r *rand.Rand, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := r.Int64() >> r.IntN(64)
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprint("é", n)[:r.IntN(2)*2])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(fmt.Append(nil, n))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n % 4))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	default:
		return protoreflect.ValueOfInt64(n)
	}
}

// The generated code of rows reads and writes what the protobuf library does, byte for byte.
func TestFileRowIsProtobuf(t *testing.T) {
	library := Proto[*tidemarkv1.FileState]{New: func() *tidemarkv1.FileState { return new(tidemarkv1.FileState) }}
	for seed := range uint64(300) {
		row := new(tidemarkv1.FileState)
		scatter(rand.New(rand.NewPCG(seed, 1)), row.ProtoReflect())
		want, err := library.Encode(row)
		if err != nil {
			t.Fatal(err)
		}
		got, err := FileRow{}.Encode(row)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("seed %d: encoded %x, want %x (%v)", seed, got, want, err)
		}
		decoded, err := FileRow{}.Decode(want)
		if err != nil || !proto.Equal(decoded.(*tidemarkv1.FileState), row) {
			t.Fatalf("seed %d: decoded %v, want %v (%v)", seed, decoded, row, err)
		}
		if _, err := (FileRow{}).Decode(want[:len(want)-1]); err == nil {
			t.Fatalf("seed %d: a row that is cut off was decoded", seed)
		}
	}
}

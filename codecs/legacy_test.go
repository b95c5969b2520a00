package codecs

import (
	"bytes"
	"testing"

	legacy "github.com/golang/protobuf/proto" //nolint:staticcheck // programs still use it
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

func fileCodec() FileRow { return FileRow{} }

// A program that still uses github.com/golang/protobuf reads what this one writes and writes what this one reads, byte
// for byte, fields that it does not know included.
func TestLegacyLibraryReadsAndWritesTheSameBytes(t *testing.T) {
	row := fullFile()
	row.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 7))

	ours, err := fileCodec().Encode(row)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := legacy.Marshal(row)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, theirs) {
		t.Errorf("ours %x\ntheirs %x", ours, theirs)
	}
	var read tidemarkv1.FileState
	if err := legacy.Unmarshal(ours, &read); err != nil || !proto.Equal(&read, row) {
		t.Errorf("they read %v of ours, %v", &read, err)
	}
	again, err := fileCodec().Decode(theirs)
	if err != nil || !proto.Equal(again.(*tidemarkv1.FileState), row) {
		t.Errorf("we read %v of theirs, %v", again, err)
	}
}

// Fields of a later release survive being read and written by this one.
func TestUnknownFieldsSurvive(t *testing.T) {
	row := fullFile()
	unknown := protowire.AppendString(protowire.AppendTag(nil, 998, protowire.BytesType), "of a later release")
	row.ProtoReflect().SetUnknown(unknown)
	first, err := fileCodec().Encode(row)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := fileCodec().Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	second, err := fileCodec().Encode(decoded)
	if err != nil || !bytes.Equal(first, second) || !bytes.Contains(second, unknown) {
		t.Errorf("%x became %x, %v", first, second, err)
	}
}

func TestProtoRefusesOtherMessages(t *testing.T) {
	if _, err := fileCodec().Encode(new(tidemarkv1.Notice)); err == nil {
		t.Error("a notice was encoded as a file")
	}
	if _, err := fileCodec().Decode([]byte{0xff}); err == nil {
		t.Error("a broken row was decoded")
	}
	if _, err := (Bytes{}).Encode("text"); err == nil {
		t.Error("a string was taken for bytes")
	}
}

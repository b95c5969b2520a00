package tidemarkv1

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"
)

func TestPositions(t *testing.T) {
	for text, want := range map[string]*Position{
		"0:0":                            {},
		"7:1234":                         {Partition: 7, Offset: 1234},
		"2147483647:9223372036854775807": {Partition: math.MaxInt32, Offset: math.MaxInt64},
	} {
		if got, err := ParsePosition(text); err != nil || !proto.Equal(got, want) || got.Text() != text {
			t.Errorf("%q was read as %v, %v", text, got, err)
		}
	}
	if (*Position)(nil).Text() != "" {
		t.Error("no position has a text")
	}
}

func TestParsePositionRefuses(t *testing.T) {
	for _, text := range []string{
		"", "7", ":", "7:", ":1", "7:1:2", "-1:1", "1:-1", "+1:1", "01:1", "1:01", " 1:1", "1:1 ", "1;1", "0x1:1",
		"2147483648:1", "1:9223372036854775808", "a:b", "1:1\n", "٣:1",
	} {
		if p, err := ParsePosition(text); err == nil {
			t.Errorf("%q was read as %v", text, p)
		}
	}
}

func FuzzPosition(f *testing.F) {
	f.Add("7:1234")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePosition(text); err == nil && p.Text() != text {
			t.Fatalf("%q was read as %v", text, p)
		}
	})
}

package kafka

import (
	"testing"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// The vectors are those of Kafka's own UtilsTest.testMurmur2 (clients 4.1).
func TestMurmur2AgreesWithJava(t *testing.T) {
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
		"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestHashersLeadToOnePartition(t *testing.T) {
	const n = 32
	for _, workspace := range []string{"123", "ws1", "ws10", "a/b", "%", "_x", "..", "ü\x7f", "4821930571648203911"} {
		want := Partition(workspace, n)
		key := tidemarkv1.JoinKey(workspace, "2abc/_%")
		bare, file := WorkspaceHasher(), FileHasher()
		_, _ = bare.Write([]byte(workspace))
		_, _ = file.Write([]byte(key))
		if got := int32(bare.Sum32() % n); got != want {
			t.Errorf("workspace hasher: %q leads to %d, want %d", workspace, got, want)
		}
		if got := int32(file.Sum32() % n); got != want {
			t.Errorf("file hasher: %q leads to %d, want %d", key, got, want)
		}
		if got := FilePartition([]byte(key), n); got != want {
			t.Errorf("FilePartition(%q) = %d, want %d", key, got, want)
		}
		if int32(bare.Sum32()) < 0 || int32(file.Sum32()) < 0 {
			t.Errorf("%q: the sign bit is set, which goka cannot take", workspace)
		}
	}
}

// A key is hashed as a whole however it is written.
func TestHasherTakesPieces(t *testing.T) {
	whole, pieces := FileHasher(), FileHasher()
	_, _ = whole.Write([]byte("workspace/file"))
	for _, c := range []byte("workspace/file") {
		_, _ = pieces.Write([]byte{c})
	}
	if whole.Sum32() != pieces.Sum32() {
		t.Errorf("whole %d, in pieces %d", whole.Sum32(), pieces.Sum32())
	}
}

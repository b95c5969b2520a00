package tidemarkv1

import (
	"strings"
	"testing"
)

func TestKeys(t *testing.T) {
	for _, test := range []struct{ workspace, file, key string }{
		{"123", "", "123"},
		{"123", "2abc", "123/2abc"},
		{"ws1/", "a/b", "ws1%2F/a%2Fb"},
		{"ws%2F1", "%", "ws%252F1/%25"},
		{"_ws", "_f_", "%5Fws/%5Ff_"},
		{"__offset", "", "%5F_offset"},
		{"..", ".", "../."},
		{"wörk 🙂", "\x00\x1f\x7f", "wörk 🙂/%00%1F%7F"},
	} {
		if got := JoinKey(test.workspace, test.file); got != test.key {
			t.Errorf("JoinKey(%q, %q) = %q, want %q", test.workspace, test.file, got, test.key)
		}
		if w, f, err := SplitKey(test.key); err != nil || w != test.workspace || f != test.file {
			t.Errorf("SplitKey(%q) = %q, %q, %v", test.key, w, f, err)
		}
	}
}

// A key that was not written by JoinKey has no parts: else one file would have two keys.
func TestSplitKeyRefuses(t *testing.T) {
	for _, key := range []string{
		"_ws", "ws/_f", "a/b/c", "%", "%2", "%2f", "%zz", "%41", "ws/%5F%", "a\x00",
		"ws/a\x7f", "%5f", "a%5Fb", "ws%2",
	} {
		if w, f, err := SplitKey(key); err == nil {
			t.Errorf("SplitKey(%q) = %q, %q", key, w, f)
		}
	}
}

// A scan of "ws1/" must not see the files of "ws10".
func TestScanSeesOneWorkspace(t *testing.T) {
	for _, other := range []string{"ws10", "ws1/", "ws1%", "ws", "ws1 ", "_ws1"} {
		if strings.HasPrefix(JoinKey(other, "f"), EscapePart("ws1")+"/") {
			t.Errorf("a file of %q is among those of ws1", other)
		}
	}
}

func FuzzKey(f *testing.F) {
	f.Add("123", "2abc")
	f.Add("_ws/%", "")
	f.Add("", "\x00")
	f.Fuzz(func(t *testing.T, workspace, file string) {
		key := JoinKey(workspace, file)
		if w, g, err := SplitKey(key); err != nil || w != workspace || g != file {
			t.Fatalf("%q, %q: the key %q was split into %q, %q, %v", workspace, file, key, w, g, err)
		}
		if strings.HasPrefix(key, "_") || strings.Count(key, "/") > 1 ||
			strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("%q, %q: the key %q", workspace, file, key)
		}
		// and any key that can be split is the one that its parts are joined to
		if w, g, err := SplitKey(workspace); err == nil && JoinKey(w, g) != workspace && g != "" {
			t.Fatalf("%q was split into %q, %q, whose key is %q", workspace, w, g, JoinKey(w, g))
		}
	})
}

package views

import (
	"bytes"
	"encoding/base64"
	"testing"
)

func TestCursorBelongsToItsQuery(t *testing.T) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/a"}
	tail := appendPathAndFile(nil, "/a/b\x00c", "f1")
	cursor := q.encodeCursor(tail)
	if got, err := q.decodeCursor(cursor); err != nil || !bytes.Equal(got, tail) {
		t.Fatalf("round trip: %q, %v", got, err)
	}
	for name, other := range map[string]query{
		"workspace": {workspace: "ws10", status: statusActive, prefix: "/a"},
		"status":    {workspace: "ws1", status: statusAll, prefix: "/a"},
		"prefix":    {workspace: "ws1", status: statusActive, prefix: "/"},
		"order":     {workspace: "ws1", status: statusActive},
		"shifted":   {workspace: "ws1a", status: "ctive", prefix: "/a"},
	} {
		if _, err := other.decodeCursor(cursor); err == nil {
			t.Errorf("another %s takes the cursor", name)
		}
	}
	for i := range cursor {
		broken := []byte(cursor)
		if broken[i]++; broken[i] == cursor[i] {
			continue
		}
		if _, err := q.decodeCursor(string(broken)); err == nil {
			t.Errorf("taken with byte %d changed", i)
		}
	}
}

// A forged cursor that bears the right sum still cannot leave the prefix.
func TestForgedCursorStaysInPrefix(t *testing.T) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/secret"}
	if _, err := q.decodeCursor(q.encodeCursor(appendPathAndFile(nil, "/other", "f"))); err == nil {
		t.Error("a cursor outside the prefix is taken")
	}
}

func FuzzCursor(f *testing.F) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/a"}
	plain := query{workspace: "ws1", status: statusAll, kind: kindFile}
	f.Add("")
	f.Add("AAAA")
	f.Add("not base64 !")
	f.Add(q.encodeCursor(appendPathAndFile(nil, "/a", "f")))
	f.Add(plain.encodeCursor([]byte("f1")))
	f.Add(base64.RawURLEncoding.EncodeToString(q.sum(nil)))
	f.Fuzz(func(t *testing.T, cursor string) {
		for _, q := range []query{q, plain} {
			tail, err := q.decodeCursor(cursor)
			if err != nil {
				continue
			}
			if again := q.encodeCursor(tail); again != cursor { // one position has one cursor
				t.Errorf("%q decodes to what encodes to %q", cursor, again)
			}
			if q.byPath() && !bytes.HasPrefix(tail, []byte(q.prefix)) {
				t.Errorf("%q leads out of the prefix", cursor)
			}
		}
	})
}

func FuzzPathOrder(f *testing.F) {
	f.Add("/a", "f1", "/a\x00", "f2")
	f.Add("/a\x00\x01", "f", "/a", "\x01f")
	f.Add("", "", "\x00", "\x00")
	f.Fuzz(func(t *testing.T, path1, file1, path2, file2 string) {
		k1, k2 := appendPathAndFile(nil, path1, file1), appendPathAndFile(nil, path2, file2)
		want := bytes.Compare([]byte(path1), []byte(path2))
		if want == 0 {
			want = bytes.Compare([]byte(file1), []byte(file2))
		}
		if got := bytes.Compare(k1, k2); got != want {
			t.Errorf("%q/%q against %q/%q: keys compare %d, paths and files %d", path1, file1, path2, file2, got, want)
		}
		if got, ok := cutFile(k1); !ok || got != file1 {
			t.Errorf("the file of %q is read as %q", k1, got)
		}
	})
}

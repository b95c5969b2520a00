package views

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"testing"
)

func TestCursorBelongsToItsQuery(t *testing.T) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/a"}
	from := listCursor{topic: topicHash{1, 2}, began: 77, copied: 78, tail: appendPathAndFile(nil, "/a/b\x00c", "f1")}
	cursor := q.encodeListCursor(from)
	if got, err := q.decodeListCursor(cursor); err != nil || !reflect.DeepEqual(got, from) {
		t.Fatalf("round trip: %+v, %v", got, err)
	}
	for name, other := range map[string]query{
		"workspace": {workspace: "ws10", status: statusActive, prefix: "/a"},
		"status":    {workspace: "ws1", status: statusAll, prefix: "/a"},
		"prefix":    {workspace: "ws1", status: statusActive, prefix: "/"},
		"order":     {workspace: "ws1", status: statusActive},
		"shifted":   {workspace: "ws1a", status: "ctive", prefix: "/a"},
	} {
		if _, err := other.decodeListCursor(cursor); err == nil {
			t.Errorf("another %s takes the cursor", name)
		}
	}
	for i := range cursor {
		broken := []byte(cursor)
		if broken[i]++; broken[i] == cursor[i] {
			continue
		}
		if _, err := q.decodeListCursor(string(broken)); err == nil {
			t.Errorf("taken with byte %d changed", i)
		}
	}
}

// A forged cursor that bears the right sum still cannot leave the prefix.
func TestForgedCursorStaysInPrefix(t *testing.T) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/secret"}
	forged := q.encodeListCursor(listCursor{tail: appendPathAndFile(nil, "/other", "f")})
	if _, err := q.decodeListCursor(forged); err == nil {
		t.Error("a cursor outside the prefix is taken")
	}
}

func FuzzCursor(f *testing.F) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/a"}
	plain := query{workspace: "ws1", status: statusAll, kind: kindFile}
	f.Add("")
	f.Add("AAAA")
	f.Add("not base64 !")
	f.Add(q.encodeListCursor(listCursor{began: 5, copied: 6, tail: appendPathAndFile(nil, "/a", "f")}))
	f.Add(plain.encodeListCursor(listCursor{tail: []byte("f1")}))
	f.Add(base64.RawURLEncoding.EncodeToString(q.sum(nil)))
	f.Fuzz(func(t *testing.T, cursor string) {
		for _, q := range []query{q, plain} {
			from, err := q.decodeListCursor(cursor)
			if err != nil {
				continue
			}
			if again := q.encodeListCursor(from); again != cursor { // one position has one cursor
				t.Errorf("%q decodes to what encodes to %q", cursor, again)
			}
			if q.byPath() && !bytes.HasPrefix(from.tail, []byte(q.prefix)) {
				t.Errorf("%q leads out of the prefix", cursor)
			}
		}
	})
}

// A cursor of the changes belongs to its query too, and is no cursor of a listing.
func TestChangesCursorBelongsToItsQuery(t *testing.T) {
	q := query{workspace: "ws1", status: statusActive, kind: kindFile}
	at := changesCursor{
		topic: topicHash{1}, log: topicHash{2}, next: 3, copied: 6, deletes: 4, nextEvent: unknown, issued: 5,
	}
	cursor := q.encodeChangesCursor(at)
	if got, err := q.decodeChangesCursor(cursor); err != nil || got != at {
		t.Fatalf("round trip: %+v, %v", got, err)
	}
	for name, other := range map[string]query{
		"workspace": {workspace: "ws10", status: statusActive, kind: kindFile},
		"status":    {workspace: "ws1", status: statusAll, kind: kindFile},
		"kind":      {workspace: "ws1", status: statusActive, kind: kindAll},
		"prefix":    {workspace: "ws1", status: statusActive, kind: kindFile, prefix: "/"},
	} {
		if _, err := other.decodeChangesCursor(cursor); err == nil {
			t.Errorf("another %s takes the cursor", name)
		}
	}
	if _, err := q.decodeListCursor(cursor); err == nil {
		t.Error("a listing takes the cursor of the changes")
	}
	if _, err := q.decodeChangesCursor(q.encodeListCursor(listCursor{tail: make([]byte, 32)})); err == nil {
		t.Error("the changes take the cursor of a listing")
	}
	for i := range cursor {
		broken := []byte(cursor)
		broken[i] ^= 1
		if got, err := q.decodeChangesCursor(string(broken)); err == nil {
			t.Errorf("taken with byte %d changed: %+v", i, got)
		}
	}
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

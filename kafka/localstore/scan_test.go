package localstore

import (
	"strings"
	"testing"
)

func TestScanBackwardsAndFirst(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	put(t, s, 3, 1, "a", "1", "b", "2", "d", "3")
	put(t, s, 4, 1, "x", "4")
	scan := s.Scan(3, Rows, []byte("a"), []byte("d"))
	defer scan.Close()
	var keys []string
	for scan.Previous() {
		keys = append(keys, string(scan.Key()))
	}
	if got := strings.Join(keys, " "); got != "b a" || scan.Err() != nil {
		t.Errorf("backwards: %s, %v", got, scan.Err())
	}
	put(t, s, 3, 2, "c", "5") // after the snapshot
	for from, want := range map[string]string{"a": "a 1", "aa": "b 2", "c": " ", "d": "d 3", "e": " "} {
		to := PrefixEnd([]byte(from[:1]))
		if from == "aa" {
			to = []byte("c")
		}
		key, value, err := scan.First(3, Rows, []byte(from), to)
		if got := string(key) + " " + string(value); got != want || err != nil {
			t.Errorf("first from %s: %q, %v, want %q", from, got, err, want)
		}
	}
}

package epochs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A callback finds the same rows whether they are on the disk or buffered, in pages of any size.
func TestFindSeesBufferedRows(t *testing.T) {
	store := openTestStore(t)
	defer store.Close()
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	p := newPartitionEpochs(Config{}, shelf)
	rows, random := Rows{p}, rand.New(rand.NewPCG(1, 1))
	want := map[string]bool{}
	for i := range 2000 {
		key, entry := fmt.Sprint("k", random.IntN(300)), fmt.Sprintf("%c/%03d", 'a'+random.IntN(3), random.IntN(300))
		p.gate.Lock()
		if random.IntN(3) == 0 {
			rows.Reindex([]string{entry}, nil)
			delete(want, entry)
		} else {
			rows.Reindex(nil, []string{entry})
			want[entry] = true
		}
		// An entry belongs to one row: its last change is that of the row that was buffered last.
		if err := p.set(entry, []byte(key), nil); err != nil {
			t.Fatal(err)
		}
		p.gate.Unlock()
		if random.IntN(40) == 0 {
			e := p.swap()
			if err := p.storeRows(e, int64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if i%100 == 0 {
			holds(t, rows, want, 1+random.IntN(7))
		}
	}
	holds(t, rows, want, 1000)
}

func holds(t *testing.T, rows Rows, want map[string]bool, limit int) {
	t.Helper()
	for _, prefix := range []string{"a/", "b/", "c/", ""} {
		var got, all []string
		for more, after := true, ""; more; {
			found, m, err := rows.Find(prefix, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if more = m && len(found) > 0; len(found) > 0 {
				after = found[len(found)-1]
			}
			got = append(got, found...)
		}
		for entry := range want {
			if strings.HasPrefix(entry, prefix) {
				all = append(all, entry)
			}
		}
		if slices.Sort(all); !slices.Equal(got, all) {
			t.Fatalf("prefix %q, %d at a time: %v, want %v", prefix, limit, got, all)
		}
	}
}

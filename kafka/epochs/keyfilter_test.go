package epochs

import (
	"fmt"
	"testing"
)

// A key that was added, or is in the store, is never excluded; of the others nearly all are.
func TestKeyFilter(t *testing.T) {
	store := openTestStore(t)
	defer store.Close()
	shelf, err := store.Partition(0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, store, 1, "stored", "v")
	f := newKeyFilter()
	if f.excludes("stored") || f.excludes("other") {
		t.Error("it excludes keys before it is complete")
	}
	if err := f.fill(shelf, nil); err != nil {
		t.Fatal(err)
	}
	const keys = 5 * firstLayerKeys // in three layers
	wrong := 0
	for i := range keys {
		f.add(fmt.Appendf(nil, "key %d", i))
		if f.excludes(fmt.Sprintf("key %d", i)) {
			t.Fatalf("it excludes key %d, which was added", i)
		}
		if !f.excludes(fmt.Sprintf("other %d", i)) {
			wrong++
		}
	}
	if f.excludes("stored") {
		t.Error("it excludes a stored key")
	}
	if len(f.layers) != 3 || wrong > keys/50 {
		t.Errorf("%d layers; %d of %d keys would be looked up in vain", len(f.layers), wrong, keys)
	}
}

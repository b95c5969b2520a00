package localstore

import (
	"math"
	"testing"
)

func TestSharedCacheFollowsTheMemoryLimit(t *testing.T) {
	for limit, want := range map[int64]int64{
		math.MaxInt64: 256 << 20, 4 << 30: 1 << 30, 512 << 20: 128 << 20, 32 << 20: 16 << 20, 0: 16 << 20,
	} {
		if size := sharedCacheSize(limit); size != want {
			t.Errorf("limit %d: %d, want %d", limit, size, want)
		}
	}
	a, b := openTestStore(t, t.TempDir(), "a"), openTestStore(t, t.TempDir(), "b")
	own := Settings{Cache: 1 << 20}.cache()
	defer own.Unref()
	if a.cache != b.cache || a.cache == own {
		t.Error("stores do not share the cache, or one with a size of its own does")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	put(t, b, 1, 7, "k", "v") // with the cache that the other one has released
	if err := b.db.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := get(t, b, 1, "k"); got != "v" {
		t.Errorf("%q", got)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

package localstore

import (
	"log/slog"
	"math"
	"strings"
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

// Memtables are charged to the block cache. They must leave the blocks what the settings say.
func TestBlocksAreCachedBesideMemtables(t *testing.T) {
	use := Settings{Cache: 1 << 20, MemTable: 4 << 20}
	s, err := OpenWith(t.TempDir(), "pin", slog.New(slog.DiscardHandler), use)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // 20 MB: Pebble begins with small memtables
		put(t, s, 1, int64(i), "k", strings.Repeat("v", 100_000))
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	get(t, s, 1, "k")
	before := s.db.Metrics().BlockCache
	get(t, s, 1, "k")
	if after := s.db.Metrics().BlockCache; after.Hits == before.Hits || after.Misses > before.Misses {
		t.Errorf("of the blocks of a second read %d were in the cache, and %d were not",
			after.Hits-before.Hits, after.Misses-before.Misses)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

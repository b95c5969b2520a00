package localstore

import (
	"math"
	"runtime/debug"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Settings say what a store uses. Its memory is at most, in bytes, Cache for blocks that were read, and four times
// MemTable for what is not yet on the disk. A Cache of 0 is the one that all such stores of the process share.
type Settings struct {
	Cache    int64
	MemTable uint64
	// WrittenOften takes about twice the disk and less CPU. It is for rows that are written more often than they are
	// read from the store: they are not compressed, and a third as many compactions merge what memtables have flushed.
	WrittenOften bool
}

// l0Tables is the number of flushed memtables that are merged by one compaction.
func (s Settings) l0Tables() int {
	if s.WrittenOften {
		return 12
	}
	return 4
}

var defaultSettings = Settings{MemTable: 32 << 20}

const (
	defaultCache = 256 << 20
	minCache     = 16 << 20
)

// sharedCacheSize is a quarter of the memory limit of the process (GOMEMLIMIT), defaultCache if it has none.
func sharedCacheSize(limit int64) int64 {
	if limit == math.MaxInt64 {
		return defaultCache
	}
	return max(limit/4, minCache)
}

// sharing is how many stores of a process are expected to share a cache: the tables of files and of workspaces.
const sharing = 2

var sharedCache = sync.OnceValue(func() *pebble.Cache {
	limit := debug.SetMemoryLimit(-1) // which only reads it
	return pebble.NewCache(sharedCacheSize(limit) + sharing*defaultSettings.reserved())
})

// reserved is what Pebble takes off the block cache for memtables: the one that is written to, and one that it keeps
// for the next. A cache that is not larger than that has no block, and each read of a row reads the filters, the index
// and the rows of several tables from their files.
func (s Settings) reserved() int64 { return 2 * int64(s.MemTable) }

// cache returns the block cache of a store, which the store must unreference when it is closed.
func (s Settings) cache() *pebble.Cache {
	if s.Cache > 0 {
		return pebble.NewCache(s.Cache + s.reserved())
	}
	shared := sharedCache()
	shared.Ref()
	return shared
}

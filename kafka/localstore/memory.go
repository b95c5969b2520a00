package localstore

import (
	"math"
	"runtime/debug"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Memory is what a store uses at most, in bytes: Cache for blocks that were read, and four times MemTable for what is
// not yet on the disk. A Cache of 0 is the one that all such stores of the process share.
type Memory struct {
	Cache    int64
	MemTable uint64
}

var defaultMemory = Memory{MemTable: 32 << 20}

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

var sharedCache = sync.OnceValue(func() *pebble.Cache {
	return pebble.NewCache(sharedCacheSize(debug.SetMemoryLimit(-1))) // which only reads it
})

// cache returns the block cache of a store, which the store must unreference when it is closed.
func (m Memory) cache() *pebble.Cache {
	if m.Cache > 0 {
		return pebble.NewCache(m.Cache)
	}
	shared := sharedCache()
	shared.Ref()
	return shared
}

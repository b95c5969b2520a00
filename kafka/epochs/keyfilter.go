package epochs

import (
	"hash/maphash"
	"sync"

	"tidemark/kafka/localstore"
)

// A keyFilter says that a key has no row, without reading the store: a read of a key that is not there costs as much as
// one that is, and an event of a new file needs one. It is a Bloom filter: it never says so of a key that was added,
// and wrongly lets about one key in 100 be looked up. It grows by layers, each twice as large as the one before.
type keyFilter struct {
	seed maphash.Seed

	mu       sync.Mutex
	complete bool // it has all keys of the store
	layers   []filterLayer
}

type filterLayer struct {
	words []uint64
	room  int // keys that may be added
}

const (
	firstLayerKeys = 1 << 13
	bitsPerKey     = 12
	probes         = 6
)

func newKeyFilter() *keyFilter { return &keyFilter{seed: maphash.MakeSeed()} }

// add adds a key, unless it is there, or seems to be.
func (f *keyFilter) add(key []byte) {
	hash := maphash.Bytes(f.seed, key)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.has(hash) {
		return
	}
	if n := len(f.layers); n == 0 || f.layers[n-1].room == 0 {
		keys := firstLayerKeys << n
		f.layers = append(f.layers, filterLayer{make([]uint64, keys*bitsPerKey/64), keys})
	}
	last := &f.layers[len(f.layers)-1]
	last.room--
	for i := range uint64(probes) {
		word, bit := last.at(hash, i)
		last.words[word] |= bit
	}
}

// excludes reports that a key was certainly not added, and is not in the store.
func (f *keyFilter) excludes(key string) bool {
	hash := maphash.String(f.seed, key)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.complete && !f.has(hash)
}

func (f *keyFilter) has(hash uint64) bool {
	for i := range f.layers {
		if f.layers[i].has(hash) {
			return true
		}
	}
	return false
}

func (l *filterLayer) has(hash uint64) bool {
	for i := range uint64(probes) {
		if word, bit := l.at(hash, i); l.words[word]&bit == 0 {
			return false
		}
	}
	return true
}

// at returns the word and the bit of a probe: the two halves of the hash give all probes.
func (l *filterLayer) at(hash, probe uint64) (word, bit uint64) {
	at := (hash + probe*(hash>>32|1)) % uint64(len(l.words)*64)
	return at / 64, 1 << (at % 64)
}

// fill adds the keys of a partition's rows. Until it has all of them, the filter excludes nothing.
func (f *keyFilter) fill(store *localstore.Partition, stop <-chan struct{}) error {
	scan := store.Scan(localstore.Rows, nil, nil)
	for scan.Next() {
		select {
		case <-stop:
			return scan.Close()
		default:
		}
		f.add(scan.Key())
	}
	if err := scan.Err(); err != nil {
		_ = scan.Close()
		return err
	}
	f.mu.Lock()
	f.complete = true
	f.mu.Unlock()
	return scan.Close()
}

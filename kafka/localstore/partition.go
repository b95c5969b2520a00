package localstore

import (
	"errors"

	"github.com/lovoo/goka/storage"
)

// A Partition is one partition of a Store as goka's storage.Storage.
type Partition struct {
	store  *Store
	number int32
}

// Partition returns a partition. It is wiped first when it was not up to date for so long that tombstones may be
// compacted away.
func (s *Store) Partition(partition int32) (*Partition, error) {
	if err := s.wipeIfIdle(partition); err != nil {
		return nil, err
	}
	return &Partition{store: s, number: partition}, nil
}

// Number returns the number of the partition.
func (p *Partition) Number() int32 { return p.number }

// Update is Store.Update for this partition.
func (p *Partition) Update(offset int64, write func(w *Writer) error) error {
	return p.store.Update(p.number, offset, write)
}

// Scan is Store.Scan for this partition.
func (p *Partition) Scan(space Space, from, to []byte) *Scan {
	return p.store.Scan(p.number, space, from, to)
}

// Open does nothing: the store is open.
func (p *Partition) Open() error { return nil }

// Close does nothing: the store stays open.
func (p *Partition) Close() error { return nil }

// Touch is Store.Touch for this partition.
func (p *Partition) Touch() error { return p.store.Touch(p.number) }

// Has reports whether there is a row.
func (p *Partition) Has(key string) (bool, error) {
	value, err := p.Get(key)
	return value != nil, err
}

// Get returns a copy of a row; nil when there is none.
func (p *Partition) Get(key string) ([]byte, error) { return p.store.Get(p.number, Rows, []byte(key)) }

// Rows and their offset are written together, by Update. storage.Storage has calls that write one of them: Set and
// Delete, which goka makes only for callbacks that we do not use, and SetOffset, after each record of the changelog.
var errOnlyUpdate = errors.New("rows of a local store are written by Update, with the offset")

// Set is refused.
func (p *Partition) Set(string, []byte) error { return errOnlyUpdate }

// Delete is refused.
func (p *Partition) Delete(string) error { return errOnlyUpdate }

// SetOffset does nothing.
func (p *Partition) SetOffset(int64) error { return nil }

// MarkRecovered does nothing.
func (p *Partition) MarkRecovered() error { return nil }

// GetOffset returns the changelog offset that the rows are at; def when none is stored.
func (p *Partition) GetOffset(def int64) (int64, error) {
	offset, ok, err := p.store.Offset(p.number)
	if err != nil || !ok || offset < 0 {
		return def, err
	}
	return offset, nil
}

// Iterator iterates over all rows of the partition in key order.
func (p *Partition) Iterator() (storage.Iterator, error) { return p.IteratorWithRange(nil, nil) }

// IteratorWithRange iterates over [start, limit); without a limit, over all keys that begin with start, like goka's own
// storage.
func (p *Partition) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	if len(limit) == 0 {
		limit = PrefixEnd(start)
	}
	return &partitionIterator{partition: p, limit: limit, Scan: p.Scan(Rows, start, limit)}, nil
}

type partitionIterator struct {
	*Scan
	partition *Partition
	limit     []byte
}

func (i *partitionIterator) Value() ([]byte, error) { return i.Scan.Value(), nil }
func (i *partitionIterator) Release()               { _ = i.Close() } // goka's interface returns no error

// Seek moves to before the first key that is not less than key.
func (i *partitionIterator) Seek(key []byte) bool {
	i.Release()
	i.Scan = i.partition.Scan(Rows, key, i.limit)
	found := i.iter != nil && i.iter.First()
	i.started = false
	return found
}

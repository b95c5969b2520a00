package localstore

import (
	"sync/atomic"

	"github.com/lovoo/goka/storage"
)

// Builder gives goka the partitions of the store. What goka writes through it is visible at once, with whatever it proves to be
// done or not: a processor's table needs package epochs in between.
func (s *Store) Builder() storage.Builder {
	return func(_ string, partition int32) (storage.Storage, error) {
		return s.Partition(partition)
	}
}

// A Shelf is one partition of a Store, in the shape that goka wants: see storage.Storage.
type Partition struct {
	store     *Store
	number    int32
	recovered atomic.Bool // goka has read the changelog to its end
}

// Shelf returns a partition, wiped if it has been idle for so long that the changelog may have forgotten a delete.
func (s *Store) Partition(partition int32) (*Partition, error) {
	if err := s.wipeIfIdle(partition); err != nil {
		return nil, err
	}
	return &Partition{store: s, number: partition}, nil
}

// Partition is the number of the partition.
func (f *Partition) Number() int32 { return f.number }

// Update does what Store.Update does, for the partition.
func (f *Partition) Update(offset int64, write func(w *Writer) error) error {
	return f.store.Update(f.number, offset, write)
}

// Scan does what Store.Scan does, for the partition.
func (f *Partition) Scan(space Space, from, to []byte) *Scan {
	return f.store.Scan(f.number, space, from, to)
}

// Open does nothing: the store is open.
func (f *Partition) Open() error { return nil }

// Close does nothing: the store stays open.
func (f *Partition) Close() error { return nil }

// Touch does what Store.Touch does, for the partition.
func (f *Partition) Touch() error { return f.store.Touch(f.number) }

// Has says whether there is a row.
func (f *Partition) Has(key string) (bool, error) {
	value, err := f.Get(key)
	return value != nil, err
}

// Get returns a copy of a row, nil when there is none.
func (f *Partition) Get(key string) ([]byte, error) { return f.store.Get(f.number, Rows, []byte(key)) }

// Set stores a row; the offset stays.
func (f *Partition) Set(key string, value []byte) error {
	return f.write(func(w *Writer) { w.Set(Rows, []byte(key), value) })
}

// Delete removes a row; the offset stays.
func (f *Partition) Delete(key string) error {
	return f.write(func(w *Writer) { w.Delete(Rows, []byte(key)) })
}

// write stores without moving the offset: goka tells it afterwards.
func (f *Partition) write(write func(w *Writer)) error {
	offset, err := f.GetOffset(-1)
	if err != nil {
		return err
	}
	return f.Update(offset, func(w *Writer) error { write(w); return nil })
}

// GetOffset returns the changelog offset of the rows; def when none was stored.
func (f *Partition) GetOffset(def int64) (int64, error) {
	offset, ok, err := f.store.Offset(f.number)
	if err != nil || !ok || offset < 0 {
		return def, err
	}
	return offset, nil
}

// SetOffset is called by goka after each record it has read. A callback that stored the record with Update has stored the
// offset as well, so this writes only when there is something new.
func (f *Partition) SetOffset(offset int64) error {
	if f.recovered.Load() {
		if err := f.Touch(); err != nil {
			return err
		}
	}
	if stored, ok, err := f.store.Offset(f.number); err != nil || ok && stored == offset {
		return err
	}
	return f.Update(offset, func(*Writer) error { return nil })
}

// MarkRecovered is called by goka once the changelog is read. Rows may be read at any time; from here on the records that come
// keep the partition up to date. One to which none comes for a day is to be touched by whoever knows that none came.
func (f *Partition) MarkRecovered() error {
	f.recovered.Store(true)
	return nil
}

// Iterator walks all rows of the partition in the order of their keys.
func (f *Partition) Iterator() (storage.Iterator, error) { return f.IteratorWithRange(nil, nil) }

// IteratorWithRange walks [start, limit); without a limit, all keys that begin with start, as goka's own storage does.
func (f *Partition) IteratorWithRange(start, limit []byte) (storage.Iterator, error) {
	if len(limit) == 0 {
		limit = PrefixEnd(start)
	}
	return &partitionIterator{partition: f, limit: limit, Scan: f.Scan(Rows, start, limit)}, nil
}

type partitionIterator struct {
	*Scan
	partition *Partition
	limit     []byte
}

func (i *partitionIterator) Value() ([]byte, error) { return i.Scan.Value(), nil }
func (i *partitionIterator) Release()               { _ = i.Close() } // goka's interface has no room for it

// Seek moves before the first key at or after the one given.
func (i *partitionIterator) Seek(key []byte) bool {
	i.Release()
	i.Scan = i.partition.Scan(Rows, key, i.limit)
	found := i.iter != nil && i.iter.First()
	i.started = false
	return found
}

package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"
)

// A Scan iterates over the keys of one space in order. It must be closed.
type Scan struct {
	store   *Store
	iter    *pebble.Iterator
	points  *pebble.Iterator // of Get; nil before its first call
	started bool
	err     error
}

// Scan iterates over the keys in [from, to) of a snapshot taken now; a nil to is the end of the space.
func (s *Store) Scan(partition int32, space Space, from, to []byte) *Scan {
	iter, err := s.db.NewIter(bounds(partition, space, from, to))
	return &Scan{store: s, iter: iter, err: err}
}

// SameSnapshot iterates over other keys of the snapshot of s, which is not closed yet.
func (s *Scan) SameSnapshot(partition int32, space Space, from, to []byte) *Scan {
	if s.err != nil {
		return &Scan{store: s.store, err: s.err}
	}
	iter, err := s.iter.Clone(pebble.CloneOptions{IterOptions: bounds(partition, space, from, to)})
	return &Scan{store: s.store, iter: iter, err: err}
}

func bounds(partition int32, space Space, from, to []byte) *pebble.IterOptions {
	b := &pebble.IterOptions{
		LowerBound: storeKey(partition, space, from),
		UpperBound: storeKey(partition, space+1, nil),
	}
	if to != nil {
		b.UpperBound = storeKey(partition, space, to)
	}
	return b
}

// Next moves to the next key, and reports whether there is one.
func (s *Scan) Next() bool {
	if s.err != nil {
		return false
	}
	if !s.started {
		s.started = true
		return s.iter.First()
	}
	return s.iter.Next()
}

// Previous moves to the previous key, at first to the last one, and reports whether there is one.
func (s *Scan) Previous() bool {
	if s.err != nil {
		return false
	}
	if !s.started {
		s.started = true
		return s.iter.Last()
	}
	return s.iter.Prev()
}

// Key returns the key without partition and space; valid until the next call of Next.
func (s *Scan) Key() []byte { return s.iter.Key()[storeKeyHead:] }

// Value returns the value; valid until the next call of Next.
func (s *Scan) Value() []byte { return s.iter.Value() }

// Get returns the value of a key, of any space of the partition, in the snapshot of s; nil when there is none. It is
// valid until the next call of Get.
func (s *Scan) Get(partition int32, space Space, key []byte) (value []byte, err error) {
	full := storeKey(partition, space, key)
	found, value, err := s.seek(full)
	if err != nil || !bytes.Equal(found, full) {
		return nil, err
	}
	return value, nil
}

// First returns the first key in [from, to), of any space of the partition, in the snapshot of s; nil when there is
// none. Key and value are valid until the next call of First or Get.
func (s *Scan) First(partition int32, space Space, from, to []byte) (key, value []byte, err error) {
	found, value, err := s.seek(storeKey(partition, space, from))
	if err != nil || found == nil || bytes.Compare(found, storeKey(partition, space, to)) >= 0 {
		return nil, nil, err
	}
	return found[storeKeyHead:], value, nil
}

// seek returns the first key of the database that is not less than full.
func (s *Scan) seek(full []byte) (key, value []byte, err error) {
	if s.err != nil {
		return nil, nil, s.store.wrapError("read", s.err)
	}
	if s.points == nil {
		if s.points, err = s.iter.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{}}); err != nil {
			return nil, nil, s.store.wrapError("read", err)
		}
	}
	if s.points.SeekGE(full) {
		return s.points.Key(), s.points.Value(), nil
	}
	if err := s.points.Error(); err != nil {
		return nil, nil, s.store.wrapError("read", err)
	}
	return nil, nil, nil
}

// Offset returns the changelog offset that the partition is at in the snapshot of s; ok is false when none is stored.
func (s *Scan) Offset(partition int32) (offset int64, ok bool, err error) {
	value, err := s.Get(partition, spaceOffset, nil)
	if err != nil || len(value) != 8 {
		return 0, false, err
	}
	return int64(binary.BigEndian.Uint64(value)), true, nil
}

// Err returns the error that ended the scan, if there was one.
func (s *Scan) Err() error {
	err := s.err
	if err == nil {
		err = s.iter.Error()
	}
	if err != nil {
		return s.store.wrapError("scan", err)
	}
	return nil
}

// Close closes the scan.
func (s *Scan) Close() error {
	if s.iter == nil {
		return nil
	}
	if s.points != nil {
		return errors.Join(s.points.Close(), s.iter.Close())
	}
	return s.iter.Close()
}

// PrefixEnd returns the first key after all that begin with prefix; nil when there is none.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

const storeKeyHead = 3

// storeKey orders keys by partition, then space, then key.
func storeKey(partition int32, space Space, key []byte) []byte {
	b := make([]byte, 0, storeKeyHead+len(key))
	b = binary.BigEndian.AppendUint16(b, uint16(partition))
	b = append(b, byte(space))
	return append(b, key...)
}

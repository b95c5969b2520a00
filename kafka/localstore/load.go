package localstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A Load fills an empty partition from the beginning of its changelog, without a read of the store for each record.
//
// Records are sorted by key, in files where they do not fit into memory. Finish keeps the row of each key, derives the
// index entries from the rows, and adds both and the changelog offset to the database in one step. Until then the
// partition is empty: what a crash leaves is removed when the store is opened, and the changelog is read again.
//
// One goroutine may use a Load at a time. It must be finished or discarded before the store is closed. All loads that
// are open share the memory of the store.
type Load struct {
	store     *Store
	partition int32
	derive    Derive
	dir       string
	begun     time.Time
	rows      sorter
	offset    int64 // of the last record; -1 before the first
}

// A Derive calls put with the index entries of a row, in any order. The row is valid until Derive returns.
type Derive func(row Row, put Put) error

// A Put adds an index entry: any key of a space other than Rows.
type Put func(space Space, key, value []byte) error

// A Row is the row of a key after all records of the load.
type Row struct {
	Key, Value []byte
	Offset     int64 // of the record that has the value
}

// loadDir is the folder in the store's with the files of loads.
const loadDir = "load"

// Load begins a load; nil if the partition is not empty.
func (p *Partition) Load(derive Derive) (*Load, error) {
	s := p.store
	if empty, err := s.empty(p.number); err != nil || !empty {
		return nil, err
	}
	l := &Load{
		store: s, partition: p.number, derive: derive, offset: -1, begun: s.now(),
		dir: filepath.Join(s.dir, loadDir, fmt.Sprint(p.number)),
	}
	if err := errors.Join(os.RemoveAll(l.dir), os.MkdirAll(l.dir, 0o755)); err != nil {
		return nil, fmt.Errorf("make a folder for the load of partition %d: %w", p.number, err)
	}
	l.rows = sorter{dir: l.dir, limit: s.loadMemory}
	s.loads.Add(1)
	return l, nil
}

// loadMemory is what a load may keep in memory: an equal share of what the memtables may use. A load has a sorter of
// rows and one of index entries.
func (s *Store) loadMemory() int {
	return int(s.use.MemTable) * 2 / int(max(1, s.loads.Load()))
}

// empty reports whether a partition has neither rows nor an offset.
func (s *Store) empty(partition int32) (bool, error) {
	options := bounds(partition, Rows, nil, nil)
	options.UpperBound = storeKey(partition, spaceUpToDate, nil)
	iter, err := s.db.NewIter(options)
	if err != nil {
		return false, s.wrapError("read", err)
	}
	empty := !iter.First()
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return false, s.wrapError("read", err)
	}
	return empty, nil
}

// Offset returns the changelog offset of the last record; -1 before the first.
func (l *Load) Offset() int64 { return l.offset }

// Set adds a record with a value. It replaces the value before unless its version is lower.
func (l *Load) Set(offset, version int64, key, value []byte) error {
	if err := l.rows.add(key, value, recordInfo{version, offset}); err != nil {
		return fmt.Errorf("load partition %d of local store %s: %w", l.partition, l.store.dir, err)
	}
	l.offset = offset
	return nil
}

// Pass notes a record that has no effect on any key.
func (l *Load) Pass(offset int64) { l.offset = offset }

// Finish makes the rows, the index entries and the offset of the last record visible in one step, and ends the load. It
// reads all rows once. At most two loads of a store finish at a time, and the others wait. After an error the partition
// is empty.
func (l *Load) Finish(ctx context.Context) error {
	err := l.finish(ctx)
	if err != nil {
		err = fmt.Errorf("finish the load of partition %d of local store %s: %w", l.partition, l.store.dir, err)
	}
	return errors.Join(err, l.Discard())
}

func (l *Load) finish(ctx context.Context) error {
	if l.offset < 0 {
		return nil
	}
	select {
	case l.store.finishing <- struct{}{}:
		defer func() { <-l.store.finishing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	out := &tableWriter{store: l.store, dir: l.dir}
	if err := l.write(ctx, out); err != nil {
		return errors.Join(err, out.close())
	}
	if err := out.close(); err != nil {
		return err
	}
	if err := l.store.db.Ingest(ctx, out.files); err != nil {
		return l.store.wrapError("ingest", err)
	}
	return nil
}

// write writes all of the partition in the order of the keys of the database: rows, index entries, offset, and when it
// was up to date. That time is of the beginning: the changelog may be longer than what was loaded.
func (l *Load) write(ctx context.Context, out *tableWriter) error {
	index := sorter{dir: filepath.Join(l.dir, "index"), limit: l.store.loadMemory}
	if err := os.Mkdir(index.dir, 0o755); err != nil {
		return err
	}
	entry := []byte{}
	put := func(space Space, key, value []byte) error {
		entry = append(append(entry[:0], byte(space)), key...)
		return index.add(entry, value, recordInfo{})
	}
	if err := l.rows.each(ctx, func(r *record) error {
		if err := out.add(storeKey(l.partition, Rows, r.key), r.value); err != nil {
			return err
		}
		return l.derive(Row{r.key, r.value, r.offset}, put)
	}); err != nil {
		return err
	}
	l.rows = sorter{} // its memory is free for the index
	if err := index.each(ctx, func(r *record) error {
		return out.add(storeKey(l.partition, Space(r.key[0]), r.key[1:]), r.value)
	}); err != nil {
		return err
	}
	if err := out.add(storeKey(l.partition, spaceOffset, nil), offsetBytes(l.offset)); err != nil {
		return err
	}
	// Store.Partition has set this key, so its table does not go to the last level: it has nothing else.
	if err := out.close(); err != nil {
		return err
	}
	return out.add(storeKey(l.partition, spaceUpToDate, nil), timeBytes(l.begun))
}

// Discard ends the load. The partition stays as it is.
func (l *Load) Discard() error {
	if l.dir == "" {
		return nil
	}
	dir := l.dir
	l.dir, l.rows = "", sorter{}
	l.store.loads.Add(-1)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the files of a load: %w", err)
	}
	return nil
}

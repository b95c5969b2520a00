// Package localstore keeps the rows of a Kafka table, partition by partition, on this instance's disk, for goka.
//
// It promises that a partition's rows and the changelog offset they stand at are never apart, and that a folder which belongs to
// another log, or cannot be read, is begun anew. It refuses to be more than a cache: it is as durable as its last flush, since all
// of it can be read again from the changelog.
package localstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Store keeps the rows of one table's partitions on this instance's disk, in one Pebble database.
//
// It is a cache of the table's changelog and may be lost: there is no write-ahead log, so after a kill it stands where it
// was last flushed, and goka reads the changelog from the offset kept beside the rows. What must be true at every moment is
// only that rows and offset belong together, so both are always written in one batch. One database for all partitions,
// rather than one each, shares the block cache and the memtables: 32 partitions cost no more than one.
type Store struct {
	dir     string
	db      *pebble.DB
	lock    *pebble.Lock
	cache   *pebble.Cache
	log     *slog.Logger
	maxIdle time.Duration
	now     func() time.Time
	corrupt atomic.Bool // set once by the first sign of corruption

	mu       sync.Mutex
	touched  map[int32]time.Time // by partition
	flushed  time.Time
	flushing <-chan struct{} // closed when what was begun then is on the disk
}

// A Space separates kinds of keys within a partition of a Store.
type Space byte

// Rows is the space of the table's own rows, by record key. Spaces from 1 to 253 are the caller's.
const Rows Space = 0

const (
	spaceOffset   Space = 0xfe // the changelog offset that the rows stand at
	spaceUpToDate Space = 0xff // when the partition was last known to be up to date
)

// pinFile names what the folder belongs to; a wipeFile asks the next start to begin anew.
const (
	pinFile  = "store-pin"
	wipeFile = "store-wipe"
)

// deleteRetention is Kafka's default delete.retention.ms: a cache that slept longer may have missed a tombstone for good.
const deleteRetention = 24 * time.Hour

// How often a partition notes the time, and how often what is in memory is written to the disk, where it outlives a kill.
const (
	touchEvery = time.Minute
	flushEvery = time.Hour
)

// wallClock goes on while a machine is suspended, which the monotonic one does not.
func wallClock() time.Time { return time.Now().Round(0) }

// Open opens the store in dir, which is the store's alone, and must not be shared with another process. The pin names the log that
// the rows come from ("cluster id/topic id"): a store of another pin, or one that cannot be read, is wiped, because everything in
// it can be read again from the changelog. A folder with something else in it is an error.
func Open(dir, pin string, log *slog.Logger) (*Store, error) {
	s := &Store{dir: dir, log: log, maxIdle: deleteRetention, now: wallClock, touched: map[int32]time.Time{}}
	if err := s.acquire(); err != nil {
		return nil, fmt.Errorf("open local store %s: %w", dir, err)
	}
	if err := s.openOrWipe(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("open local store %s: %w", dir, err), s.lock.Close())
	}
	if err := os.WriteFile(filepath.Join(dir, pinFile), []byte(pin), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("note what the local store belongs to: %w", err), s.Close())
	}
	return s, nil
}

// acquire makes the folder and locks it: from here on nobody else has the store open.
func (s *Store) acquire() (err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if s.lock, err = pebble.LockDirectory(s.dir, vfs.Default); err != nil {
		return fmt.Errorf("%w: %w", errInUse, err)
	}
	return nil
}

// begin opens the database, on nothing where what is there must not be used.
func (s *Store) openOrWipe(pin string) error {
	reason, err := s.staleReason(pin)
	if err != nil {
		return err
	}
	if reason == "" {
		if err = s.open(); !unusable(err) {
			return err
		}
		reason = err.Error()
	}
	s.log.Warn("local store wiped, it will be rebuilt from the changelog", "dir", s.dir, "reason", reason)
	if err := s.wipe(); err != nil {
		return fmt.Errorf("wipe it: %w", err)
	}
	return s.open()
}

// lockFile is Pebble's. It stays when all else is wiped: it is locked.
const lockFile = "LOCK"

// files lists what is in the folder.
func (s *Store) files() (names []string, err error) {
	entries, err := os.ReadDir(s.dir)
	for _, e := range entries {
		if e.Name() != lockFile {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (s *Store) wipe() error {
	names, err := s.files()
	for _, name := range names {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.dir, name)))
	}
	return err
}

// staleReason says why what lies in the folder must not be used; empty when it may be, or when there is nothing. What was never
// a store's is an error.
func (s *Store) staleReason(pin string) (string, error) {
	names, err := s.files()
	if err != nil || len(names) == 0 {
		return "", err
	}
	if slices.Contains(names, wipeFile) {
		return "it was found corrupt", nil
	}
	found, err := os.ReadFile(filepath.Join(s.dir, pinFile))
	switch {
	case err == nil && string(found) == pin:
		return "", nil
	case err == nil:
		return fmt.Sprintf("it belongs to %s, not %s", found, pin), nil
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	if database, err := pebble.Peek(s.dir, vfs.Default); err == nil && !database.Exists {
		return "", fmt.Errorf("the folder holds something else (%s): give it one of its own, or empty it", names[0])
	}
	return "it does not say which log it belongs to", nil
}

var errInUse = errors.New("in use by another process?")

// spoiled tells what is wrong with the folder's content, which is wiped, from what is wrong around it: rights, a
// full disk. Pebble does not call all of the former corruption: not a table that was cut short, for one.
func unusable(err error) bool {
	if err == nil {
		return false
	}
	_, system := errors.AsType[syscall.Errno](err)
	return !system || pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist)
}

func (s *Store) open() error {
	s.cache = pebble.NewCache(64 << 20)
	options := &pebble.Options{
		Cache:                       s.cache,
		Lock:                        s.lock,
		DisableWAL:                  true,
		MemTableSize:                32 << 20,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		Logger:                      pebbleLog{s},
		EventListener:               &pebble.EventListener{DataCorruption: func(i pebble.DataCorruptionInfo) { s.markCorrupt(i.Details) }},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(s.dir, options)
	if err != nil {
		s.cache.Unref()
		return err
	}
	s.db = db
	return nil
}

// Close writes what is in memory and closes the database.
func (s *Store) Close() error {
	defer s.cache.Unref()
	return errors.Join(s.db.Flush(), s.db.Close(), s.lock.Close())
}

// perish asks the next start to wipe the folder: nothing that it holds can be trusted any more, and all of it is in the
// changelog.
func (s *Store) markCorrupt(cause error) {
	if !s.corrupt.CompareAndSwap(false, true) {
		return
	}
	s.log.Error("local store is corrupt, the next start will rebuild it", "dir", s.dir, "error", cause)
	if err := os.WriteFile(filepath.Join(s.dir, wipeFile), nil, 0o644); err != nil {
		s.log.Error("cannot mark the local store as corrupt: remove its folder by hand", "dir", s.dir, "error", err)
	}
}

// Perished reports whether the store was found corrupt: opened again, it is wiped.
func (s *Store) Corrupt() bool { return s.corrupt.Load() }

// failed wraps an error of the database and looks whether it means corruption.
func (s *Store) wrapError(doing string, err error) error {
	if pebble.IsCorruptionError(err) {
		s.markCorrupt(err)
	}
	return fmt.Errorf("%s in local store %s: %w", doing, s.dir, err)
}

// Get returns a copy of the value, nil when there is none.
func (s *Store) Get(partition int32, space Space, key []byte) ([]byte, error) {
	return s.get(s.db, storeKey(partition, space, key))
}

func (s *Store) get(from pebble.Reader, key []byte) ([]byte, error) {
	value, closer, err := from.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, s.wrapError("read", err)
	}
	copied := append(make([]byte, 0, len(value)), value...)
	return copied, closer.Close()
}

// Offset returns the changelog offset of the newest record in the partition's rows; ok is false when none was ever stored.
func (s *Store) Offset(partition int32) (offset int64, ok bool, err error) {
	value, err := s.Get(partition, spaceOffset, nil)
	if err != nil || len(value) != 8 {
		return 0, false, err
	}
	return int64(binary.BigEndian.Uint64(value)), true, nil
}

func offsetBytes(offset int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(offset)) }

// Update applies what write does and the changelog offset that it brings the partition to, all or nothing.
func (s *Store) Update(partition int32, offset int64, write func(w *Writer) error) error {
	w := &Writer{store: s, partition: partition, batch: s.db.NewBatch()}
	defer w.batch.Close() //nolint:errcheck // closing a committed or dropped batch only recycles it
	if err := write(w); err != nil {
		return err
	}
	w.Set(spaceOffset, nil, offsetBytes(offset))
	if w.err != nil {
		return s.wrapError("write", w.err)
	}
	if err := w.batch.Commit(pebble.NoSync); err != nil {
		return s.wrapError("write", err)
	}
	return nil
}

// ErrIdle says that a partition was not kept up to date for so long that its changelog may have forgotten deletes it never saw. The
// next Shelf of it is empty.
var ErrIdle = errors.New("was not kept up to date for too long")

// Touch notes that the partition, whose Shelf is in use, holds all of its changelog as of now. Whoever keeps it up to date calls it
// every minute or so, or oftener, whether records came or not; it writes once a minute, and once an hour to the disk. It does not
// wait for the disk. After too long a pause it is an ErrIdle.
func (s *Store) Touch(partition int32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	switch pause := now.Sub(s.touched[partition]); {
	case pause < touchEvery:
		return nil
	case pause > s.maxIdle && !s.touched[partition].IsZero():
		return fmt.Errorf("partition %d of local store %s: %w", partition, s.dir, ErrIdle)
	}
	if err := s.setUpToDate(partition, now); err != nil {
		return err
	}
	s.touched[partition] = now
	if s.flushed.IsZero() {
		s.flushed = now
	}
	if now.Sub(s.flushed) < flushEvery {
		return nil
	}
	var err error
	if s.flushing, err = s.db.AsyncFlush(); err != nil {
		return s.wrapError("flush", err)
	}
	s.flushed = now
	return nil
}

// note writes when the partition was last up to date.
func (s *Store) setUpToDate(partition int32, at time.Time) error {
	if err := s.db.Set(storeKey(partition, spaceUpToDate, nil), binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro())), pebble.NoSync); err != nil {
		return s.wrapError("write", err)
	}
	return nil
}

// prepare wipes a partition that was idle for so long that its changelog may have forgotten deletes it never saw.
func (s *Store) wipeIfIdle(partition int32) error {
	value, err := s.Get(partition, spaceUpToDate, nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if len(value) == 8 {
		used := time.UnixMicro(int64(binary.BigEndian.Uint64(value)))
		if now.Sub(used) <= s.maxIdle {
			s.touched[partition] = used
			return nil
		}
		s.log.Warn("a partition of the local store was not kept up to date for too long, it will be rebuilt from the changelog",
			"dir", s.dir, "partition", partition, "until", used.UTC().Format(time.RFC3339))
	}
	if err := s.db.DeleteRange(storeKey(partition, 0, nil), storeKey(partition+1, 0, nil), pebble.NoSync); err != nil {
		return s.wrapError("wipe partition", err)
	}
	s.touched[partition] = now
	return s.setUpToDate(partition, now)
}

// A Writer collects one update of one partition.
type Writer struct {
	store     *Store
	partition int32
	batch     *pebble.Batch
	err       error
}

// Set stores a value under a key.
func (w *Writer) Set(space Space, key, value []byte) {
	w.err = errors.Join(w.err, w.batch.Set(storeKey(w.partition, space, key), value, nil))
}

// Delete removes a key.
func (w *Writer) Delete(space Space, key []byte) {
	w.err = errors.Join(w.err, w.batch.Delete(storeKey(w.partition, space, key), nil))
}

// Get returns what was stored before this update; nil when there was nothing.
func (w *Writer) Get(space Space, key []byte) ([]byte, error) {
	return w.store.Get(w.partition, space, key)
}

const storeKeyHead = 3

// storeKey orders keys by partition, then space, then key.
func storeKey(partition int32, space Space, key []byte) []byte {
	b := make([]byte, 0, storeKeyHead+len(key))
	b = binary.BigEndian.AppendUint16(b, uint16(partition))
	b = append(b, byte(space))
	return append(b, key...)
}

// pebbleLog passes on what Pebble finds worth an error; its progress reports are left out.
type pebbleLog struct{ store *Store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.store.log.Error("local store", "dir", l.store.dir, "error", fmt.Sprintf(format, args...))
}

// Fatalf is called by Pebble when it cannot go on; it must not return.
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic("local store " + l.store.dir + ": " + fmt.Sprintf(format, args...))
}

var _ io.Closer = (*Store)(nil)

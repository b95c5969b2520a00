// Package localstore keeps the rows of a Kafka table, partition by partition, on this instance's disk, for goka.
//
// A partition's rows and the changelog offset that they are at are always written together. A folder that belongs to
// another topic, or cannot be read, is wiped. The store is only a cache: it is as durable as its last flush, since
// everything in it can be recovered from the changelog.
package localstore

import (
	"encoding/binary"
	"errors"
	"fmt"
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
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A Store keeps the rows of one table's partitions on this instance's disk, in one Pebble database.
//
// It is a cache of the table's changelog and may be lost. There is no write-ahead log: after a kill it has what was
// flushed last, and goka reads the changelog from the offset stored with the rows. Rows and offset must always belong
// together, so both are written in one batch. One database for all partitions shares the block cache and the memtables:
// 32 partitions cost no more than one.
type Store struct {
	dir     string
	db      *pebble.DB
	lock    *pebble.Lock
	cache   *pebble.Cache
	options *pebble.Options
	log     *slog.Logger
	use     Settings
	maxIdle time.Duration
	now     func() time.Time
	corrupt atomic.Bool // set once by the first sign of corruption
	writing writing

	loads     atomic.Int64  // that are open
	finishing chan struct{} // has an element for each load that finishes

	mu       sync.Mutex
	touched  map[int32]time.Time // by partition
	flushed  time.Time
	flushing <-chan struct{} // closed when the flush begun at that time is on the disk
}

// A Space separates kinds of keys within a partition of a Store.
type Space byte

// Rows is the space of the table's rows, by record key. Spaces from 1 to 253 are free for the caller.
const Rows Space = 0

const (
	spaceOffset   Space = 0xfe // the changelog offset that the rows are at
	spaceUpToDate Space = 0xff // when the partition was last known to be up to date
)

// pinFile contains the pin; with a wipeFile the next start wipes the folder.
const (
	pinFile  = "store-pin"
	wipeFile = "store-wipe"
)

// deleteRetention is Kafka's default delete.retention.ms: a cache that was not updated for longer may have missed a
// tombstone that is compacted away.
const deleteRetention = 24 * time.Hour

// How often a partition stores the time, and how often memtables are flushed to the disk, where they survive a kill.
const (
	touchEvery = time.Minute
	flushEvery = time.Hour
)

// wallClock advances while a machine is suspended, unlike the monotonic clock.
func wallClock() time.Time { return time.Now().Round(0) }

// Open opens the store in dir, which contains nothing else and is not shared with another process. The pin identifies
// the topic that the rows come from ("cluster id/topic id"). A store with another pin, or one that cannot be read, is
// wiped: everything in it can be recovered from the changelog. A folder with other content is an error.
func Open(dir, pin string, log *slog.Logger) (*Store, error) {
	return OpenWith(dir, pin, log, defaultSettings)
}

// OpenWith is Open with other settings.
func OpenWith(dir, pin string, log *slog.Logger, use Settings) (*Store, error) {
	s := &Store{
		dir: dir, log: log, use: use, maxIdle: deleteRetention, now: wallClock, touched: map[int32]time.Time{},
		finishing: make(chan struct{}, 2), writing: writing{pause: 50 * time.Millisecond, fatal: exit},
	}
	if err := s.acquire(); err != nil {
		return nil, fmt.Errorf("open local store %s: %w", dir, err)
	}
	if err := s.openOrWipe(pin); err != nil {
		return nil, errors.Join(fmt.Errorf("open local store %s: %w", dir, err), s.lock.Close())
	}
	if err := os.WriteFile(filepath.Join(dir, pinFile), []byte(pin), 0o644); err != nil {
		return nil, errors.Join(fmt.Errorf("write the pin of the local store: %w", err), s.Close())
	}
	return s, nil
}

// acquire creates the folder and locks it against other processes.
func (s *Store) acquire() (err error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return fmt.Errorf("make the folder: %w", err)
	}
	if s.lock, err = pebble.LockDirectory(s.dir, vfs.Default); err != nil {
		return fmt.Errorf("%w: %w", errInUse, err)
	}
	return nil
}

// openOrWipe opens the database, and first wipes content that must not be used.
func (s *Store) openOrWipe(pin string) error {
	reason, err := s.staleReason(pin)
	if err != nil {
		return err
	}
	if reason == "" {
		if err := os.RemoveAll(filepath.Join(s.dir, loadDir)); err != nil {
			return fmt.Errorf("remove the files of an interrupted load: %w", err)
		}
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

// lockFile is Pebble's. It is locked, and not wiped.
const lockFile = "LOCK"

// files lists the folder without the lock file.
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

// staleReason returns why the content of the folder must not be used; empty when it may be used, and when there is
// none. Content that is not a store is an error.
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
		return "", fmt.Errorf("the folder has other content (%s): use another folder, or empty it", names[0])
	}
	return "it has no pin", nil
}

var errInUse = errors.New("in use by another process?")

// unusable reports whether an error is about the content of the folder, which is then wiped, and not about its
// permissions or a full disk. Pebble does not call all of the former corruption, for example not a truncated table
// file.
func unusable(err error) bool {
	if err == nil {
		return false
	}
	_, system := errors.AsType[syscall.Errno](err)
	return !system || pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist)
}

func (s *Store) open() error {
	s.cache = s.use.cache()
	options := &pebble.Options{
		Cache:                       s.cache,
		Lock:                        s.lock,
		DisableWAL:                  true,
		MemTableSize:                s.use.MemTable,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       s.use.l0Tables(),
		L0StopWritesThreshold:       24,
		Logger:                      pebbleLog{s},
		EventListener: &pebble.EventListener{
			DataCorruption: func(i pebble.DataCorruptionInfo) { s.markCorrupt(i.Details) },
			FlushEnd:       func(i pebble.FlushInfo) { s.wrote(i.Err) },
			CompactionEnd:  func(i pebble.CompactionInfo) { s.wrote(i.Err) },
		},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		if s.use.WrittenOften {
			options.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		}
	}
	// The tables of a load must be durable when Ingest returns. Without a log, Pebble would have them only in memory
	// until it has flushed older keys.
	options.Experimental.DisableIngestAsFlushable = func() bool { return true }
	options.EnsureDefaults() // also for the tables of loads
	db, err := pebble.Open(s.dir, options)
	if err != nil {
		s.cache.Unref()
		return err
	}
	s.db, s.options = db, options
	return nil
}

// Close flushes and closes the database.
func (s *Store) Close() error {
	defer s.cache.Unref()
	s.writing.closing.Store(true)
	return errors.Join(s.db.Flush(), s.db.Close(), s.lock.Close())
}

// markCorrupt makes the next start wipe the folder. Everything in it is in the changelog.
func (s *Store) markCorrupt(cause error) {
	if !s.corrupt.CompareAndSwap(false, true) {
		return
	}
	s.log.Error("local store is corrupt, the next start will rebuild it", "dir", s.dir, "error", cause)
	if err := os.WriteFile(filepath.Join(s.dir, wipeFile), nil, 0o644); err != nil {
		s.log.Error("cannot mark the local store as corrupt: remove its folder by hand", "dir", s.dir, "error", err)
	}
}

// Corrupt reports whether the store is marked corrupt: the next Open wipes it.
func (s *Store) Corrupt() bool { return s.corrupt.Load() }

// wrapError wraps an error of the database, and marks the store corrupt if it says so.
func (s *Store) wrapError(doing string, err error) error {
	if pebble.IsCorruptionError(err) {
		s.markCorrupt(err)
	}
	return fmt.Errorf("%s in local store %s: %w", doing, s.dir, err)
}

// Get returns a copy of the value; nil when there is none.
func (s *Store) Get(partition int32, space Space, key []byte) (copied []byte, err error) {
	_, err = s.Read(partition, space, key, func(value []byte) error {
		copied = append(make([]byte, 0, len(value)), value...)
		return nil
	})
	return copied, err
}

// Read calls f with the value, without copying it, and reports whether there is one. The value is valid until f
// returns.
func (s *Store) Read(partition int32, space Space, key []byte, f func(value []byte) error) (found bool, err error) {
	value, closer, err := s.db.Get(storeKey(partition, space, key))
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return false, nil
	case err != nil:
		return false, s.wrapError("read", err)
	}
	return true, errors.Join(f(value), closer.Close())
}

// Offset returns the changelog offset that the partition's rows are at; ok is false when none is stored.
func (s *Store) Offset(partition int32) (offset int64, ok bool, err error) {
	value, err := s.Get(partition, spaceOffset, nil)
	if err != nil || len(value) != 8 {
		return 0, false, err
	}
	return int64(binary.BigEndian.Uint64(value)), true, nil
}

func offsetBytes(offset int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(offset)) }

// Update writes what write sets, and the changelog offset that the partition is at with it, in one batch.
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

// A Writer collects the writes of one Update.
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

// Get returns the value as it was before this update; nil when there was none.
func (w *Writer) Get(space Space, key []byte) ([]byte, error) {
	return w.store.Get(w.partition, space, key)
}

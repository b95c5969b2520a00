package localstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// ErrIdle says that a partition was not up to date for so long that tombstones it never read may be compacted away. The
// next Store.Partition of it is empty.
var ErrIdle = errors.New("was not up to date for too long")

// Touch notes that the open partition has all of its changelog as of now. It must be called about every minute, whether
// records come or not. It stores the time once a minute, and starts a flush once an hour, without waiting for it. After
// too long a pause it returns ErrIdle.
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
	return s.flushIfDue(now)
}

// FlushHourly starts a flush if the last one began an hour ago, without waiting for it. It is for a store whose
// partitions are not touched.
func (s *Store) FlushHourly() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushIfDue(s.now())
}

// flushIfDue is called with mu held.
func (s *Store) flushIfDue(now time.Time) error {
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

// setUpToDate stores when the partition was last up to date.
func (s *Store) setUpToDate(partition int32, at time.Time) error {
	if err := s.db.Set(storeKey(partition, spaceUpToDate, nil), timeBytes(at), pebble.NoSync); err != nil {
		return s.wrapError("write", err)
	}
	return nil
}

func timeBytes(at time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(at.UnixMicro()))
}

// wipeIfIdle wipes a partition that was not up to date for so long that tombstones it never read may be compacted away.
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
		s.log.Warn("a partition of the local store was not up to date for too long, it will be rebuilt from the "+
			"changelog",
			"dir", s.dir, "partition", partition, "until", used.UTC().Format(time.RFC3339))
	}
	if empty, err := s.empty(partition); err != nil {
		return err
	} else if !empty { // else the range would keep the tables of a Load out of the last level
		if err := s.deletePartition(partition); err != nil {
			return err
		}
	}
	s.touched[partition] = now
	return s.setUpToDate(partition, now)
}

// DropIdle wipes a partition that is not open if Partition would wipe it, which frees its space on the disk.
func (s *Store) DropIdle(partition int32) error {
	value, err := s.Get(partition, spaceUpToDate, nil)
	if err != nil || len(value) != 8 {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	used := time.UnixMicro(int64(binary.BigEndian.Uint64(value)))
	if s.now().Sub(used) <= s.maxIdle {
		return nil
	}
	s.log.Info("a partition of the local store that is not used any more is wiped", "dir", s.dir,
		"partition", partition, "until", used.UTC().Format(time.RFC3339))
	delete(s.touched, partition)
	return s.deletePartition(partition)
}

func (s *Store) deletePartition(partition int32) error {
	if err := s.db.DeleteRange(storeKey(partition, 0, nil), storeKey(partition+1, 0, nil), pebble.NoSync); err != nil {
		return s.wrapError("wipe partition", err)
	}
	return nil
}

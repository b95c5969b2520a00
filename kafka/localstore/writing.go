package localstore

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// writing is how flushes and compactions went, which Pebble does in the background.
type writing struct {
	failures atomic.Int64  // one after another
	closing  atomic.Bool   // Close has been called
	pause    time.Duration // after the first failure
	fatal    func(message string)
}

// maxFailures is how many may fail one after another once the store is being closed, those before it included. The
// pauses of so many are 25 s.
const maxFailures = 35

// wrote notes how a flush or a compaction ended. Pebble repeats one that failed at once and for ever: without a pause
// that was 12,000 times a second when the folder was gone, each with a line in the log. Rows are read meanwhile. Close
// would wait for ever, so there the process exits, and what is lost is in the changelog.
func (s *Store) wrote(err error) {
	switch {
	case err == nil:
		s.writing.failures.Store(0)
		return
	case errors.Is(err, pebble.ErrCancelledCompaction): // Pebble's own doing
		return
	}
	failures := s.writing.failures.Add(1)
	if failures > maxFailures && s.writing.closing.Load() {
		pebbleLog{s}.Fatalf("it cannot be written: %v: free some disk space, or check the disk, and start again", err)
	}
	time.Sleep(min(time.Duration(failures)*s.writing.pause, 20*s.writing.pause))
}

// pebbleLog logs Pebble's errors, without its progress messages.
type pebbleLog struct{ store *Store }

func (l pebbleLog) Infof(string, ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.store.log.Error("local store", "dir", l.store.dir, "error", fmt.Sprintf(format, args...))
}

// Fatalf is called by Pebble when it cannot go on; it must not return.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.store.writing.fatal("local store " + l.store.dir + ": " + fmt.Sprintf(format, args...))
}

func exit(message string) { panic(message) }

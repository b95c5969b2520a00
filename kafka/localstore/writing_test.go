package localstore

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A store that cannot be written goes on when it can, and does not keep a stop from ending.
func TestStoreThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir() + "/store"
	s := openTestStore(t, dir, "c/t")
	ended := make(chan string, 1)
	s.writing.pause = time.Microsecond
	s.writing.fatal = func(message string) {
		select {
		case ended <- message:
		default: // one more failure
		}
	}
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, 0, 1, "k", "v")
	move(dir, dir+"-away")
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	for s.writing.failures.Load() < 10*maxFailures {
		time.Sleep(time.Millisecond)
	}
	if got := get(t, s, 0, "k"); got != "v" {
		t.Errorf("%q, want the row that is in memory", got)
	}
	move(dir+"-away", dir)
	<-flushed
	if n := s.writing.failures.Load(); n != 0 || len(ended) > 0 {
		t.Errorf("%d failures after a flush, %d ends", n, len(ended))
	}

	put(t, s, 0, 2, "k", "w")
	move(dir, dir+"-away")
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	if message := <-ended; !strings.Contains(message, "local store "+dir+": it cannot be written") {
		t.Errorf("%q", message)
	}
	move(dir+"-away", dir) // for the test alone: the process would have ended
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

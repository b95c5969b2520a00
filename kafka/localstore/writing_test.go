package localstore

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A store that cannot be written ends the process: it neither fills the log nor keeps a stop from ending.
func TestFailingWritesEndTheProcess(t *testing.T) {
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
	put(t, s, 0, 1, "k", "v")
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	flushed, err := s.db.AsyncFlush()
	if err != nil {
		t.Fatal(err)
	}
	if message := <-ended; !strings.Contains(message, "local store "+dir+": it cannot be written") {
		t.Errorf("%q", message)
	}
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	<-flushed
	if n := s.writing.failures.Load(); n != 0 {
		t.Errorf("%d failures after a flush", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

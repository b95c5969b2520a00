package localstore

import (
	"testing"
	"time"
)

func TestFlushHourly(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	put(t, s, 0, 1, "k", "v")
	for _, c := range []struct {
		pass time.Duration
		want int64
	}{{0, 0}, {flushEvery - 1, 0}, {1, 1}, {time.Minute, 1}} {
		now = now.Add(c.pass)
		if err := s.FlushHourly(); err != nil {
			t.Fatal(err)
		}
		if s.flushing != nil {
			<-s.flushing
		}
		if got := s.db.Metrics().Flush.Count; got != c.want {
			t.Errorf("after %v: %d flushes, want %d", c.pass, got, c.want)
		}
	}
}

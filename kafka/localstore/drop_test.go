package localstore

import (
	"testing"
	"time"
)

func TestPartitionThatIsNotUsedAnyMoreIsDropped(t *testing.T) {
	s := openTestStore(t, t.TempDir(), "c/t")
	defer s.Close()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s.now = func() time.Time { return now }
	for _, partition := range []int32{0, 1} {
		if _, err := s.Partition(partition); err != nil {
			t.Fatal(err)
		}
		put(t, s, partition, 7, "k", "v")
	}
	for _, c := range []struct {
		pass time.Duration
		want string
	}{{deleteRetention, "v"}, {time.Second, ""}} {
		now = now.Add(c.pass)
		if err := s.DropIdle(0); err != nil {
			t.Fatal(err)
		}
		if got := get(t, s, 0, "k"); got != c.want {
			t.Errorf("after %v: %q, want %q", c.pass, got, c.want)
		}
	}
	if _, ok, err := s.Offset(0); ok || err != nil {
		t.Errorf("its offset is still there: %v", err)
	}
	if got := get(t, s, 1, "k"); got != "v" {
		t.Errorf("another partition: %q", got)
	}
}

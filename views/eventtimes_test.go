package views

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestEventTimesAreKept(t *testing.T) {
	var e eventTimes
	asked := 0
	ask := func(context.Context, int32, time.Time) (int64, int64, error) {
		asked++
		if asked == 1 {
			return 0, 0, errors.New("no broker")
		}
		return int64(asked), 0, nil
	}
	old := time.Now().Add(-timeSettled - time.Second)
	for i, c := range []struct {
		partition int32
		at        time.Time
		want      int64
	}{
		{1, old, 0},
		{1, old, 2},
		{1, old, 2},
		{2, old, 3},
		{1, old.Add(-time.Millisecond), 4},
		{1, old, 2},
		{1, time.Now(), 5},
		{1, time.Now(), 6},
	} {
		if got, _, err := e.eventAfter(t.Context(), c.partition, c.at, ask); got != c.want || (err != nil) != (i == 0) {
			t.Errorf("call %d: %d, %v, want %d", i, got, err, c.want)
		}
	}
	key := eventTime{1, old.UnixMilli()}
	f := e.known[key]
	f.since = f.since.Add(-timeLifetime)
	e.known[key] = f
	if got, _, _ := e.eventAfter(t.Context(), 1, old, ask); got != 7 {
		t.Errorf("after its lifetime: %d", got)
	}
	for i := range 2 * maxEventTimes {
		if _, _, err := e.eventAfter(t.Context(), 1, old.Add(-time.Duration(i)*time.Second), ask); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.known) > maxEventTimes {
		t.Errorf("%d are kept", len(e.known))
	}
}

package views

import (
	"context"
	"sync"
	"time"
)

// The bounds of eventTimes. A time that is younger than timeSettled is not kept: a record may still get an earlier
// timestamp from a broker whose clock is behind.
const (
	maxEventTimes = 1024
	timeSettled   = time.Minute
	timeLifetime  = time.Minute
)

// eventTimes keeps for some time which event was the first after a time in the past, for requests that repeat it.
type eventTimes struct {
	mu    sync.Mutex
	known map[eventTime]foundEvent
}

type eventTime struct {
	partition int32
	millis    int64
}

type foundEvent struct {
	next, start int64
	since       time.Time
}

// eventAfter returns what is known, or asks.
func (e *eventTimes) eventAfter(ctx context.Context, partition int32, at time.Time,
	ask func(context.Context, int32, time.Time) (next, start int64, err error),
) (next, start int64, err error) {
	key, now := eventTime{partition, at.UnixMilli()}, time.Now()
	e.mu.Lock()
	f, ok := e.known[key]
	e.mu.Unlock()
	if ok && now.Sub(f.since) < timeLifetime {
		return f.next, f.start, nil
	}
	if next, start, err = ask(ctx, partition, at); err != nil || now.Sub(at) < timeSettled {
		return next, start, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil || len(e.known) == maxEventTimes {
		e.known = map[eventTime]foundEvent{}
	}
	e.known[key] = foundEvent{next, start, now}
	return next, start, nil
}

package ingress

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBuckets bounds the limiter's memory, to some 30 MB: who holds a secret for every workspace can name any number.
const maxBuckets = 100_000

// A limiter keeps a token bucket per workspace, of those seen lately: a bucket that has had time to fill is dropped, as a
// new one is full too. Past maxBuckets the one unused longest goes, which errs on the sender's side.
type limiter struct {
	rate  rate.Limit
	burst int
	fill  time.Duration // after which an unused bucket is full
	max   int

	mu      sync.Mutex
	buckets map[string]*list.Element
	recent  *list.List // of *bucket, the one used last in front
}

type bucket struct {
	workspace string
	tokens    *rate.Limiter
	used      time.Time
}

// newLimiter returns nil, which never limits, for a rate of zero.
func newLimiter(perSecond float64, burst int) *limiter {
	if perSecond == 0 {
		return nil
	}
	fill := min(float64(burst)/perSecond, (365 * 24 * time.Hour).Seconds())
	return &limiter{
		rate: rate.Limit(perSecond), burst: burst, max: maxBuckets,
		fill:    time.Duration(fill * float64(time.Second)),
		buckets: map[string]*list.Element{}, recent: list.New(),
	}
}

// take takes a token; without one it returns how long until there is one.
func (l *limiter) take(workspace string, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.bucket(workspace, now).ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

func (l *limiter) bucket(workspace string, now time.Time) *rate.Limiter {
	if e, ok := l.buckets[workspace]; ok {
		l.recent.MoveToFront(e)
		b := e.Value.(*bucket)
		b.used = now
		return b.tokens
	}
	for e := l.recent.Back(); e != nil && (now.Sub(e.Value.(*bucket).used) >= l.fill || len(l.buckets) >= l.max); e = l.recent.Back() {
		delete(l.buckets, l.recent.Remove(e).(*bucket).workspace)
	}
	b := &bucket{workspace: workspace, tokens: rate.NewLimiter(l.rate, l.burst), used: now}
	l.buckets[workspace] = l.recent.PushFront(b)
	return b.tokens
}

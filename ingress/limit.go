package ingress

import (
	"container/list"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBuckets bounds the limiter's memory to some 30 MB: a client with a secret for every workspace can name any number
// of them.
const maxBuckets = 100_000

// policyName names the only policy in the RateLimit header fields.
const policyName = `"workspace"`

// A limiter keeps a token bucket per workspace. A bucket that is unused for as long as it takes to fill is dropped,
// since a new one is full too. Past maxBuckets the least recently used one is dropped, which lets its sender send more.
type limiter struct {
	rate  rate.Limit
	burst int
	fill  time.Duration // after which an unused bucket is full
	max   int

	policy string // value of RateLimit-Policy

	mu      sync.Mutex
	latest  time.Time // of all calls of take
	buckets map[string]*list.Element
	recent  *list.List // of *bucket, most recently used first
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
		policy:  policy(perSecond, burst),
		buckets: map[string]*list.Element{}, recent: list.New(),
	}
}

// policy describes a token bucket as a window, the only form that RateLimit-Policy has: q requests in w seconds, never
// more than the bucket allows over time.
func policy(perSecond float64, burst int) string {
	window := max(1, math.Ceil(float64(burst)/perSecond))
	// a bucket smaller than a second's worth fills up within the second
	quota := max(float64(burst), math.Floor(perSecond))
	return fmt.Sprintf("%s;q=%.0f;w=%.0f", policyName, min(quota, maxInteger), min(window, maxInteger))
}

// maxInteger is the largest integer of a structured field (RFC 9651).
const maxInteger = 999_999_999_999_999

// A quota is the state of a workspace's bucket after a call of take.
type quota struct {
	wait time.Duration // until there is a token; 0: one was taken
	left int           // tokens, all at once
	next time.Duration // until there is one more
}

// take takes a token, or returns how long until there is one.
func (l *limiter) take(workspace string, now time.Time) quota {
	if l == nil {
		return quota{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// requests overtake each other; a bucket set back in time would refill for the same interval twice
	if now.Before(l.latest) {
		now = l.latest
	}
	l.latest = now
	tokens := l.bucket(workspace, now)
	r := tokens.ReserveN(now, 1)
	wait := r.DelayFrom(now)
	if wait > 0 {
		r.CancelAt(now)
		return quota{wait: wait, next: wait}
	}
	whole, part := math.Modf(max(0, tokens.TokensAt(now)))
	return quota{left: int(whole), next: time.Duration((1 - part) / float64(l.rate) * float64(time.Second))}
}

// setHeaders writes the quota into the fields of draft-ietf-httpapi-ratelimit-headers-11.
func (l *limiter) setHeaders(h http.Header, q quota) {
	if l == nil {
		return
	}
	h["Ratelimit-Policy"] = []string{l.policy}
	b := append(make([]byte, 0, len(policyName)+32), policyName+";r="...)
	b = strconv.AppendInt(b, int64(q.left), 10)
	b = append(b, ";t="...)
	b = strconv.AppendInt(b, int64(wholeSeconds(q.next)), 10)
	h["Ratelimit"] = []string{string(b)}
}

// wholeSeconds rounds up, so that a sender that waits this long finds a token.
func wholeSeconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

func (l *limiter) bucket(workspace string, now time.Time) *rate.Limiter {
	if e, ok := l.buckets[workspace]; ok {
		l.recent.MoveToFront(e)
		b := e.Value.(*bucket)
		b.used = now
		return b.tokens
	}
	for e := l.recent.Back(); e != nil &&
		(now.Sub(e.Value.(*bucket).used) >= l.fill || len(l.buckets) >= l.max); e = l.recent.Back() {
		delete(l.buckets, l.recent.Remove(e).(*bucket).workspace)
	}
	b := &bucket{workspace: workspace, tokens: rate.NewLimiter(l.rate, l.burst), used: now}
	l.buckets[workspace] = l.recent.PushFront(b)
	return b.tokens
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/oracle"
	"tidemark/e2e/provider"
	"tidemark/e2e/rig"

	"golang.org/x/time/rate"
)

// traffic sends a history to several ingress instances, as a load balancer would, and observes every answer.
type traffic struct {
	history *gen.History
	sender  *provider.Sender
	pace    *rate.Limiter
	next    atomic.Int64
	out     sync.Map                     // *rig.Program: ingress instances out of rotation
	trickle atomic.Pointer[rate.Limiter] // beside pace: a waiter of a slow limiter does not notice a raised limit

	mu      sync.Mutex
	last200 map[int32]time.Time // by partition
	last    map[int32]int64     // the same: the largest offset that was answered
	left    map[int32]int       // the same: 200s to come
	windows map[*window]struct{}

	fresh atomic.Pointer[chan provider.Attempt] // receives the next first delivery that is answered 200

	done  chan struct{} // closed when all is sent
	notes [][]provider.Note
	err   error
}

// A window collects the answers between two moments.
type window struct {
	begin    time.Time
	ok, slow []time.Duration // of 200s, of 503s
	refused  int             // 5xx
	by       map[string]int  // the same, by URL
	unacked  map[string]int  // of them, those that brokers did not acknowledge in time
	broken   int             // no answer
	why      string          // of the last one
	gap      time.Duration   // longest time without a 200
	last     time.Time
}

func newTraffic(h *gen.History, ingress []*rig.Program) *traffic {
	t := &traffic{
		history: h, pace: rate.NewLimiter(100, 50), last200: map[int32]time.Time{}, last: map[int32]int64{},
		left: map[int32]int{}, windows: map[*window]struct{}{},
		done: make(chan struct{}),
	}
	for _, w := range h.Workspaces {
		p := int32(oracle.Partition("", w.ID, partitions))
		for _, d := range w.Deliveries {
			if !d.Refused {
				t.left[p]++
			}
		}
	}
	t.sender = &provider.Sender{
		Secret: secret, Pace: t.pace, Timeout: 5 * time.Second, Even: true, Enough: make(chan struct{}), Saw: t.saw,
		Client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}},
		URL: func() string { // the next instance that is in rotation
			for l := t.trickle.Load(); l != nil && l == t.trickle.Load() && !l.Allow(); {
				time.Sleep(20 * time.Millisecond)
			}
			for range ingress {
				if p := ingress[int(t.next.Add(1))%len(ingress)]; !t.isOut(p) {
					return p.URL
				}
			}
			return ingress[0].URL
		},
	}
	return t
}

func (t *traffic) isOut(p *rig.Program) bool {
	_, out := t.out.Load(p)
	return out
}

// run sends everything, and then closes done.
func (t *traffic) run(ctx context.Context) {
	defer close(t.done)
	t.notes, t.err = t.sender.Run(ctx, t.history)
}

func (t *traffic) sending() bool {
	select {
	case <-t.done:
		return false
	default:
		return true
	}
}

func (t *traffic) saw(a provider.Attempt) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := a.Delivery; a.Status == http.StatusOK && a.Number == 1 && !d.Resent && !d.Late {
		if c := t.fresh.Swap(nil); c != nil {
			*c <- a
		}
	}
	if a.Status == http.StatusOK {
		var partition int32
		var offset int64
		if _, err := fmt.Sscanf(a.Position, "%d:%d", &partition, &offset); err == nil {
			t.last200[partition] = now
			t.last[partition] = max(t.last[partition], offset)
			t.left[partition]--
		}
	}
	for w := range t.windows {
		switch {
		case a.Status == http.StatusOK:
			w.ok = append(w.ok, a.Took)
			w.gap = max(w.gap, now.Sub(w.last))
			w.last = now
		case a.Status >= 500:
			w.refused++
			w.by[a.URL]++
			if a.Code == "no_ack" {
				w.unacked[a.URL]++
			} else {
				w.why = fmt.Sprintf("%s after %v: %d %s", a.URL, a.Took, a.Status, a.Code)
			}
			w.slow = append(w.slow, a.Took)
		case a.Status == 0:
			w.broken++
			w.why = fmt.Sprintf("%s after %v: %v", a.URL, a.Took, a.Err)
		}
	}
}

// watch opens a window; the function closes it.
func (t *traffic) watch() (*window, func()) {
	now := time.Now()
	w := &window{begin: now, last: now, by: map[string]int{}, unacked: map[string]int{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.windows[w] = struct{}{}
	return w, sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.windows, w)
		w.gap = max(w.gap, time.Since(w.last))
	})
}

func p99(d []time.Duration) float64 {
	if len(d) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(d))
	return float64(sorted[len(sorted)*99/100].Microseconds()) / 1000
}

// awaitTraffic waits until 200s come.
func (t *traffic) awaitTraffic(ctx context.Context, limit time.Duration) error {
	before := t.sender.OK.Load()
	_, err := rig.Until(ctx, limit, func() (bool, error) {
		if t.sender.OK.Load() >= before+3 || t.sending() {
			return t.sender.OK.Load() >= before+3, nil
		}
		return false, errors.Join(errSent, t.err)
	})
	if err != nil {
		return fmt.Errorf("no traffic: %w", err)
	}
	return nil
}

// busyPartitions returns the partitions with a recent 200 and more to come.
func (t *traffic) busyPartitions() (busyPartitions []int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p, at := range t.last200 {
		if time.Since(at) < 10*time.Second && t.left[p] > 0 {
			busyPartitions = append(busyPartitions, p)
		}
	}
	return busyPartitions
}

// acked returns the largest acknowledged offset of each partition.
func (t *traffic) acked() map[int32]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.last)
}

// errSent means that all was sent before a fault ended, so that it measured nothing.
var errSent = errors.New("all was sent before it was over")

// next200 waits until each of the partitions with more to come has had a 200 since a moment, and returns how long the
// last of them took.
func (t *traffic) next200(ctx context.Context, since time.Time, partitions []int32,
	limit time.Duration,
) (time.Duration, error) {
	for {
		t.mu.Lock()
		var waiting []int32
		met := 0
		for _, p := range partitions {
			if t.last200[p].After(since) {
				met++
			} else if t.left[p] > 0 {
				waiting = append(waiting, p)
			}
		}
		t.mu.Unlock()
		if len(waiting) == 0 && met > 0 {
			return time.Since(since), nil
		}
		if len(waiting) == 0 || !t.sending() {
			return 0, errSent
		}
		if time.Since(since) > limit {
			return 0, fmt.Errorf("no 200 in partitions %v for %v", waiting, limit)
		}
		if err := rig.Sleep(ctx, 10*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

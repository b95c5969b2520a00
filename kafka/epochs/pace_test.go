package epochs

import (
	"testing"
	"testing/synctest"
	"time"
)

// While callbacks have a backlog, an epoch stays open for the interval, however long publishing took; without one it is
// closed at the next tenth of that.
func TestPace(t *testing.T) {
	for _, test := range []struct {
		backlog          bool
		publishing, want time.Duration // in ms
	}{{false, 30, 100}, {false, 310, 400}, {false, 510, 510}, {true, 30, 1000}, {true, 510, 1000}, {true, 2000, 2000}} {
		synctest.Test(t, func(t *testing.T) {
			p := &pace{interval: time.Second, worthWaiting: func() bool { return test.backlog }}
			p.await() // nothing was closed before
			if begin := time.Now(); p.closed != begin {
				t.Errorf("the first epoch was closed after %v", p.closed.Sub(begin))
			}
			before := p.closed
			time.Sleep(test.publishing * time.Millisecond)
			p.await()
			if got := p.closed.Sub(before); got != test.want*time.Millisecond {
				t.Errorf("%+v: closed after %v", test, got)
			}
			time.Sleep(5 * time.Second)
			idle := time.Now()
			if p.await(); p.closed != idle {
				t.Errorf("%+v: after a pause an epoch was closed after %v", test, p.closed.Sub(idle))
			}
		})
	}
}

package epochs

import (
	"testing"
	"testing/synctest"
	"time"
)

// While callbacks have a backlog, an epoch stays open for the interval; without one it is closed
// after a tenth of that.
func TestPace(t *testing.T) {
	for _, test := range []struct {
		backlog bool
		want    time.Duration
	}{{false, 100}, {true, 1000}} {
		synctest.Test(t, func(t *testing.T) {
			p := &pace{interval: time.Second, worthWaiting: func() bool { return test.backlog }}
			p.await() // nothing was closed before
			if begin := time.Now(); p.closed != begin {
				t.Errorf("the first epoch was closed after %v", p.closed.Sub(begin))
			}
			before := p.closed
			time.Sleep(30 * time.Millisecond)
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

package epochs

import "time"

// A pace decides when an epoch is closed. An input that is read as fast as it is written gets short epochs, for a short
// delay; a backlog gets long ones, because every batch costs the brokers about the same, however many records it has.
//
// Epochs are closed at multiples of a tenth of the interval by the wall clock, those of all partitions at the same
// moments. So their batches go to a broker in one request: at 1,600 events/s in eight partitions, 270 requests a second
// had 1,300 batches.
type pace struct {
	interval     time.Duration
	worthWaiting func() bool // more records wait for their callbacks, and the epoch has room for them
	stop, failed <-chan struct{}
	closed       time.Time // when await last returned
}

// An epoch may be closed paceSteps times in the interval. After idleSteps without one, the next is closed at once.
const (
	paceSteps = 10
	idleSteps = 4
)

// await returns when the open epoch should be closed. It returns at once when the publisher stops or has failed.
func (t *pace) await() {
	step := max(t.interval/paceSteps, 1)
	if open := time.Since(t.closed); open < idleSteps*step || open < t.interval && t.worthWaiting() {
		for t.wait(step-time.Duration(time.Now().UnixNano())%step) &&
			time.Since(t.closed) < t.interval && t.worthWaiting() {
		}
	}
	t.closed = time.Now()
}

// wait waits, and reports false when the publisher stops or has failed.
func (t *pace) wait(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.stop:
	case <-t.failed:
	}
	return false
}

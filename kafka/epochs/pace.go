package epochs

import "time"

// A pace decides when an epoch is closed. An input that is read as fast as it is written gets short epochs, for a short
// delay; a backlog gets long ones, because every batch costs the brokers about the same, however many records it has.
type pace struct {
	interval     time.Duration
	worthWaiting func() bool // more records wait for their callbacks, and the epoch has room for them
	stop, failed <-chan struct{}
	closed       time.Time // when await last returned
}

// paceSteps is how many times an epoch may be closed in the interval.
const paceSteps = 10

// await returns when the open epoch should be closed: a tenth of the interval after the last one, and as long as that
// is worth waiting, the whole interval. It returns at once when the publisher stops or has failed.
func (t *pace) await() {
	step := t.interval / paceSteps
	for next := t.closed.Add(step); t.wait(time.Until(next)); next = next.Add(step) {
		if time.Since(t.closed) >= t.interval || !t.worthWaiting() {
			break
		}
	}
	t.closed = time.Now()
}

// wait waits, and reports false when the publisher stops or has failed.
func (t *pace) wait(pause time.Duration) bool {
	if pause <= 0 {
		return true
	}
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

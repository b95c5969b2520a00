package ingress

import (
	"context"
	"errors"
)

// An inFlightLimit bounds the events that were given to the producer and are not acknowledged yet: all of them, and
// those of each partition. A partition without a leader acknowledges nothing until an election, or until its only
// broker is back. Its events must not take the places of all other partitions.
type inFlightLimit struct {
	total      *semaphore
	partitions []*semaphore
}

// partitionShare returns how much of a bound one of n partitions may take: twice an equal share. One busy workspace
// gets that far, and the partitions of one broker of three leave a third of the places to the others.
func partitionShare(bound int64, n int) int64 {
	if n <= 2 {
		return bound
	}
	return max(1, (2*bound+int64(n)-1)/int64(n))
}

func newInFlightLimit(maxCount int, maxBytes int64, partitions int) *inFlightLimit {
	l := &inFlightLimit{total: newSemaphore(maxCount, maxBytes), partitions: make([]*semaphore, partitions)}
	n := len(l.partitions)
	for i := range l.partitions {
		l.partitions[i] = newSemaphore(int(partitionShare(int64(maxCount), n)), partitionShare(maxBytes, n))
	}
	return l
}

// errPartitionFull: the events in flight of one partition reached its share; other partitions have room.
var errPartitionFull = errors.New("too many events of one partition are in flight")

// acquire takes a place for an event of size bytes, until release is called with the same arguments.
func (l *inFlightLimit) acquire(partition int32, size int) error {
	if l.partitions[partition].acquire(size) != nil { // it is never closed
		if l.total.draining() {
			return errClosed
		}
		return errPartitionFull
	}
	if err := l.total.acquire(size); err != nil {
		l.partitions[partition].release(size)
		return err
	}
	return nil
}

func (l *inFlightLimit) release(partition int32, size int) {
	l.partitions[partition].release(size)
	l.total.release(size)
}

func (l *inFlightLimit) usage() (count int, bytes int64) { return l.total.usage() }
func (l *inFlightLimit) drain(ctx context.Context) error { return l.total.drain(ctx) }
func (l *inFlightLimit) draining() bool                  { return l.total.draining() }

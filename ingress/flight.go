package ingress

import (
	"context"
	"errors"

	"tidemark/kafka"
)

// A flight is what was handed to the log and is not acknowledged yet. It bounds all of it, and what each partition has of it: a
// partition without a leader acknowledges nothing, for an election or until its only broker is back, and may not keep the events
// of all others out.
type flight struct {
	whole *gate
	parts []*gate // by partition
}

// shareOf is how much of a bound one of n partitions may have: twice what it would have if all had the same, so that one workspace
// alone gets far, and a third of the partitions, those of one broker of three, leave a third of the places.
func shareOf(bound int64, n int) int64 {
	if n <= 2 {
		return bound
	}
	return max(1, (2*bound+int64(n)-1)/int64(n))
}

func newFlight(maxCount int, maxBytes int64, partitions int) *flight {
	f := &flight{whole: newGate(maxCount, maxBytes), parts: make([]*gate, max(1, partitions))}
	for i := range f.parts {
		f.parts[i] = newGate(int(shareOf(int64(maxCount), len(f.parts))), shareOf(maxBytes, len(f.parts)))
	}
	return f
}

// errPartitionFull says that a partition has its share; there is room for others.
var errPartitionFull = errors.New("too much of one partition is in flight")

// enter takes a place for an event of size bytes, until leave is called.
func (f *flight) enter(workspace string, size int) (leave func(), err error) {
	part := f.parts[kafka.Partition(workspace, len(f.parts))]
	if part.enter(size) != nil { // it is never closed
		if f.whole.draining() {
			return nil, errClosed
		}
		return nil, errPartitionFull
	}
	if err := f.whole.enter(size); err != nil {
		part.leave(size)
		return nil, err
	}
	return func() {
		part.leave(size)
		f.whole.leave(size)
	}, nil
}

func (f *flight) inFlight() (count int, bytes int64) { return f.whole.inFlight() }
func (f *flight) drain(ctx context.Context) error    { return f.whole.drain(ctx) }
func (f *flight) draining() bool                     { return f.whole.draining() }

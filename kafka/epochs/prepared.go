package epochs

import (
	"context"
	"sync"

	"github.com/lovoo/goka"
	"golang.org/x/sync/semaphore"
)

// How much of an input's partition is read ahead of its callbacks.
const (
	prefetchRecords   = 256
	prefetchBytes     = 4 << 20
	saramaChannelSize = 16 // records that sarama buffers besides; it does not count bytes
)

// A preparedQueue passes what Prepare returned for a record to the record's callback. goka transports bytes only, so
// without it the callback would decode the record a second time. A partition's callbacks run in offset order, so a
// queue is enough.
type preparedQueue struct {
	room  *semaphore.Weighted // bytes
	mu    sync.Mutex
	queue []preparedRecord
}

type preparedRecord struct {
	offset  int64
	size    int64 // reserved
	message any
}

// reserve waits until there is room for a record of so many bytes, or ctx ends, and returns the size to put it with. A
// record that is larger than the queue gets all of it.
func (q *preparedQueue) reserve(ctx context.Context, bytes int) (size int64, err error) {
	size = int64(min(bytes, prefetchBytes))
	return size, q.room.Acquire(ctx, size)
}

func (q *preparedQueue) put(offset, size int64, message any) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.queue = append(q.queue, preparedRecord{offset, size, message})
}

// take returns what was prepared for the offset, and drops it and everything before it.
func (q *preparedQueue) take(offset int64) (message any, found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queue) > 0 {
		first := q.queue[0]
		if first.offset > offset {
			return nil, false
		}
		q.queue[0] = preparedRecord{}
		q.queue = q.queue[1:]
		q.room.Release(first.size)
		if first.offset == offset {
			return first.message, true
		}
	}
	return nil, false
}

// openPreparedQueue replaces the queue of an input's partition with an empty one, for a new session.
func (e *Epochs) openPreparedQueue(of partitionID) *preparedQueue {
	e.mu.Lock()
	defer e.mu.Unlock()
	q := &preparedQueue{room: semaphore.NewWeighted(prefetchBytes)}
	e.preparedQueues[of] = q
	return q
}

// takePrepared returns what Prepare returned for the record of a callback; nil when there is no Prepare.
func (e *Epochs) takePrepared(ctx goka.Context) (message any, found bool) {
	e.mu.RLock()
	q := e.preparedQueues[partitionID{string(ctx.Topic()), ctx.Partition()}]
	e.mu.RUnlock()
	if q == nil {
		return nil, false
	}
	return q.take(ctx.Offset())
}

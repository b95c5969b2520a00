package epochs

import (
	"context"
	"sync"

	"github.com/lovoo/goka"
	"golang.org/x/sync/semaphore"
)

// How much of an input's partition is read ahead of its callbacks.
const (
	prefetchRecords   = 256 // records
	prefetchBytes     = 4 << 20
	saramaChannelSize = 16 // records that sarama holds beside those; it counts no bytes
)

// An inbox hands what was prepared for a record to its callback. goka carries bytes only, and would have the callback decode
// them again; a partition's callbacks run in the order of its records, so a queue is enough.
type preparedQueue struct {
	room  *semaphore.Weighted // bytes
	mu    sync.Mutex
	queue []preparedRecord
}

type preparedRecord struct {
	offset  int64
	size    int64
	message any
}

// wait returns when there is room for a record of so many bytes, and what it takes of it, or with an error when ctx ends. One that
// is larger than the inbox has it for itself.
func (i *preparedQueue) reserve(ctx context.Context, bytes int) (size int64, err error) {
	size = int64(min(bytes, prefetchBytes))
	return size, i.room.Acquire(ctx, size)
}

func (i *preparedQueue) put(offset, size int64, message any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue = append(i.queue, preparedRecord{offset, size, message})
}

// take returns what was prepared for the offset, and forgets it and everything before it.
func (i *preparedQueue) take(offset int64) (message any, found bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.queue) > 0 {
		l := i.queue[0]
		if l.offset > offset {
			return nil, false
		}
		i.queue[0] = preparedRecord{}
		i.queue = i.queue[1:]
		i.room.Release(l.size)
		if l.offset == offset {
			return l.message, true
		}
	}
	return nil, false
}

// openInbox starts a session's inbox of an input's partition in the place of the last one's.
func (e *Epochs) openPreparedQueue(of partitionID) *preparedQueue {
	e.mu.Lock()
	defer e.mu.Unlock()
	in := &preparedQueue{room: semaphore.NewWeighted(prefetchBytes)}
	e.preparedQueues[of] = in
	return in
}

// prepared returns what Prepare made of the record that the callback is called for, nil when there is no Prepare.
func (e *Epochs) takePrepared(ctx goka.Context) (message any, found bool) {
	e.mu.RLock()
	in := e.preparedQueues[partitionID{string(ctx.Topic()), ctx.Partition()}]
	e.mu.RUnlock()
	if in == nil {
		return nil, false
	}
	return in.take(ctx.Offset())
}

package epochs

import (
	"context"
	"sync"

	"github.com/lovoo/goka"
	"golang.org/x/sync/semaphore"
)

// How much of an input's partition is read ahead of its callbacks.
const (
	inboxSize  = 256 // records
	inboxBytes = 4 << 20
	fetchAhead = 16 // records that sarama holds beside those; it counts no bytes
)

// An inbox hands what was prepared for a record to its callback. goka carries bytes only, and would have the callback decode
// them again; a partition's callbacks run in the order of its records, so a queue is enough.
type inbox struct {
	room  *semaphore.Weighted // bytes
	mu    sync.Mutex
	queue []letter
}

type letter struct {
	offset  int64
	size    int64
	message any
}

// wait returns when there is room for a record of so many bytes, and what it takes of it, or with an error when ctx ends. One that
// is larger than the inbox has it for itself.
func (i *inbox) wait(ctx context.Context, bytes int) (size int64, err error) {
	size = int64(min(bytes, inboxBytes))
	return size, i.room.Acquire(ctx, size)
}

func (i *inbox) put(offset, size int64, message any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue = append(i.queue, letter{offset, size, message})
}

// take returns what was prepared for the offset, and forgets it and everything before it.
func (i *inbox) take(offset int64) (message any, found bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.queue) > 0 {
		l := i.queue[0]
		if l.offset > offset {
			return nil, false
		}
		i.queue[0] = letter{}
		i.queue = i.queue[1:]
		i.room.Release(l.size)
		if l.offset == offset {
			return l.message, true
		}
	}
	return nil, false
}

// openInbox starts a session's inbox of an input's partition in the place of the last one's.
func (e *Epochs) openInbox(of partitionID) *inbox {
	e.mu.Lock()
	defer e.mu.Unlock()
	in := &inbox{room: semaphore.NewWeighted(inboxBytes)}
	e.inboxes[of] = in
	return in
}

// prepared returns what Prepare made of the record that the callback is called for, nil when there is no Prepare.
func (e *Epochs) prepared(ctx goka.Context) (message any, found bool) {
	e.mu.RLock()
	in := e.inboxes[partitionID{string(ctx.Topic()), ctx.Partition()}]
	e.mu.RUnlock()
	if in == nil {
		return nil, false
	}
	return in.take(ctx.Offset())
}

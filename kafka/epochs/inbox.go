package epochs

import (
	"sync"

	"github.com/lovoo/goka"
)

// An inbox hands what was prepared for a record to its callback. goka carries bytes only, and would have the callback decode
// them again; a partition's callbacks run in the order of its records, so a queue is enough.
type inbox struct {
	mu    sync.Mutex
	queue []letter
}

type letter struct {
	offset  int64
	message any
}

func (i *inbox) put(offset int64, message any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue = append(i.queue, letter{offset, message})
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
	in := &inbox{}
	e.inboxes[of] = in
	return in
}

// prepared returns what Prepare made of the record that the callback is called for.
func (e *Epochs) prepared(ctx goka.Context) (message any, found bool) {
	e.mu.RLock()
	in := e.inboxes[partitionID{string(ctx.Topic()), ctx.Partition()}]
	e.mu.RUnlock()
	if in == nil {
		return nil, false
	}
	return in.take(ctx.Offset())
}

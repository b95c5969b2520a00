package epochs

import (
	"context"
	"sync"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"golang.org/x/sync/semaphore"
)

// How much of an input's partition is read ahead of its callbacks.
const (
	prefetchRecords   = 256
	prefetchBytes     = 4 << 20
	saramaChannelSize = 16 // records that sarama buffers besides; it does not count bytes
)

// Prepare decodes a record for its callback. It may replace the key, but not change the partition. It must not write
// into the bytes of the old key, which share memory with other records.
type Prepare func(record *sarama.ConsumerMessage) (message any)

type partitionID struct {
	topic  string
	number int32
}

// An input is one partition of an input topic during one session. It passes what Prepare returned for a record to the
// record's callback: goka transports bytes only, so without it the callback would decode the record a second time. A
// partition's callbacks run in offset order, so a queue is enough.
//
// Offsets need not be consecutive: compaction and transaction markers leave gaps.
type input struct {
	room *semaphore.Weighted // bytes

	mu       sync.Mutex
	queue    []preparedRecord
	next     int64 // the next record has this offset or a later one; 0 or less: not known
	returned int64 // the callbacks of all records below it have returned
}

type preparedRecord struct {
	offset  int64
	size    int64 // reserved
	message any
}

// newInput returns an input whose first record has the offset next or a later one, if that is known.
func newInput(next int64) *input {
	return &input{room: semaphore.NewWeighted(prefetchBytes), next: next, returned: next}
}

// reserve waits until there is room for a record of so many bytes, or ctx ends, and returns the size to put it with. A
// record that is larger than the queue gets all of it.
func (i *input) reserve(ctx context.Context, bytes int) (size int64, err error) {
	size = int64(min(bytes, prefetchBytes))
	return size, i.room.Acquire(ctx, size)
}

// put queues a record that goka gets next. Offsets must ascend.
func (i *input) put(offset, size int64, message any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.queue = append(i.queue, preparedRecord{offset, size, message})
	i.next = offset + 1
}

// take returns what was prepared for the offset, and drops it and everything before it.
func (i *input) take(offset int64) (message any, found bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.queue) > 0 {
		first := i.queue[0]
		if first.offset > offset {
			return nil, false
		}
		i.queue[0] = preparedRecord{}
		i.queue = i.queue[1:]
		i.room.Release(first.size)
		if first.offset == offset {
			return first.message, true
		}
	}
	return nil, false
}

// callbackReturned notes that the callback of a record has returned.
func (i *input) callbackReturned(offset int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.returned = offset + 1
}

// position returns the next offset to read, and whether the callbacks of all records that were read have returned.
func (i *input) position() (next int64, idle bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.next, i.next > 0 && i.returned == i.next
}

// waiting returns how many records wait for their callbacks.
func (i *input) waiting() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.queue)
}

// skip moves the position on, because there are no records from the old to the new one, and calls commit. It does
// nothing when a record was read since position returned from.
func (i *input) skip(from, to int64, commit func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != from || i.returned != from {
		return
	}
	i.next, i.returned = to, to
	commit() // with i.mu locked: the commit of a record that is read now must come after this one
}

// openInput replaces the input of a partition with an empty one, for a new session.
func (e *Epochs) openInput(of partitionID, next int64) *input {
	i := newInput(next)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inputs[of] = i
	return i
}

// inputOf returns the input that a callback's record was read from.
func (e *Epochs) inputOf(ctx goka.Context) *input {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.inputs[partitionID{string(ctx.Topic()), ctx.Partition()}]
}

// backlogRecords is how many records must wait for their callbacks until that is a backlog.
const backlogRecords = prefetchRecords / 8

// backlog reports whether callbacks of a partition are slower than its records arrive.
func (e *Epochs) backlog(partition int32) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for id, i := range e.inputs {
		if id.number == partition && i.waiting() >= backlogRecords {
			return true
		}
	}
	return false
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrRevoked is the error of AssignedPartition.Next when the partition goes to another member, or Run ends.
var ErrRevoked = errors.New("the partition is revoked")

// An AssignedPartition is one assigned partition. A goroutine of its own gives its records to the handler.
type AssignedPartition struct {
	topicPartition
	consumer *Consumer
	client   *kgo.Client
	ctx      context.Context // of the handler
	cancel   context.CancelFunc
	stopping chan struct{} // closed: no batch after this one
	done     chan struct{} // closed: no handler is running
	added    chan struct{}
	located  chan struct{} // closed: begin is known

	mu     sync.Mutex
	queue  []*kgo.Record // fetched and not delivered, control records included
	bytes  int           // of queue and of the last batch
	batch  int           // bytes of the last batch, which the handler may still have
	paused bool

	unhandled []delivered     // batches with a record that is not handled
	delivered kgo.EpochOffset // after the last record delivered and the control records behind it
	last      int64           // the offset of the last record delivered; negative: none
	// nextOffset is after the last record handled; at first the committed offset, or unlocated until that is known.
	nextOffset int64
	begin      int64 // nextOffset at first
}

// A delivered batch is remembered by its offsets, and the time of its first record.
type delivered struct {
	first, last int64
	at          time.Time
}

// unlocated is the nextOffset of a partition until its committed offset is known. If the group has none, nextOffset is
// negative too, but higher.
const unlocated = -1 << 62

func newPartition(c *Consumer, client *kgo.Client, at topicPartition) *AssignedPartition {
	ctx, cancel := context.WithCancel(context.Background())
	return &AssignedPartition{
		topicPartition: at, consumer: c, client: client, ctx: ctx, cancel: cancel,
		stopping: make(chan struct{}), done: make(chan struct{}), added: make(chan struct{}, 1),
		located: make(chan struct{}), last: -1, nextOffset: unlocated, begin: unlocated,
	}
}

// Topic returns the name of the partition's topic.
func (p *AssignedPartition) Topic() string { return p.topic }

// Number returns the number of the partition in its topic.
func (p *AssignedPartition) Number() int32 { return p.partition }

// run calls the handler. A handler that was cancelled leaves its records to the next owner; other errors end Run.
func (p *AssignedPartition) run() {
	defer close(p.done)
	err := p.consumer.handle(p.ctx, p)
	switch {
	case p.ctx.Err() != nil:
		p.consumer.log.Warn("handler cancelled, its records will be delivered again",
			"group", p.consumer.config.Group, "error", err)
	case err == nil:
		p.consumer.fail(fmt.Errorf("the handler of partition %d of %s has returned", p.partition, p.topic))
	case !errors.Is(err, ErrRevoked):
		p.consumer.fail(fmt.Errorf("handle partition %d of %s: %w", p.partition, p.topic, err))
	}
}

// Next returns the records that follow, at least one and at most BatchRecords, and waits for them. Until the next call
// they count as buffered. The error is ErrRevoked, after which there are no more, or that of ctx.
func (p *AssignedPartition) Next(ctx context.Context) ([]*kgo.Record, error) {
	for {
		p.release()
		select {
		case <-p.stopping:
			return nil, ErrRevoked
		default:
		}
		if batch := p.take(); len(batch) > 0 {
			return batch, nil
		}
		select {
		case <-p.added:
		case <-p.stopping:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Revoked is closed when the partition goes to another member, or Run ends. The handler has some time after that.
func (p *AssignedPartition) Revoked() <-chan struct{} { return p.stopping }

// Handled marks r and all records before it for the next commit: they do not come again.
func (p *AssignedPartition) Handled(r *kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.unhandled) > 0 && p.unhandled[0].last <= r.Offset {
		p.unhandled = p.unhandled[1:]
	}
	if r.Offset == p.last {
		p.mark(p.delivered)
		return
	}
	p.mark(kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1})
}

func (p *AssignedPartition) mark(next kgo.EpochOffset) {
	p.nextOffset = next.Offset
	p.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.partition: next}})
}

func (p *AssignedPartition) locate(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nextOffset == unlocated {
		p.begin = offset
		close(p.located)
	}
	p.nextOffset = offset
}

// Begin returns the committed offset with which the partition was assigned, negative if there was none. It waits until
// that is known, or the partition is revoked.
func (p *AssignedPartition) Begin() int64 {
	select {
	case <-p.located:
	case <-p.stopping:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.begin
}

// add queues fetched records, and pauses fetching when the buffer is full.
func (p *AssignedPartition) add(records []*kgo.Record) {
	detach(records)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue = append(p.queue, records...)
	for _, r := range records {
		p.bytes += size(r)
	}
	if !p.paused && p.bytes >= p.consumer.config.BufferBytes {
		p.paused = true
		p.client.PauseFetchPartitions(map[string][]int32{p.topic: {p.partition}})
	}
	select {
	case p.added <- struct{}{}:
	default:
	}
}

// take removes the next batch from the queue, empty if there is none. Control records that are not delivered are
// committed with the record before them.
func (p *AssignedPartition) take() (batch []*kgo.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(batch) < p.consumer.config.BatchRecords && len(p.queue) > 0 {
		r := p.queue[0]
		p.queue[0], p.queue = nil, p.queue[1:]
		p.batch += size(r)
		p.delivered = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}
		if !r.Attrs.IsControl() || p.consumer.config.ControlRecords {
			batch = append(batch, r)
			p.last = r.Offset
		}
	}
	switch {
	case len(batch) > 0:
		p.unhandled = append(p.unhandled, delivered{batch[0].Offset, p.last, batch[0].Timestamp})
	case p.batch > 0 && len(p.unhandled) == 0:
		p.mark(p.delivered)
	}
	return batch
}

// release frees the buffer of the last batch, and resumes fetching when there is room.
func (p *AssignedPartition) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes, p.batch = p.bytes-p.batch, 0
	if p.paused && p.bytes < p.consumer.config.BufferBytes/2 {
		p.paused = false
		p.client.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
	}
}

// next returns the offset of the next record to handle, and its age if it was fetched: of a batch that is handled in
// part, that of its first record. The offset is negative if it is unknown (unlocated), or if the group has no committed
// offset and no record was received yet.
func (p *AssignedPartition) next() (offset int64, age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.unhandled) > 0 {
		oldest := p.unhandled[0]
		return max(oldest.first, p.nextOffset), max(0, time.Since(oldest.at))
	}
	for _, r := range p.queue {
		if !r.Attrs.IsControl() {
			return r.Offset, max(0, time.Since(r.Timestamp))
		}
	}
	return p.nextOffset, 0
}

// size is about what a record takes in memory.
func size(r *kgo.Record) int { return payload(r) + 256 + 64*len(r.Headers) }

func payload(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Value)
	}
	return n
}

// detach copies the records' bytes, so that they do not pin the fetch response in memory. The response has records of
// other partitions too, and one record of a blocked partition would keep all of it.
func detach(records []*kgo.Record) {
	total := 0
	for _, r := range records {
		total += payload(r)
	}
	memory := make([]byte, 0, total)
	copied := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		memory = append(memory, b...)
		return memory[len(memory)-len(b) : len(memory) : len(memory)]
	}
	for _, r := range records {
		r.Key, r.Value = copied(r.Key), copied(r.Value)
		for i := range r.Headers {
			r.Headers[i].Value = copied(r.Headers[i].Value)
		}
	}
}

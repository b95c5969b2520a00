package kafka

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// An assigned partition has a goroutine that gives its records to the handler.
type assigned struct {
	topicPartition
	consumer *Consumer
	client   *kgo.Client
	ctx      context.Context // of the handler
	cancel   context.CancelFunc
	stopping chan struct{} // closed: no batch after this one
	done     chan struct{} // closed: no handler is running
	added    chan struct{}

	mu         sync.Mutex
	queue      []*kgo.Record // not handled, control records included; the handler has the first of them
	bytes      int           // of queue
	paused     bool
	nextOffset int64 // after the last record handled; at first the committed offset, or unlocated until that is known
}

// unlocated is the nextOffset of a partition until its committed offset is known. If the group has none, nextOffset is
// negative too, but higher.
const unlocated = -1 << 62

func newAssigned(c *Consumer, client *kgo.Client, at topicPartition) *assigned {
	ctx, cancel := context.WithCancel(context.Background())
	return &assigned{
		topicPartition: at, consumer: c, client: client, ctx: ctx, cancel: cancel, nextOffset: unlocated,
		stopping: make(chan struct{}), done: make(chan struct{}), added: make(chan struct{}, 1),
	}
}

func (p *assigned) run() {
	defer close(p.done)
	for {
		select {
		case <-p.stopping:
			return
		default:
		}
		batch, covered := p.peek()
		if covered == 0 {
			select {
			case <-p.added:
			case <-p.stopping:
			}
			continue
		}
		if len(batch) > 0 {
			if err := p.consumer.handle(p.ctx, batch); err != nil {
				p.failed(fmt.Errorf("handle partition %d of %s from offset %d: %w",
					p.partition, p.topic, batch[0].Offset, err))
				return
			}
		}
		p.handled(covered)
	}
}

// failed ends Run, unless the handler was cancelled, which leaves its batch to the next owner.
func (p *assigned) failed(err error) {
	if p.ctx.Err() != nil {
		p.consumer.log.Warn("handler cancelled, its batch will be delivered again",
			"group", p.consumer.config.Group, "error", err)
		return
	}
	p.consumer.fail(err)
}

func (p *assigned) locate(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextOffset = offset
}

// add queues fetched records, and pauses fetching when the buffer is full.
func (p *assigned) add(records []*kgo.Record) {
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

// peek returns the next batch, and how many records of the queue it covers. Control records are not delivered.
func (p *assigned) peek() (batch []*kgo.Record, covered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	covered = min(len(p.queue), p.consumer.config.BatchRecords)
	for _, r := range p.queue[:covered] {
		if !r.Attrs.IsControl() {
			batch = append(batch, r)
		}
	}
	return batch, covered
}

// handled removes the first records of the queue and marks them for the next commit.
func (p *assigned) handled(covered int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.queue[covered-1]
	p.nextOffset = last.Offset + 1
	for i, r := range p.queue[:covered] {
		p.bytes -= size(r)
		p.queue[i] = nil
	}
	p.queue = p.queue[covered:]
	next := kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: last.Offset + 1}
	p.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{p.topic: {p.partition: next}})
	if p.paused && p.bytes < p.consumer.config.BufferBytes/2 {
		p.paused = false
		p.client.ResumeFetchPartitions(map[string][]int32{p.topic: {p.partition}})
	}
}

// next returns the offset of the next record to handle, and its age if it was fetched. The offset is negative if it is
// unknown (unlocated), or if the group has no committed offset and no record was received yet.
func (p *assigned) next() (offset int64, age time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
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

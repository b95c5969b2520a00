package deadletters

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/topology"
)

// A Counter counts the open dead letters: neither replayed nor dropped, and not expired. It reads the topic once from
// its beginning and then follows it, and needs some 150 bytes of memory for each entry.
type Counter struct {
	queue *Queue
	log   *slog.Logger

	mu    sync.Mutex
	open  int64
	known bool
}

// NewCounter returns a Counter that does nothing until Run.
func NewCounter(q *Queue, log *slog.Logger) *Counter { return &Counter{queue: q, log: log} }

// Open returns how many dead letters are open, as far as they have been read; ok is false until they were read once.
func (c *Counter) Open() (n int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.known
}

const (
	restartPause = 5 * time.Second  // after a failure
	expireEvery  = 10 * time.Second // how often entries that retention has deleted are removed from the count
)

// Run counts until ctx ends. After a failure it starts over: nothing depends on the count, so an error is only logged.
func (c *Counter) Run(ctx context.Context) error {
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.log.WarnContext(ctx, "the dead letters cannot be counted, trying again",
			"pause", restartPause.String(), "error", err)
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow reads the topic from its beginning until something fails.
func (c *Counter) follow(ctx context.Context) error {
	topic := c.queue.streams.DLQ.Name
	spans, err := kafka.Extent(ctx, c.queue.kafka, topic)
	if err != nil {
		return err
	}
	count := &count{
		queue: c.queue, entries: map[Source][]counted{}, unread: map[int32]int64{}, starts: map[int32]int64{},
	}
	for partition, span := range spans {
		if span.From < span.To {
			count.unread[partition] = span.To
		}
	}
	follower, err := kafka.Follow(c.queue.kafka, topic, spans)
	if err != nil {
		return err
	}
	defer follower.Close()
	for expired := time.Now(); ; {
		c.publish(count)
		poll, cancel := context.WithTimeout(ctx, expireEvery)
		records, err := follower.Poll(poll)
		waited := poll.Err() != nil // nothing came within expireEvery
		cancel()
		if err != nil && (ctx.Err() != nil || !waited) {
			return err
		}
		for _, r := range records {
			count.add(r)
		}
		if time.Since(expired) >= expireEvery {
			expired = time.Now()
			starts, err := follower.Starts(ctx)
			if err != nil {
				continue // expiry waits for the next time
			}
			for partition, start := range starts {
				count.expire(partition, start)
			}
		}
	}
}

// publish makes the count visible once everything that was there at the start has been read.
func (c *Counter) publish(n *count) {
	if len(n.unread) > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.known = n.open, true
}

// A count is the state after the records read so far.
type count struct {
	queue   *Queue
	entries map[Source][]counted
	unread  map[int32]int64 // the end offsets at the start, of the partitions that were not read up to them yet
	starts  map[int32]int64 // the partitions' first offsets when entries last expired
	open    int64
}

// A counted is an entry. Several with the same source position come from different logs: the source topic was
// recreated.
type counted struct {
	print    uint64
	first    dlqPosition // of its records in the dead-letter topic
	last     dlqPosition
	resolved bool
}

func (n *count) add(r *kgo.Record) {
	if end, unread := n.unread[r.Partition]; unread && r.Offset+1 >= end {
		delete(n.unread, r.Partition)
	}
	if r.Attrs.IsControl() {
		return
	}
	headers := headersOf(r)
	source := sourceOf(r, headers)
	entries, at := n.entries[source], dlqPosition{r.Partition, r.Offset}
	if headers[topology.HeaderResolved] != "" {
		for i := range entries {
			if e := entries[i]; !e.resolved && resolves(r, headers, e.first, e.last) {
				entries[i].resolved = true
				n.open--
			}
		}
		return
	}
	print := n.queue.fingerprint(r)
	if newest := len(entries) - 1; newest >= 0 && entries[newest].print == print { // dead-lettered again
		entries[newest].last = at
		return
	}
	n.entries[source] = append(entries, counted{print: print, first: at, last: at})
	n.open++
}

// expire forgets the entries of a partition before its start.
func (n *count) expire(partition int32, start int64) {
	if start <= n.starts[partition] {
		return
	}
	n.starts[partition] = start
	if start >= n.unread[partition] {
		delete(n.unread, partition)
	}
	for source, entries := range n.entries {
		kept := entries[:0]
		for _, e := range entries {
			if e.last.partition != partition || e.last.offset >= start {
				kept = append(kept, e)
			} else if !e.resolved {
				n.open--
			}
		}
		if n.entries[source] = kept; len(kept) == 0 {
			delete(n.entries, source)
		}
	}
}

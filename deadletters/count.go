package deadletters

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/topology"
)

// A Counter follows the dead letters and knows how many are open: neither replayed nor dropped, and not expired. It reads the
// topic once from its beginning, and keeps some 150 bytes for each entry.
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

// The pauses of a Counter: before it begins anew after a failure, and between two looks at what has expired.
const (
	countAgain  = 5 * time.Second
	expireEvery = 10 * time.Second
)

// Run counts until ctx ends. Nobody waits for the count, so a failure is logged, and it begins anew.
func (c *Counter) Run(ctx context.Context) error {
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.log.WarnContext(ctx, "the dead letters cannot be counted, trying again", "pause", countAgain.String(), "error", err)
		select {
		case <-time.After(countAgain):
		case <-ctx.Done():
			return nil
		}
	}
}

// follow reads from the beginning and on, until something fails.
func (c *Counter) follow(ctx context.Context) error {
	topic := c.queue.streams.DLQ.Name
	spans, err := kafka.Extent(ctx, c.queue.kafka, topic)
	if err != nil {
		return err
	}
	count, from := &count{queue: c.queue, entries: map[Source][]counted{}, unread: map[int32]int64{}}, map[int32]kgo.Offset{}
	for partition, span := range spans {
		from[partition] = kgo.NewOffset().At(span.From)
		if span.From < span.To {
			count.unread[partition] = span.To
		}
	}
	opts, err := c.queue.kafka.Franz()
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
	)...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	for looked := time.Now(); ; {
		c.tell(count)
		poll, cancel := context.WithTimeout(ctx, expireEvery)
		fetches := client.PollFetches(poll)
		cancel()
		for _, failed := range fetches.Errors() {
			if ctx.Err() != nil || !errors.Is(failed.Err, context.DeadlineExceeded) {
				return fmt.Errorf("read partition %d of %s: %w", failed.Partition, topic, failed.Err)
			}
		}
		fetches.EachRecord(count.add)
		if time.Since(looked) >= expireEvery {
			looked = time.Now()
			starts, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
			if err == nil { // else the next time
				starts.Each(count.expire)
			}
		}
	}
}

func (c *Counter) tell(n *count) {
	if len(n.unread) > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open, c.known = n.open, true
}

// A count is what was read of the dead letters.
type count struct {
	queue   *Queue
	entries map[Source][]counted
	unread  map[int32]int64 // where partitions ended when the reading began, until it has come there
	starts  map[int32]int64 // what has expired
	open    int64
}

// A counted is an entry; of several at one source position each is of another log.
type counted struct {
	print    uint64
	first    position // of its records
	last     position
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
	entries, at := n.entries[source], position{r.Partition, r.Offset}
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

// expire forgets what lies before a partition's beginning.
func (n *count) expire(start kadm.ListedOffset) {
	if start.Err != nil || start.Offset <= n.starts[start.Partition] {
		return
	}
	if n.starts == nil {
		n.starts = map[int32]int64{}
	}
	n.starts[start.Partition] = start.Offset
	if start.Offset >= n.unread[start.Partition] {
		delete(n.unread, start.Partition)
	}
	for source, entries := range n.entries {
		kept := entries[:0]
		for _, e := range entries {
			if e.last.partition != start.Partition || e.last.offset >= start.Offset {
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

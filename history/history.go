// Package history keeps the notices of a time on this instance's disk, and returns from them what a file or a workspace
// was at a position of the events topic.
//
// It reads fastio-notify without a group. Notices may be repeated and reordered: each is kept once, by its position, so
// what the package returns does not depend on repetitions. It says from which position on it has all notices, and
// returns nothing about positions before that. It knows no rows: the caller has them, and asks only about files that
// have changed since. It writes to no topic.
package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
	"tidemark/topology"
)

// Config has the settings of a Copy.
type Config struct {
	Kafka   kafka.Config
	Streams topology.Streams
	Dir     string        // of the local store; used by one process at a time
	Keep    time.Duration // how long a notice is kept after it was written; at most the retention of the topic
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// A Copy keeps the notices of all partitions.
type Copy struct {
	conf       Config
	metrics    *metrics
	partitions []*partition

	mu    sync.RWMutex // locked for writing while the store opens or closes
	store *localstore.Store
	pin   string // of the open store
	logID string // of the events topic that the positions are in
}

// A partition is one partition of a copy. Only Run changes it.
type partition struct {
	number int32
	bounds bounds
	oldest int64 // offset before which no notice is kept: a scan from there does not pass those that were removed

	mu      sync.Mutex
	next    int64         // offset that is read next; -1 while the store is closed
	changed chan struct{} // closed and replaced when next changes
}

// ErrClosed is returned while the store is not open.
var ErrClosed = errors.New("the history is not open")

// New returns a Copy that does nothing until Run.
func New(conf Config) (*Copy, error) {
	if retention := conf.Streams.Notify.Retention; conf.Keep <= 0 || conf.Keep > retention {
		return nil, fmt.Errorf("history of %s: it must be more than 0, and at most the %s that %s keeps", conf.Keep,
			retention, conf.Streams.Notify.Name)
	}
	c := &Copy{conf: conf, metrics: newMetrics(conf.Metrics)}
	for i := range conf.Streams.Notify.Partitions {
		c.partitions = append(c.partitions, &partition{number: int32(i), next: -1, changed: make(chan struct{})})
	}
	return c, nil
}

// Keep returns how long a notice is kept; activity is kept for ActivityKept.
func (c *Copy) Keep() time.Duration { return c.conf.Keep }

// Next returns the offset of the notify topic up to which a partition was read, -1 while that is not known, and a
// channel that is closed when it changes.
func (c *Copy) Next(number int32) (next int64, changed <-chan struct{}) {
	p := c.partitions[number]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next, p.changed
}

func (p *partition) setNext(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = next
	close(p.changed)
	p.changed = make(chan struct{})
}

// A StoreError is a local store that cannot be opened: trying again does not help.
type StoreError struct{ error }

func (e *StoreError) Unwrap() error { return e.error }

const pauseAfterError = time.Second

// Run keeps the copy up to date until ctx ends. It returns an error only if trying again cannot help.
func (c *Copy) Run(ctx context.Context) error {
	for {
		err := c.follow(ctx)
		if ctx.Err() != nil {
			return c.Close()
		}
		if fatal, ok := errors.AsType[*StoreError](err); ok {
			return fatal
		}
		if c.store != nil && c.store.Corrupt() { // localstore wipes it when it is opened again
			err = errors.Join(err, c.Close())
		}
		c.conf.Log.WarnContext(ctx, "the history is interrupted", "topic", c.conf.Streams.Notify.Name, "error", err)
		select {
		case <-time.After(pauseAfterError):
		case <-ctx.Done():
		}
	}
}

// A lookUp returns the ids of topics.
type lookUp func(ctx context.Context, names ...string) (map[string]committed.TopicID, error)

// topics returns the pin of a store of the present topics, and the id of the events topic. Positions in a recreated
// events topic cannot be compared with those before, and a recreated notify topic lacks notices.
func (c *Copy) topics(ctx context.Context, look lookUp) (pin, logID string, err error) {
	events, notify := c.conf.Streams.Events.Name, c.conf.Streams.Notify.Name
	ids, err := look(ctx, events, notify)
	return ids[notify].String() + "/" + ids[events].Topic + "/" + layout, ids[events].Topic, err
}

// memory is less than that of a table: most writes are of new keys, and few requests read the history.
var memory = localstore.Settings{Cache: 16 << 20, MemTable: 8 << 20}

// Open opens the store. A store with another pin is closed first, and wiped. logID is the id of the events topic.
func (c *Copy) Open(pin, logID string) error {
	if c.store != nil && c.pin == pin {
		return nil
	}
	if err := c.Close(); err != nil {
		return err
	}
	store, err := localstore.OpenWith(c.conf.Dir, pin, c.conf.Log, memory)
	if err != nil {
		return &StoreError{err}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store, c.pin, c.logID = store, pin, logID
	return nil
}

// Close closes the store, if it is open.
func (c *Copy) Close() error {
	for _, p := range c.partitions {
		p.setNext(-1)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.store == nil {
		return nil
	}
	store := c.store
	c.store = nil
	return store.Close()
}

// checkEvery is how often the copy removes what is too old, and compares the ids of the topics.
const checkEvery = 10 * time.Second

// follow reads the topic until an error occurs.
func (c *Copy) follow(ctx context.Context) error {
	pin, logID, err := c.topics(ctx, func(ctx context.Context, names ...string) (map[string]committed.TopicID, error) {
		return kafka.TopicIDs(ctx, c.conf.Kafka, names...)
	})
	if err != nil {
		return err
	}
	if err := c.Open(pin, logID); err != nil {
		return err
	}
	spans, err := c.begin(ctx)
	if err != nil {
		return err
	}
	follower, err := kafka.Follow(c.conf.Kafka, c.conf.Streams.Notify.Name, spans)
	if err != nil {
		return err
	}
	defer follower.Close()
	for {
		if err := c.Trim(time.Now()); err != nil {
			return err
		}
		if err := c.poll(ctx, follower, time.Now().Add(checkEvery)); err != nil {
			return err
		}
		if err := c.check(ctx, follower.TopicIDs); err != nil {
			return err
		}
	}
}

// check returns an error if the open store cannot be used any more. Once an hour it flushes it.
func (c *Copy) check(ctx context.Context, look lookUp) error {
	if c.store.Corrupt() {
		return errors.New("the local store is corrupt: the history begins again")
	}
	if err := c.store.FlushHourly(); err != nil {
		return err
	}
	switch pin, _, err := c.topics(ctx, look); {
	case err != nil:
		return err
	case pin != c.pin:
		return errors.New("a topic was recreated: the history begins again")
	}
	return nil
}

// poll applies records until a time.
func (c *Copy) poll(ctx context.Context, follower *kafka.Follower, until time.Time) error {
	deadline, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	for {
		records, err := follower.Poll(deadline)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
				return nil
			}
			return err
		}
		for _, r := range records {
			if p := c.partitions[r.Partition]; r.Offset > p.next {
				if err := checkGap(ctx, follower, p); err != nil {
					return err
				}
			}
			if err := c.Apply(r); err != nil {
				return err
			}
		}
	}
}

// checkGap is called when the next record is not the expected one. Offsets without a record are those of aborted
// transactions, unless retention was faster than the reading.
func checkGap(ctx context.Context, follower *kafka.Follower, p *partition) error {
	starts, err := follower.Starts(ctx)
	if err == nil && starts[p.number] > p.next {
		err = fmt.Errorf("partition %d now begins at offset %d, and offset %d was to be read next", p.number,
			starts[p.number], p.next)
	}
	return err
}

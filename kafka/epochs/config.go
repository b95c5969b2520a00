package epochs

import (
	"context"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// Config describes a processor.
type Config struct {
	Cluster committed.Cluster
	Name    string       // the graph's group
	Table   string       // the topic of the group table, as goka names it
	Dir     string       // of the local store alone
	Log     *slog.Logger // nil: nothing is logged
	Metrics *Metrics     // nil: nothing is counted

	// InstanceID makes this a static member of the group: after a restart with the same id it gets its partitions back
	// at once, without waiting for the session timeout. It may be empty; ExactlyOnce needs one.
	InstanceID string
	// Guarantee is AtLeastOnce when it is empty.
	Guarantee Guarantee

	// Graph is called for each attempt; its callbacks go through Epochs.Callback. Required.
	Graph func(e *Epochs) *goka.GroupGraph
	// Prepare is called once for each record before goka gets it, ahead of its callback and in another goroutine. It
	// may rewrite the record's key; the callback gets what it returns. It may be nil.
	Prepare Prepare
	// Older reports whether a table record is older than the stored row. Compaction keeps the last record of a key, not
	// the newest: a zombie may have appended after its successor. Required.
	Older func(record, stored []byte) bool
	// Index returns the index entries under which callbacks find a row (see Rows). It is called for rows that are
	// recovered from the changelog; a callback says itself how the entries change with the row that it sets
	// (Rows.Reindex). It may be nil.
	Index func(key string, row []byte) []string
	// Mirror is a compacted output that must show the newest rows. It may be nil.
	Mirror *Mirror
	// Hasher is goka's hasher of keys; nil: goka's default.
	Hasher func() hash.Hash32
	// Check is called before each attempt, and before each session in it. Run returns its error. It returns nil when
	// the attempt may start, and when it cannot decide now. It may be nil itself.
	Check func(ctx context.Context) error

	// Join returns the consumer group that is used in place of the one it gets, which is sarama's. It may be nil.
	Join func(group sarama.ConsumerGroup) sarama.ConsumerGroup

	// RowCache is how many bytes of rows that are published stay in memory, of all partitions that are assigned
	// together: those that were used last. 0 for none.
	RowCache int64
	// Interval is how long an epoch stays open while records wait for their callbacks, unless it is half full before.
	// Otherwise epochs are closed up to ten times in the interval: see pace. 0: 50 ms.
	Interval time.Duration
	// MaxMessageBytes limits a batch, and must not be more than the topics' max.message.bytes; 0: 1 MB, Kafka's default
	// for that.
	MaxMessageBytes int32
}

func (c Config) withDefaults() Config {
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 1_000_000
	}
	if c.Interval == 0 {
		c.Interval = 50 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate refuses a processor that cannot run, or whose effects would not be exactly once.
func (c Config) validate() error {
	if c.Graph == nil || c.Older == nil {
		return fmt.Errorf("group %s: Graph and Older must be given", c.Name)
	}
	if c.Guarantee == ExactlyOnce && c.InstanceID == "" {
		return fmt.Errorf("group %s: exactly_once needs an instance id: unique, and the same after a restart", c.Name)
	}
	epochs := newEpochs(c, nil, "")
	graph := c.Graph(epochs)
	switch table := graph.GroupTable(); {
	case c.Guarantee != "" && c.Guarantee != AtLeastOnce && c.Guarantee != ExactlyOnce:
		return fmt.Errorf("group %s: there is no guarantee %q: want %s or %s", c.Name, c.Guarantee, AtLeastOnce,
			ExactlyOnce)
	case epochs.callbacks < len(graph.InputStreams()):
		return fmt.Errorf("group %s: the graph has %d inputs and %d callbacks from Epochs.Callback: each input needs "+
			"one of its own",
			c.Name, len(graph.InputStreams()), epochs.callbacks)
	case string(graph.Group()) != c.Name:
		return fmt.Errorf("group %s: the graph is of group %s", c.Name, graph.Group())
	case table == nil:
		return fmt.Errorf("group %s: the graph has no table (goka.Persist): its rows say which inputs are processed",
			c.Name)
	case table.Topic() != c.Table:
		return fmt.Errorf("group %s: the graph's table is %s, not %s", c.Name, table.Topic(), c.Table)
	case len(graph.JointTables())+len(graph.LookupTables()) > 0, graph.LoopStream() != nil:
		return fmt.Errorf("group %s: the graph has a join, a lookup or a loop, whose effects would not be exactly once",
			c.Name)
	}
	return nil
}

// An opener creates a client for the cluster, with the caller's options.
type opener func(more ...kgo.Opt) (*kgo.Client, error)

// opener returns one that adds options to each client.
func (c Config) opener(always ...kgo.Opt) opener {
	return func(more ...kgo.Opt) (*kgo.Client, error) {
		options, err := c.Cluster.Franz()
		if err != nil {
			return nil, err
		}
		return kgo.NewClient(slices.Concat(options, always, more)...)
	}
}

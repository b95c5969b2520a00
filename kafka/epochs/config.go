package epochs

import (
	"context"
	"fmt"
	"hash"
	"log/slog"
	"slices"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// Config describes a processor whose effects are to be exact.
type Config struct {
	Cluster committed.Cluster
	Name    string       // of the graph's group
	Table   string       // the topic of its table, which is goka's name for it
	Dir     string       // of the local store, and of nothing else
	Log     *slog.Logger // nil: nothing is logged
	Metrics *Metrics     // nil: nothing is counted

	// InstanceID, when it is set, makes this a static member of the group: a restart under the same id takes its partitions
	// back at once, where the group would wait for the session of a killed one to expire. ExactlyOnce needs one.
	InstanceID string
	// Guarantee is AtLeastOnce when it is not set.
	Guarantee Guarantee

	// Graph is called for each attempt; its callbacks go through Epochs.Callback. It must be given.
	Graph func(e *Epochs) *goka.GroupGraph
	// Prepare is called once for each record before goka sees it, ahead of its callback and on another goroutine. It may
	// rewrite the record's key; what it returns is handed to the callback. It may be nil.
	Prepare Prepare
	// Older says that a record of the table is older than the row that is stored already. Compaction keeps the last record,
	// not the newest: an owner that was paused may have appended after its successor. It must be given.
	Older func(record, stored []byte) bool
	// PartitionOf returns the partition of the input whose callback emits this record; it is sent to that partition of its topic.
	// A row said to belong elsewhere fails the group. It must be given.
	PartitionOf func(topic, key string, headers goka.Headers) int32
	// Index returns the entries under which callbacks find a row (see Rows). It is asked for rows that are read from the changelog;
	// a callback says itself how they change with the row that it sets (Rows.Reindex). It may be nil.
	Index func(key string, row []byte) []string
	// Mirror is an output that the newest rows must be found in; nil when there is none.
	Mirror *Mirror
	// Hasher is of keys, by which goka finds their partitions; nil: goka's own.
	Hasher func() hash.Hash32
	// Check says before each attempt, and before each session in it, why there may be none, which Run then returns; nil when
	// nothing speaks against it, or that cannot be told now. It may be nil itself.
	Check func(ctx context.Context) error

	// Interval is how long an epoch stays open after its first record, unless the one before it takes longer to publish; zero for
	// 20 ms.
	Interval time.Duration
	// MaxMessageBytes is the largest batch that is sent, which must not be more than the topics take; zero for 1 MB, which is
	// what Kafka's topics take unless they are told otherwise.
	MaxMessageBytes int32
}

func (c Config) withDefaults() Config {
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 1_000_000
	}
	if c.Interval == 0 {
		c.Interval = 20 * time.Millisecond
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate says why no attempt could succeed, or would keep the promise.
func (c Config) validate() error {
	if c.Graph == nil || c.Older == nil || c.PartitionOf == nil {
		return fmt.Errorf("group %s: Graph, Older and PartitionOf must be given", c.Name)
	}
	if c.Guarantee == ExactlyOnce && c.InstanceID == "" {
		return fmt.Errorf("group %s: exactly_once needs an instance id: unique, and the same after a restart", c.Name)
	}
	epochs := newEpochs(c, nil, "")
	graph := c.Graph(epochs)
	switch table := graph.GroupTable(); {
	case c.Guarantee != "" && c.Guarantee != AtLeastOnce && c.Guarantee != ExactlyOnce:
		return fmt.Errorf("group %s: there is no guarantee %q: want %s or %s", c.Name, c.Guarantee, AtLeastOnce, ExactlyOnce)
	case epochs.callbacks < len(graph.InputStreams()):
		return fmt.Errorf("group %s: the graph has %d inputs and %d callbacks from Epochs.Callback: each input needs one of its own", c.Name, len(graph.InputStreams()), epochs.callbacks)
	case string(graph.Group()) != c.Name:
		return fmt.Errorf("group %s: the graph is of group %s", c.Name, graph.Group())
	case table == nil:
		return fmt.Errorf("group %s: the graph has no table (goka.Persist): by its rows an input that comes again is known", c.Name)
	case table.Topic() != c.Table:
		return fmt.Errorf("group %s: the graph's table is %s, not %s", c.Name, table.Topic(), c.Table)
	case len(graph.JointTables())+len(graph.LookupTables()) > 0, graph.LoopStream() != nil:
		return fmt.Errorf("group %s: the graph has a join, a lookup or a loop, whose effects would not be exact", c.Name)
	}
	return nil
}

// An opener makes a client for the cluster, with options of the caller's.
type opener func(more ...kgo.Opt) (*kgo.Client, error)

// opener adds the options that goka decides.
func (c Config) opener(always ...kgo.Opt) opener {
	return func(more ...kgo.Opt) (*kgo.Client, error) {
		options, err := c.Cluster.Franz()
		if err != nil {
			return nil, err
		}
		return kgo.NewClient(slices.Concat(options, always, more)...)
	}
}

package epochs

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
)

// Config describes the processor whose effects are to be exact.
type Config struct {
	Cluster committed.Cluster
	Group   string
	Store   *localstore.Store // of the group's table
	Table   string            // the group table's topic
	Log     *slog.Logger
	Metrics *Metrics // nil: nothing is counted

	// MaxMessageBytes is the largest batch that is sent, which must not be more than the topics take; zero for 1 MB, which is
	// what Kafka's topics take unless they are told otherwise.
	MaxMessageBytes int32

	// InstanceID, when it is set, makes this a static member of the group: a restart under the same id takes its partitions
	// back at once, where the group would wait for the session of a killed one to expire.
	InstanceID string
	// Guarantee is AtLeastOnce when it is not set.
	Guarantee Guarantee
	// Prepare is called once for each record before goka sees it, ahead of its callback and on another goroutine. It may
	// rewrite the record's key; what it returns is handed to the callback. It may be nil.
	Prepare Prepare
	// Older says that a record of the table is older than the row that is stored already. Compaction keeps the last record,
	// not the newest: an owner that was paused may have appended after its successor.
	Older func(record, stored []byte) bool
	// Mirror is an output that the newest rows must be found in; nil when there is none.
	Mirror *Mirror
	// Check says why a session may not begin; see GroupConfig. It may be nil.
	Check func(ctx context.Context) error
	// PartitionOf returns the partition of the input whose callback emits this record; it is sent to that partition of its topic.
	// A row said to belong elsewhere fails the group.
	PartitionOf func(topic, key string, headers goka.Headers) int32
	// Interval is how long an epoch stays open after its first record, unless the one before it takes longer to publish; zero for
	// 20 ms.
	Interval time.Duration

	tableLog string // id of the table's log: see committed.Standing
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

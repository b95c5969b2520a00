// Package processors has tidemark's two goka groups, Files and Workspaces. Each is a graph and thin callbacks: the
// rules are in package file.
//
// Each group runs in package epochs, which publishes the effects of every record exactly once in effect, in the order
// of its workspace. Other parts of tidemark use only the topics.
package processors

import (
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Config is what each group needs.
type Config struct {
	Kafka   kafka.Config
	Streams topology.Streams
	Dir     string // of the local stores: each group makes a folder in it
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// InstanceID makes both groups static members: see epochs.Config.
	InstanceID string
	// Guarantee is epochs.AtLeastOnce when it is not set.
	Guarantee epochs.Guarantee
	// AcceptNewLog lets the groups start although the events topic was recreated since the tables were last written.
	AcceptNewLog bool
	// Epoch is how long an epoch stays open while there is a backlog (see epochs.Config); 0 means DefaultEpoch.
	Epoch time.Duration
	// RowCache is how many bytes of rows each group keeps in memory: see epochs.Config.
	RowCache int64
	// TableOnly makes the files group write its table alone: no index record, notice, dead letter or derived event.
	// replay and diff build tables whose outputs must not be published again.
	TableOnly bool
	// Join replaces the files group's consumer group: see epochs.Config. It may be nil.
	Join func(sarama.ConsumerGroup) sarama.ConsumerGroup
	// Admit reports whether the files group folds an event; nil: it folds all. It is called once for each event before
	// the fold, in the order of the partition, and may block.
	Admit func(e *tidemarkv1.Event, at *tidemarkv1.Position) bool
}

// DefaultEpoch makes batches large enough that the brokers need little CPU for each event of a backlog.
const DefaultEpoch = 50 * time.Millisecond

func (c Config) epoch() time.Duration {
	if c.Epoch > 0 {
		return c.Epoch
	}
	return DefaultEpoch
}

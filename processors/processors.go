// Package processors holds tidemark's goka groups, one file each: a graph and thin callbacks.
//
// It promises that every effect of an accepted record is in the log exactly once in effect, in its workspace's order, because
// each group runs in the epochs of package epochs. The rules of what an event means are in package file, and records meet
// other parts of tidemark only in topics.
package processors

import (
	"log/slog"
	"time"

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
	Dir     string // the groups' local stores; each makes a folder of its own in it
	Log     *slog.Logger
	Metrics prometheus.Registerer
	// InstanceID makes both groups static members: see epochs.Config.
	InstanceID string
	// Guarantee is epochs.AtLeastOnce when it is not set.
	Guarantee epochs.Guarantee
	// AcceptNewLog lets the groups start although the events topic was made anew since the tables were last written.
	AcceptNewLog bool
	// Epoch is how long an epoch stays open; 0 means DefaultEpoch.
	Epoch time.Duration
	// TableOnly lets the files group write its table and nothing else: no index, no notice, no dead letter. A table that is built
	// to be compared must not tell anybody what happened once more.
	TableOnly bool
	// Admit says which events the files group folds; nil folds all. It is called once for each, ahead of the fold, in the order
	// of the event's partition, and may wait.
	Admit func(e *tidemarkv1.Event, at *tidemarkv1.Position) bool
}

// DefaultEpoch saves some table records on hot files, and delays commits, not outputs.
const DefaultEpoch = 20 * time.Millisecond

func (c Config) epoch() time.Duration {
	if c.Epoch > 0 {
		return c.Epoch
	}
	return DefaultEpoch
}

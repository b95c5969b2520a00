package kafka

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/topology"
)

// A State is how a cluster is, as far as some topics need it.
type State struct {
	Brokers    []Broker
	Partitions int    // of the topics that exist
	Weak       []Weak // partitions that are not as they should be
}

// A Broker is where a cluster says that one of its brokers is.
type Broker struct {
	ID      int32
	Address string
}

// A Weak partition lacks replicas.
type Weak struct {
	Topic     string
	Partition int32
	Replicas  int
	InSync    int
	Offline   bool // it has no leader: nothing can be read or written
	Refusing  bool // fewer in sync than writes need
}

// String says the partition in a few words.
func (w Weak) String() string {
	if w.Offline {
		return fmt.Sprintf("%s/%d has no leader", w.Topic, w.Partition)
	}
	return fmt.Sprintf("%s/%d has %d of %d replicas in sync", w.Topic, w.Partition, w.InSync, w.Replicas)
}

// Describe asks for the brokers and for the replicas of topics. A topic that does not exist is left out.
func Describe(ctx context.Context, c Config, topics []topology.Topic) (State, error) {
	var s State
	a, err := c.admin()
	if err != nil {
		return s, err
	}
	defer a.Close()
	metadata, err := a.metadata(ctx, nil, names(topics))
	if err != nil {
		return s, a.fail("ask for brokers", err)
	}
	for _, b := range metadata.Brokers {
		s.Brokers = append(s.Brokers, Broker{ID: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))})
	}
	least := map[string]int{}
	for _, t := range topics {
		least[t.Name] = t.MinISR
	}
	for _, t := range metadata.Topics {
		if t.Topic == nil || t.ErrorCode != 0 && !kerr.IsRetriable(kerr.ErrorForCode(t.ErrorCode)) {
			continue
		}
		s.Partitions += len(t.Partitions)
		for _, p := range t.Partitions {
			w := Weak{Topic: *t.Topic, Partition: p.Partition, Replicas: len(p.Replicas), InSync: len(p.ISR)}
			w.Offline = p.Leader < 0
			w.Refusing = w.InSync < min(least[w.Topic], w.Replicas)
			if w.Offline || w.InSync < w.Replicas {
				s.Weak = append(s.Weak, w)
			}
		}
	}
	return s, nil
}

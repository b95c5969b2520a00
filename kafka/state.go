package kafka

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/topology"
)

// A State is the state of a cluster's brokers and of the replicas of some topics.
type State struct {
	Brokers         []Broker          // brokers that the cluster reports as up
	Down            []int32           // ids of brokers with replicas that are not up
	Partitions      int               // of the topics that exist
	UnderReplicated []UnderReplicated // partitions with replicas that are not in sync
}

// Single reports whether the cluster has one broker, so that nothing can be replicated. A cluster that has lost all but
// one broker is not single: its partitions have replicas elsewhere.
func (s State) Single() bool { return len(s.Brokers) == 1 && len(s.Down) == 0 }

// A Broker is a broker with its advertised address.
type Broker struct {
	ID      int32
	Address string
}

// An UnderReplicated partition has replicas that are not in sync.
type UnderReplicated struct {
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Replicas    int     `json:"replicas"`
	InSync      int     `json:"in_sync"`
	NotInSync   []int32 `json:"lacks"`    // ids of the brokers whose replicas are not in sync
	Offline     bool    `json:"offline"`  // no leader answers: nothing can be read or written
	BelowMinISR bool    `json:"refusing"` // fewer in sync than min.insync.replicas
}

// String describes the partition in a few words.
func (w UnderReplicated) String() string {
	if w.Offline {
		return fmt.Sprintf("%s/%d has no leader", w.Topic, w.Partition)
	}
	if len(w.NotInSync) == 0 { // all are in sync, but min.insync.replicas is more
		return fmt.Sprintf("%s/%d has %d of %d replicas in sync", w.Topic, w.Partition, w.InSync, w.Replicas)
	}
	ids := make([]string, len(w.NotInSync))
	for i, id := range w.NotInSync {
		ids[i] = strconv.Itoa(int(id))
	}
	return fmt.Sprintf("%s/%d has %d of %d replicas in sync, not %s", w.Topic, w.Partition, w.InSync, w.Replicas,
		strings.Join(ids, " and "))
}

// Describe returns the state of the brokers and of the replicas of topics. A topic that does not exist is left out.
// Brokers in unreachable count as down whatever the cluster reports: it notices a broker's failure late, and without a
// majority of its controllers never.
func Describe(ctx context.Context, c Config, topics []topology.Topic, unreachable ...int32) (State, error) {
	var s State
	a, err := c.admin()
	if err != nil {
		return s, err
	}
	defer a.Close()
	metadata, err := a.metadata(ctx, nil, names(topics))
	if err != nil {
		return s, a.fail("look up the brokers", err)
	}
	for _, b := range metadata.Brokers {
		s.Brokers = append(s.Brokers,
			Broker{ID: b.NodeID, Address: net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))})
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
			s.add(*t.Topic, p, least[*t.Topic], unreachable)
		}
	}
	slices.Sort(s.Down)
	order := names(topics)
	slices.SortFunc(s.UnderReplicated, func(a, b UnderReplicated) int {
		return cmp.Or(slices.Index(order, a.Topic)-slices.Index(order, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s, nil
}

// add adds a partition if it is under-replicated, and its brokers that are down.
func (s *State) add(topic string, p kmsg.MetadataResponseTopicPartition, least int, unreachable []int32) {
	w := UnderReplicated{Topic: topic, Partition: p.Partition, Replicas: len(p.Replicas)}
	w.Offline = p.Leader < 0 || slices.Contains(unreachable, p.Leader)
	for _, id := range p.Replicas {
		up := slices.ContainsFunc(s.Brokers, func(b Broker) bool { return b.ID == id })
		if !up && !slices.Contains(s.Down, id) {
			s.Down = append(s.Down, id)
		}
		// The last replica stays in the ISR when its broker goes down.
		if up && slices.Contains(p.ISR, id) && !slices.Contains(unreachable, id) {
			w.InSync++
		} else {
			w.NotInSync = append(w.NotInSync, id)
		}
	}
	slices.Sort(w.NotInSync)
	w.BelowMinISR = w.InSync < min(least, w.Replicas)
	if w.Offline || len(w.NotInSync) > 0 {
		s.UnderReplicated = append(s.UnderReplicated, w)
	}
}

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

// A State is how a cluster is, as far as some topics need it.
type State struct {
	Brokers         []Broker          // those that the cluster counts as up
	Down            []int32           // ids of brokers that hold replicas and are not among them
	Partitions      int               // of the topics that exist
	UnderReplicated []UnderReplicated // partitions that are not as they should be
}

// Single reports whether the cluster has one broker, so that nothing can be replicated. A cluster that has lost all but one is
// not single: its partitions have replicas elsewhere.
func (s State) Single() bool { return len(s.Brokers) == 1 && len(s.Down) == 0 }

// A Broker is where a cluster says that one of its brokers is.
type Broker struct {
	ID      int32
	Address string
}

// A Weak partition lacks replicas.
type UnderReplicated struct {
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Replicas    int     `json:"replicas"`
	InSync      int     `json:"in_sync"`
	NotInSync   []int32 `json:"lacks"`    // ids of the brokers whose replicas are not in sync
	Offline     bool    `json:"offline"`  // it has no leader that answers: nothing can be read or written
	BelowMinISR bool    `json:"refusing"` // fewer in sync than writes need
}

// String says the partition in a few words.
func (w UnderReplicated) String() string {
	if w.Offline {
		return fmt.Sprintf("%s/%d has no leader", w.Topic, w.Partition)
	}
	if len(w.NotInSync) == 0 { // all are, and writes need more than there are
		return fmt.Sprintf("%s/%d has %d of %d replicas in sync", w.Topic, w.Partition, w.InSync, w.Replicas)
	}
	ids := make([]string, len(w.NotInSync))
	for i, id := range w.NotInSync {
		ids[i] = strconv.Itoa(int(id))
	}
	return fmt.Sprintf("%s/%d has %d of %d replicas in sync, not %s", w.Topic, w.Partition, w.InSync, w.Replicas, strings.Join(ids, " and "))
}

// Describe asks for the brokers and for the replicas of topics. A topic that does not exist is left out. Brokers known to be
// away are counted so whatever the cluster says: it takes a while to notice one, and one that has lost the majority of its
// controllers notices nothing any more.
func Describe(ctx context.Context, c Config, topics []topology.Topic, away ...int32) (State, error) {
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
			s.add(*t.Topic, p, least[*t.Topic], away)
		}
	}
	slices.Sort(s.Down)
	order := names(topics)
	slices.SortFunc(s.UnderReplicated, func(a, b UnderReplicated) int {
		return cmp.Or(slices.Index(order, a.Topic)-slices.Index(order, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s, nil
}

// add notes what is not as it should be of a partition.
func (s *State) add(topic string, p kmsg.MetadataResponseTopicPartition, least int, away []int32) {
	w := UnderReplicated{Topic: topic, Partition: p.Partition, Replicas: len(p.Replicas)}
	w.Offline = p.Leader < 0 || slices.Contains(away, p.Leader)
	for _, id := range p.Replicas {
		up := slices.ContainsFunc(s.Brokers, func(b Broker) bool { return b.ID == id })
		if !up && !slices.Contains(s.Down, id) {
			s.Down = append(s.Down, id)
		}
		if up && slices.Contains(p.ISR, id) && !slices.Contains(away, id) { // the last in sync stays so when it goes down
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

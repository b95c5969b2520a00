package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// TestSplit adds instances of process to one, until four share the partitions, while events arrive in all of them.
// Then it restarts one. Its partitions wait for it, those of the others go on meanwhile, the group has no rebalance,
// and each event has its notice in the end.
func TestSplit(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts several processes")
	}
	f := newFixture(t, ackLatency)
	s := &split{fixture: f, admin: kadm.NewClient(f.client), noticed: make([]int, partitions)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.begin(ctx)
	for _, n := range []int{1, 2, 4} {
		for len(s.programs) < n {
			name := fmt.Sprint("process", len(s.programs)+1)
			p := f.role(name, "process", "--instance-id", name).Store()
			s.programs = append(s.programs, p)
			f.start(p)
		}
		f.awaitReady(s.programs...)
		s.awaitShares(n)
		s.awaitProgress(s.all())
	}
	s.restart()
	stop()
	s.traffic.Wait()
	_, err := rig.Until(t.Context(), 30*time.Second, func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for _, of := range s.noticed {
			n += of
		}
		return n >= s.sent, nil
	})
	f.check(err)
	f.term(s.programs...)
	s.reader.Close()
	s.reading.Wait()
	if s.failed != nil {
		t.Error(s.failed)
	}
	for p, n := range s.noticed {
		if n != s.sent/partitions {
			t.Errorf("partition %d has %d notices of %d events", p, n, s.sent/partitions)
		}
	}
}

// A split is a group of several instances, and traffic in all partitions.
type split struct {
	*fixture
	admin    *kadm.Client
	programs []*rig.Program
	reader   *kgo.Client
	traffic  sync.WaitGroup
	reading  sync.WaitGroup

	mu      sync.Mutex
	sent    int
	noticed []int // by partition
	failed  error
}

// begin writes an event to each partition in turn until ctx ends, and counts notices.
func (s *split) begin(ctx context.Context) {
	s.t.Helper()
	var workspaces [partitions]string
	for n, found := 0, 0; found < partitions; n++ {
		ws := fmt.Sprint("split-", n)
		if p := oracle.Partition(s.topics.Events, ws, partitions); workspaces[p] == "" {
			workspaces[p] = ws
			found++
		}
	}
	var err error
	s.reader, err = rig.Client(s.brokers, kgo.ConsumeTopics(s.topics.Notify))
	s.check(err)
	s.reading.Go(s.count)
	s.traffic.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			var round []*kgo.Record
			for p, ws := range workspaces {
				value := fmt.Sprintf(`{"event":"workspace_storage_file_updated","event_id":"e%d","workspace_id":%q,`+
					`"object_id":"f%d","size":%d}`, n, ws, n%7, n)
				round = append(round, &kgo.Record{
					Topic: s.topics.Events, Partition: int32(p), Key: []byte(ws), Value: []byte(value),
				})
			}
			err := s.client.ProduceSync(context.Background(), round...).FirstErr() // complete rounds only
			s.mu.Lock()
			s.sent += partitions
			s.failed = errors.Join(s.failed, err)
			s.mu.Unlock()
			sleep(ctx, 20*time.Millisecond)
		}
	})
}

// count counts the notices until the reader is closed. Each must come once: no process is killed.
func (s *split) count() {
	seen := map[string]bool{}
	for {
		fetches := s.reader.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		s.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			var notice struct {
				OpID string `json:"op_id"`
			}
			s.failed = errors.Join(s.failed, json.Unmarshal(r.Value, &notice))
			if seen[notice.OpID] {
				s.failed = errors.Join(s.failed, fmt.Errorf("notice %q comes twice", notice.OpID))
			}
			seen[notice.OpID] = true
			s.noticed[r.Partition]++
		})
		s.mu.Unlock()
	}
}

func (s *split) all() (numbers []int32) {
	for p := range partitions {
		numbers = append(numbers, int32(p))
	}
	return numbers
}

// awaitProgress waits until partitions have notices of events that are sent from now on.
func (s *split) awaitProgress(of []int32) {
	s.t.Helper()
	s.mu.Lock()
	sent := s.sent/partitions + 1
	s.mu.Unlock()
	_, err := rig.Until(s.t.Context(), 30*time.Second, func() (bool, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !slices.ContainsFunc(of, func(p int32) bool { return s.noticed[p] <= sent }), s.failed
	})
	s.check(err)
}

// shares returns the partitions by instance, and the state of the group.
func (s *split) shares() (of map[string][]int32, state string) {
	s.t.Helper()
	group := s.prefix + "-files"
	groups, err := s.admin.DescribeGroups(s.t.Context(), group)
	s.check(errors.Join(err, groups.Error()))
	of = map[string][]int32{}
	for _, m := range groups[group].Members {
		assigned, _ := m.Assigned.AsConsumer()
		for _, topic := range assigned.Topics {
			if topic.Topic == s.topics.Events && m.InstanceID != nil {
				of[*m.InstanceID] = slices.Sorted(slices.Values(topic.Partitions))
			}
		}
	}
	return of, groups[group].State
}

// awaitShares waits until so many instances have equal shares.
func (s *split) awaitShares(n int) {
	s.t.Helper()
	var of map[string][]int32
	_, err := rig.Until(s.t.Context(), 30*time.Second, func() (bool, error) {
		of, _ = s.shares()
		for _, share := range of {
			if len(share) != partitions/n {
				return false, nil
			}
		}
		return len(of) == n, nil
	})
	if err != nil {
		s.t.Fatalf("%d instances share the partitions as %v: %v", n, of, err)
	}
}

// restart stops the first instance and starts it again, while the group is observed.
func (s *split) restart() {
	s.t.Helper()
	first := s.programs[0]
	before, _ := s.shares()
	// The session of the stopped instance ends after 10 s.
	ctx, stop := context.WithTimeout(s.t.Context(), 8*time.Second)
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			of, state := s.shares()
			if ctx.Err() == nil && state != "Stable" || !maps.EqualFunc(of, before, slices.Equal) {
				s.t.Errorf("a rebalance: the group is %s, its shares are %v, before they were %v", state, of, before)
				return
			}
			sleep(ctx, 20*time.Millisecond)
		}
	})
	s.term(first)
	s.mu.Lock()
	waiting := slices.Clone(s.noticed)
	s.mu.Unlock()
	for name, share := range before {
		if name != first.Name {
			s.awaitProgress(share)
		}
	}
	s.mu.Lock()
	for _, p := range before[first.Name] {
		if s.noticed[p] > waiting[p]+1 { // one that was on its way to the reader
			s.t.Errorf("partition %d goes on without its instance", p)
		}
	}
	s.mu.Unlock()
	s.start(first)
	s.awaitReady(first)
	s.awaitProgress(s.all())
	stop()
	watching.Wait()
}

package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

// streams is a map of four partitions under a name of its own: a cluster in KAFKA_BROKERS is shared.
func streams(t *testing.T, size topology.Sizing) topology.Streams {
	t.Helper()
	s, err := topology.New(fmt.Sprintf("t%08x", rand.Uint32()), size)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var small = topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1}

func TestApplyTopics(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	want := streams(t, small).Topics()

	err := kafka.CheckTopics(t.Context(), c, want)
	for _, topic := range want {
		if err == nil || !strings.Contains(err.Error(),
			"topic "+topic.Name+" does not exist: create it with `tidemark topics apply`") {
			t.Errorf("check of nothing: %v does not name %s", err, topic.Name)
		}
	}
	plan, err := kafka.PlanTopics(t.Context(), c, want)
	if err != nil {
		t.Fatal(err)
	}
	created, err := kafka.ApplyTopics(t.Context(), c, want)
	if err != nil {
		t.Fatal(err)
	}
	if len(created) != len(want) {
		t.Errorf("created %v, want %d topics", created, len(want))
	}
	if diff := cmp.Diff(plan, created); diff != "" {
		t.Errorf("planned (-) and created (+):\n%s", diff)
	}
	if err := kafka.CheckTopics(t.Context(), c, want); err != nil {
		t.Error(err)
	}
	if created, err := kafka.ApplyTopics(t.Context(), c, want); err != nil || len(created) > 0 {
		t.Errorf("the second time: created %v, error %v", created, err)
	}
	if plan, err := kafka.PlanTopics(t.Context(), c, want); err != nil || len(plan) > 0 {
		t.Errorf("plan afterwards: %v, error %v", plan, err)
	}
}

func TestApplyTopicsAtTheSameTime(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	want := streams(t, small).Topics()
	var group errgroup.Group
	created := make([][]kafka.Change, 3)
	for i := range created {
		group.Go(func() (err error) {
			created[i], err = kafka.ApplyTopics(t.Context(), c, want)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	n := 0
	for _, changes := range created {
		n += len(changes)
	}
	if n != len(want) {
		t.Errorf("three processes say they created %d topics together, want %d", n, len(want))
	}
}

func TestTopicsThatDiffer(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	s := streams(t, small)
	keep := s.Events.Config()
	keep["retention.ms"], keep["message.timestamp.type"] = "1000", "CreateTime"
	devbroker.CreateTopic(t, c.Brokers, s.Events.Name, 4, keep)
	devbroker.CreateTopic(t, c.Brokers, s.Files.Name, 3,
		map[string]string{"cleanup.policy": "delete", "min.insync.replicas": "2"})

	err := kafka.CheckTopics(t.Context(), c, s.Topics()[:2])
	if err == nil {
		t.Fatal("a topic of 3 partitions that drops records passed for a table of 4")
	}
	var found []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		found = append(found, strings.ReplaceAll(line, s.Files.Name, "FILES"))
	}
	if diff := cmp.Diff([]string{
		"topic FILES: partitions is 3, want 4",
		"topic FILES: cleanup.policy is delete, want compact",
		"topic FILES: max.message.bytes is 1048588, want 4194304",
		"topic FILES: min.insync.replicas is 2, want 1",
	}, found); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	// How long a log is kept is the operator's, and producers' times are what earlier releases had: planned, not
	// refused.
	plan, err := kafka.PlanTopics(t.Context(), c, []topology.Topic{s.Events})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]kafka.Change{
		{Topic: s.Events.Name, Setting: "message.timestamp.type", Found: "CreateTime", Wanted: "LogAppendTime"},
		{Topic: s.Events.Name, Setting: "retention.ms", Found: "1000", Wanted: "2592000000"},
	}, plan); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	created, err := kafka.ApplyTopics(t.Context(), c, s.Topics()[:3])
	if err == nil || !strings.Contains(err.Error(), "partitions is 3, want 4") {
		t.Errorf("apply over a topic that differs: got %v, want it named", err)
	}
	if len(created) != 1 || created[0].Topic != s.Index.Name {
		t.Errorf("created %v, want the one that was missing", created)
	}
}

func TestReplicationIsCompared(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	c := kafka.Config{Brokers: cluster.ListenAddrs()[:1]}
	want := streams(t, topology.Default).Topics()[:1]
	if _, err := kafka.ApplyTopics(t.Context(), c, want); err != nil {
		t.Fatal(err)
	}
	if size, err := kafka.SizingOf(t.Context(), c, want[0].Name); err != nil || size != topology.Default {
		t.Errorf("sized %+v, %v", size, err)
	}
	if _, err := kafka.SizingOf(t.Context(), c, "missing"); err == nil ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("the size of a missing topic: %v", err)
	}
	want[0].Replication = 2
	err = kafka.CheckTopics(t.Context(), c, want)
	if err == nil || !strings.Contains(err.Error(), "replication.factor is 3, want 2") {
		t.Errorf("got %v, want the replication named", err)
	}
}

func TestApplyTopicsSaysWhyNot(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	want := streams(t, topology.Sizing{Partitions: 1, Replication: 100, MinISR: 1}).Topics()[:1]
	created, err := kafka.ApplyTopics(t.Context(), c, want)
	if err == nil || !strings.Contains(err.Error(), want[0].Name) ||
		!strings.Contains(err.Error(), "INVALID_REPLICATION_FACTOR") {
		t.Errorf("more replicas than brokers: got %v, want topic and reason", err)
	}
	if len(created) > 0 {
		t.Errorf("created %v", created)
	}
}

func TestTopicIDs(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	want := streams(t, small).Topics()[:2]
	if _, err := kafka.ApplyTopics(t.Context(), c, want); err != nil {
		t.Fatal(err)
	}
	ids, err := kafka.TopicIDs(t.Context(), c, want[0].Name, want[1].Name)
	if err != nil {
		t.Fatal(err)
	}
	one, two := ids[want[0].Name], ids[want[1].Name]
	if len(ids) != 2 || one.Cluster == "" || one.Topic == "" || one.Cluster != two.Cluster || one.Topic == two.Topic {
		t.Errorf("ids %v", ids)
	}
	if _, err := kafka.TopicIDs(t.Context(), c, "missing-"+want[0].Name); err == nil ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a missing topic: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := kafka.TopicIDs(ctx, c, want[0].Name); err == nil {
		t.Error("asked with an ended context and got an answer")
	}
}

func TestTopicCheckerNamesTheTopicWithMorePartitions(t *testing.T) {
	c := kafka.Config{Brokers: devbroker.ForTest(t)}
	s := streams(t, small)
	checker, err := kafka.NewTopicChecker(c, s.Topics())
	if err != nil {
		t.Fatal(err)
	}
	defer checker.Close()
	if err := checker.Partitions(t.Context()); err != nil {
		t.Errorf("topics that are missing: %v", err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), c, s.Topics()); err != nil {
		t.Fatal(err)
	}
	if err := checker.Partitions(t.Context()); err != nil {
		t.Error(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if answers, err := kadm.NewClient(client).UpdatePartitions(t.Context(), 8, s.Notify.Name); err != nil ||
		answers.Error() != nil {
		t.Fatal(err, answers.Error())
	}
	want := "topic " + s.Notify.Name + ": partitions is 8, want 4"
	await(t, want, func() bool { // the brokers learn of it by and by
		err := checker.Partitions(t.Context())
		return err != nil && err.Error() == want
	})
	for _, err := range []error{kafka.CheckTopics(t.Context(), c, s.Topics()), checker.Topics(t.Context())} {
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// A checker holds its client, where CheckTopics connects anew for each check.
func TestTopicCheckerHoldsItsClient(t *testing.T) {
	brokers := devbroker.ForTest(t)
	s := streams(t, small)
	if _, err := kafka.ApplyTopics(t.Context(), kafka.Config{Brokers: brokers}, s.Topics()); err != nil {
		t.Fatal(err)
	}
	seed, accepted := countingProxy(t, brokers[0])
	c := kafka.Config{Brokers: []string{seed}}
	checker, err := kafka.NewTopicChecker(c, s.Topics())
	if err != nil {
		t.Fatal(err)
	}
	defer checker.Close()
	for range 5 {
		if err := errors.Join(checker.Topics(t.Context()), checker.Partitions(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	held := accepted.Load()
	for range 5 {
		if err := kafka.CheckTopics(t.Context(), c, s.Topics()); err != nil {
			t.Fatal(err)
		}
	}
	if opened := accepted.Load() - held; held == 0 || held > 2 || opened < 5 {
		t.Errorf("10 checks of a checker took %d connections to the seed, 5 of CheckTopics %d", held, opened)
	}
}

// countingProxy forwards connections to a broker and counts them.
func countingProxy(t *testing.T, broker string) (addr string, accepted *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted = &atomic.Int64{}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", broker)
				if err != nil {
					return // the check fails
				}
				defer server.Close()
				go io.Copy(server, client)
				io.Copy(client, server)
			}()
		}
	}()
	return l.Addr().String(), accepted
}

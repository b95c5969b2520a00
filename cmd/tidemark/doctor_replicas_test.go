package main

import (
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/devbroker"
	"tidemark/doctor"
	"tidemark/ingress"
	"tidemark/kafka"
	"tidemark/topology"
)

// Beside dev, or any single broker, nothing is replicated and nothing is wrong with that, unless replicas were asked
// for.
func TestDoctorOfASingleBroker(t *testing.T) {
	t.Setenv(secretsVariable, unbound)
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	addr := strings.Join(brokers, ",")
	d := examine(t, exitOK, addr, streams, "--replication", "0", "--min-insync", "0")
	d.says(t, "topics", doctor.Note, "one broker: no replication, fine for development")
	d.says(t, "topics", doctor.OK, "all 9")
	d = examine(t, exitFailed, addr, streams, "--replication", "3", "--min-insync", "2")
	d.says(t, "topics", doctor.Failure, "replication.factor is 1, want 3")
	if len(d["topics"]) != 18 {
		t.Errorf("%+v; want 18 faults and no note", d["topics"])
	}

	stamped := streamsForTest(t, brokers, "events", "dlq") // as earlier releases made them
	d = examine(t, exitOK, addr, stamped, "--replication", "0", "--min-insync", "0")
	d.says(t, "topics", doctor.Warning,
		stamped.Events.Name+", "+stamped.DLQ.Name+": message.timestamp.type is not LogAppendTime")
	produce(t, brokers, &kgo.Record{
		Topic: stamped.Events.Name, Value: []byte("{}"),
		Timestamp: time.Now().Add(time.Hour),
	})
	examine(t, exitFailed, addr, stamped, "--replication", "0", "--min-insync", "0").says(t, "events", doctor.Warning,
		"ahead of this host's clock")

	// What dev's first user sees: no flag but where it is.
	t.Setenv(secretsVariable, "")
	scheme, err := ingress.ParseScheme("fastio", "")
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	if _, err := devSecret(data, scheme); err != nil {
		t.Fatal(err)
	}
	out, errs, code := tidemark(t, "doctor", "--data", data, "--brokers", addr, "--topic-prefix", prefixOf(streams),
		"--partitions", "3", "--watch", "500ms")
	if code != exitOK ||
		!strings.Contains(out, "note  topics              one broker: no replication, fine for development\n") ||
		!strings.Contains(out, "ok    signature           1 active, ") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func TestDoctorOfThreeBrokers(t *testing.T) {
	t.Setenv(secretsVariable, unbound)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(3))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	addr := strings.Join(cluster.ListenAddrs(), ",")
	streams := streamsForTest(t, cluster.ListenAddrs()) // without replicas
	unsized := []string{"--replication", "0", "--min-insync", "0"}
	d := examine(t, exitFailed, addr, streams, unsized...)
	d.says(t, "topics", doctor.Failure, streams.Events.Name+": replication.factor is 1, want 3")
	d.says(t, "topics", doctor.Failure, streams.Events.Name+": min.insync.replicas is 1, want 2")

	sized, err := topology.New(prefixOf(streams)+"r", topology.Sizing{Partitions: 3, Replication: 3, MinISR: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), kafka.Config{Brokers: cluster.ListenAddrs()},
		sized.Topics()); err != nil {
		t.Fatal(err)
	}
	examine(t, exitOK, addr, sized, unsized...).says(t, "replicas", doctor.OK,
		"all 27 partitions have a leader and all their replicas")

	for _, topic := range sized.Topics() {
		for i := range int32(topic.Partitions) {
			if err := cluster.MoveTopicPartition(topic.Name, i, leaderOf(i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	told := forge(cluster)
	at := cluster.ListenAddrs()
	told.Store(metadata(t, at, sized, 0, 1)) // broker 2 has just been started again
	d = examine(t, exitOK, addr, sized, unsized...)
	d.says(t, "replicas", doctor.Warning,
		"27 of 27 partitions are under-replicated without broker 2: "+sized.Events.Name+
			"/0 has 2 of 3 replicas in sync, not 2, ")

	// Broker 1 has ended too, and the cluster, which has no majority of controllers, goes on naming it.
	told.Store(metadata(t, []string{at[0], "127.0.0.1:1"}, sized, 0, 1))
	d = examine(t, exitFailed, at[0], sized, unsized...)
	d.says(t, "advertised", doctor.Failure,
		"the cluster advertises broker 1, which cannot be reached from here: 127.0.0.1:1: tcp")
	d.says(t, "replicas", doctor.Failure,
		"9 of 27 partitions are offline without broker 1 (127.0.0.1:1) and broker 2: ")
	d.says(t, "replicas", doctor.Failure,
		"18 of 27 partitions refuse writes without broker 1 (127.0.0.1:1) and broker 2: ")
	d.says(t, "events", doctor.Skipped, "not checked: broker 1 (127.0.0.1:1) cannot be reached")
}

// forge makes the cluster answer with what is stored when it is asked for metadata.
func forge(cluster *kfake.Cluster) *atomic.Pointer[kmsg.MetadataResponse] {
	told := new(atomic.Pointer[kmsg.MetadataResponse])
	cluster.ControlKey(int16(kmsg.Metadata), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		question, ok := request.(*kmsg.MetadataRequest)
		answer := *told.Load()
		if !ok {
			return nil, nil, false
		}
		answer.Version = question.Version
		answer.Topics = slices.DeleteFunc(slices.Clone(answer.Topics), func(t kmsg.MetadataResponseTopic) bool {
			return question.Topics != nil &&
				!slices.ContainsFunc(question.Topics,
					func(wanted kmsg.MetadataRequestTopic) bool { return *wanted.Topic == *t.Topic })
		})
		return &answer, nil, true
	})
	return told
}

// leaderOf is the broker that leads a partition of each topic.
func leaderOf(partition int32) int32 { return partition % 2 }

// metadata says that brokers 0, 1 and so on are up at these addresses, and that brokers 0 to 2 hold all topics, of
// which those in inSync are that.
func metadata(t *testing.T, up []string, streams topology.Streams, inSync ...int32) *kmsg.MetadataResponse {
	t.Helper()
	answer := kmsg.NewPtrMetadataResponse()
	for id, at := range up {
		address, err := net.ResolveTCPAddr("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = int32(id), address.IP.String(), int32(address.Port)
		answer.Brokers = append(answer.Brokers, b)
	}
	for _, wanted := range streams.Topics() {
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = new(wanted.Name)
		for i := range int32(wanted.Partitions) {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.Replicas, p.ISR = i, leaderOf(i), []int32{0, 1, 2}, inSync
			topic.Partitions = append(topic.Partitions, p)
		}
		answer.Topics = append(answer.Topics, topic)
	}
	return answer
}

package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

func topicForTest(t *testing.T) (kafka.Config, topology.Topic, *kgo.Client) {
	t.Helper()
	streams, err := topology.New(fmt.Sprintf("k%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: 3, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	conf := kafka.Config{Brokers: devbroker.ForTest(t)}
	if _, err := kafka.ApplyTopics(t.Context(), conf, []topology.Topic{streams.Events}); err != nil {
		t.Fatal(err)
	}
	client, err := kafka.NewProducer(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return conf, streams.Events, client
}

func TestRead(t *testing.T) {
	conf, topic, client := topicForTest(t)
	for i := range 20 {
		if err := client.ProduceSync(t.Context(),
			&kgo.Record{
				Topic: topic.Name, Partition: int32(i % 2),
				Value: fmt.Append(nil, i/2),
			}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	extent, err := kafka.Extent(t.Context(), conf, topic.Name)
	if diff := cmp.Diff(kafka.Spans{0: {From: 0, To: 10}, 1: {From: 0, To: 10}, 2: {}}, extent); err != nil ||
		diff != "" || extent.Len() != 20 {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	read := func(spans kafka.Spans) map[int32]string {
		found := map[int32]string{}
		if err := kafka.Read(t.Context(), conf, topic.Name, spans, func(r *kgo.Record) error {
			found[r.Partition] += string(r.Value)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	for _, test := range []struct {
		spans kafka.Spans
		want  map[int32]string
	}{
		{extent, map[int32]string{0: "0123456789", 1: "0123456789"}},
		{kafka.Spans{0: {From: 3, To: 5}, 1: {From: 9, To: 10}}, map[int32]string{0: "34", 1: "9"}},
		{kafka.Spans{2: {}}, map[int32]string{}},
	} {
		if diff := cmp.Diff(test.want, read(test.spans)); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.spans, diff)
		}
	}
	enough := errors.New("enough")
	if err := kafka.Read(t.Context(), conf, topic.Name, extent,
		func(*kgo.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of the caller's: %v", err)
	}
	gone, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := kafka.Read(gone, conf, topic.Name, kafka.Spans{0: {From: 0, To: 99}},
		func(*kgo.Record) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for what is not there: %v", err)
	}
	if _, err := kafka.Extent(t.Context(), conf, topic.Name+"x"); err == nil ||
		!strings.Contains(err.Error(), "does not exist") {
		t.Errorf("a missing topic: %v", err)
	}
}

// Read does not wait forever for records that retention deletes meanwhile.
func TestReadSkipsDeletedRecords(t *testing.T) {
	conf, topic, client := topicForTest(t)
	for range 5 {
		if err := client.ProduceSync(t.Context(),
			&kgo.Record{Topic: topic.Name, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic.Name, 0, 5, -1)
	if _, err := kadm.NewClient(client).DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := kafka.Read(ctx, conf, topic.Name, kafka.Spans{0: {From: 0, To: 5}}, func(r *kgo.Record) error {
		return fmt.Errorf("read %d", r.Offset)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestCommits(t *testing.T) {
	conf, topic, _ := topicForTest(t)
	group := topic.Name + "-group"
	if committed, err := kafka.Committed(t.Context(), conf, group, topic.Name); err != nil || len(committed) != 0 {
		t.Fatalf("before: %v, %v", committed, err)
	}
	want := kadm.Offset{Topic: topic.Name, Partition: 1, At: 7, LeaderEpoch: -1, Metadata: "why"}
	if err := kafka.Commit(t.Context(), conf, group, want); err != nil {
		t.Fatal(err)
	}
	committed, err := kafka.Committed(t.Context(), conf, group, topic.Name)
	if got := committed[1]; err != nil || len(committed) != 1 || got.At != want.At || got.Metadata != want.Metadata {
		t.Errorf("%v, %v", committed, err)
	}
}

// A single partition is fetched in large pieces, many partitions in small ones, so that memory use stays the same.
func TestReadFetchesMoreOfFewerPartitions(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(8, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	conf := kafka.Config{Brokers: cluster.ListenAddrs()}
	client, err := kafka.NewProducer(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	for partition := range int32(8) {
		if err := client.ProduceSync(t.Context(),
			&kgo.Record{Topic: "t", Partition: partition, Value: []byte("v")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var asked atomic.Int32
	cluster.ControlKey(int16(kmsg.Fetch), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if fetch, ok := request.(*kmsg.FetchRequest); ok && len(fetch.Topics) > 0 {
			asked.Store(fetch.Topics[0].Partitions[0].PartitionMaxBytes)
		}
		return nil, nil, false
	})
	for partitions, want := range map[int32]int32{1: 4 << 20, 8: 1 << 20} {
		spans := kafka.Spans{}
		for partition := range partitions {
			spans[partition] = kafka.Span{From: 0, To: 1}
		}
		if err := kafka.Read(t.Context(), conf, "t", spans, func(*kgo.Record) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if got := asked.Load(); got != want {
			t.Errorf("of %d partitions it asks for %d bytes each, want %d", partitions, got, want)
		}
	}
}

func TestFirstTime(t *testing.T) {
	conf, topic, client := topicForTest(t)
	if _, found, err := kafka.FirstTime(t.Context(), conf, topic.Name); found || err != nil {
		t.Errorf("an empty topic: %v, %v", found, err)
	}
	begin := time.Now().Truncate(time.Millisecond)
	for i := range int32(2) {
		r := &kgo.Record{Topic: topic.Name, Partition: 2 - i}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	first, found, err := kafka.FirstTime(t.Context(), conf, topic.Name)
	if !found || err != nil || first.Before(begin) || time.Since(first) < 10*time.Millisecond {
		t.Errorf("%s after the first record: %v, %v", first.Sub(begin), found, err)
	}
}

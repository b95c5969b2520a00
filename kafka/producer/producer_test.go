package producer_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/producer"
)

// Close waits for buffered records. They and their promises keep their order, and headers are sorted.
func TestRecordsKeepTheirOrder(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(append(producer.Options(1<<20), kgo.SeedBrokers(cluster.ListenAddrs()...))...)
	if err != nil {
		t.Fatal(err)
	}
	var want, acknowledged, got []string
	for i := range 100 {
		want = append(want, fmt.Sprint(i, " ", int64(i), "a", "b"))
		record := &kgo.Record{
			Topic: "t", Value: fmt.Append(nil, i),
			Headers: producer.Headers(goka.Headers{"b": []byte("2"), "a": []byte("1")}),
		}
		client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
			acknowledged = append(acknowledged, text(r)) // promises are called one after another
		})
	}
	if err := producer.Close(client); err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for len(got) < 100 && t.Context().Err() == nil {
		for _, r := range reader.PollFetches(t.Context()).Records() {
			got = append(got, text(r))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the log (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, acknowledged); diff != "" {
		t.Errorf("promises (-want +got):\n%s", diff)
	}
}

func text(r *kgo.Record) string {
	return fmt.Sprint(string(r.Value), " ", r.Offset, r.Headers[0].Key, r.Headers[1].Key)
}

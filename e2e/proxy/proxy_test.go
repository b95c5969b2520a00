package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestHoldsOnlyTheLateTopics(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "late", "prompt"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	const latency = 100 * time.Millisecond
	p, err := Start(Config{
		Brokers: cluster.ListenAddrs(), Late: func(topic string) bool { return topic == "late" },
		Latency: latency,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	client, err := kgo.NewClient(kgo.SeedBrokers(p.Addrs()...), kgo.ConsumeTopics("late"), kgo.ConsumerGroup("g"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	write := func(topic string) time.Duration {
		begin := time.Now()
		if err := client.ProduceSync(t.Context(),
			&kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	write("prompt")
	if took := write("late"); took < latency {
		t.Errorf("a late acknowledgement took %v", took)
	}
	other, err := kgo.NewClient(kgo.SeedBrokers(p.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	release := p.Hold()
	acked := make(chan error, 1)
	other.Produce(t.Context(), &kgo.Record{Topic: "late", Value: []byte("held")},
		func(_ *kgo.Record, err error) { acked <- err })
	if took := write("prompt"); took >= latency {
		t.Errorf("a prompt acknowledgement took %v", took)
	}
	// The write itself is not held: the group, which joins through the proxy, reads it while its writer waits.
	for n := 0; n < 2; {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		n += client.PollFetches(ctx).NumRecords()
		cancel()
		if ctx.Err() == context.DeadlineExceeded {
			t.Fatal("the held record cannot be read")
		}
	}
	select {
	case err := <-acked:
		t.Fatalf("acknowledged while held: %v", err)
	case <-time.After(2 * latency):
	}
	release()
	if err := <-acked; err != nil {
		t.Error(err)
	}
}

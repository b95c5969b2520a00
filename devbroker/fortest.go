package devbroker

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// T is the part of *testing.T and *testing.B that ForTest needs.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(f func())
}

// ForTest returns the brokers for a test: those in KAFKA_BROKERS, separated by commas, or a broker in memory that ends
// with the test. A cluster in KAFKA_BROKERS is shared: choose a random topic prefix.
func ForTest(t T) []string {
	t.Helper()
	if brokers := os.Getenv("KAFKA_BROKERS"); brokers != "" {
		t.Logf("on the cluster %s", brokers)
		return strings.Split(brokers, ",")
	}
	// Not the test's context: it ends before the clean-up, while clients still drain.
	b, err := Start(context.Background(), Config{})
	if err != nil {
		t.Fatalf("start a broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close the broker: %v", err)
		}
	})
	return []string{b.Addr()}
}

// CreateTopic creates a topic with replication factor 1.
func CreateTopic(t T, brokers []string, topic string, partitions int, settings map[string]string) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		t.Fatalf("kafka client: %v", err)
	}
	defer client.Close()
	config := map[string]*string{}
	for name, value := range settings {
		config[name] = &value
	}
	if _, err := kadm.NewClient(client).CreateTopic(context.Background(), int32(partitions), 1, config,
		topic); err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
	AwaitTopics(t, client, topic)
}

// AwaitTopics waits until new topics are in the cluster's metadata.
func AwaitTopics(t T, client *kgo.Client, topics ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		found, err := kadm.NewClient(client).ListTopics(ctx, topics...)
		if err == nil && found.Error() == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("topics %v are not in the metadata: %v", topics, errors.Join(err, found.Error()))
		}
	}
}

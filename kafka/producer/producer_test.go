package producer_test

import (
	"errors"
	"fmt"
	"hash"
	"hash/fnv"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/google/go-cmp/cmp"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka/producer"
)

func start(t *testing.T, topic string) (*kfake.Cluster, goka.Producer) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return kgo.NewClient(append(producer.Options(1<<20), more...)...)
	}
	p, err := producer.Builder(open, time.Millisecond, 0)(cluster.ListenAddrs(), "test", fnv.New32a)
	if err != nil {
		t.Fatal(err)
	}
	return cluster, p
}

// A promise is finished with the record's position, records keep their order, and headers are sorted.
func TestRecordsKeepTheirOrder(t *testing.T) {
	cluster, p := start(t, "t")
	var mu sync.Mutex
	var told []string
	for i := range 100 {
		p.EmitWithHeaders("t", "key", fmt.Append(nil, i),
			goka.Headers{"b": []byte("2"), "a": []byte("1")}).Then(func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(i, err))
		})
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var want, got []string
	for len(got) < 100 && t.Context().Err() == nil {
		for _, r := range reader.PollFetches(t.Context()).Records() {
			got = append(got, fmt.Sprint(string(r.Value), " ", r.Offset, r.Headers[0].Key, r.Headers[1].Key))
		}
	}
	wantTold := make([]string, 100)
	for i := range 100 {
		want = append(want, fmt.Sprint(i, " ", int64(i), "a", "b"))
		wantTold[i] = fmt.Sprint(i, error(nil))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("in the log (-want +got):\n%s", diff)
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(wantTold, told); diff != "" {
		t.Errorf("promises (-want +got):\n%s", diff)
	}
}

// A record that a broker refuses fails with the topic and the cause.
func TestARefusedRecordFails(t *testing.T) {
	cluster, p := start(t, "t")
	cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := request.(*kmsg.ProduceRequest)
		answer := asked.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range asked.Topics {
			a := kmsg.NewProduceResponseTopic()
			a.Topic, a.TopicID = topic.Topic, topic.TopicID
			for _, partition := range topic.Partitions {
				refused := kmsg.NewProduceResponseTopicPartition()
				refused.Partition, refused.ErrorCode = partition.Partition, kerr.TopicAuthorizationFailed.Code
				a.Partitions = append(a.Partitions, refused)
			}
			answer.Topics = append(answer.Topics, a)
		}
		return answer, nil, true
	})
	failed := make(chan error, 1)
	p.Emit("t", "key", []byte("value")).Then(func(err error) { failed <- err })
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("refused with %v", err)
	}
}

// signed is a hash whose sums have the high bit set, as half of those of goka's default hash have.
type signed struct{ hash.Hash32 }

func (signed) Sum32() uint32 { return 0x80000001 }

// The partition of a key is that of goka's views and sarama's producer.
func TestPartitionOfAKeyIsGokas(t *testing.T) {
	const partitions = 3
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return kgo.NewClient(append(producer.Options(1<<20), more...)...)
	}
	hasher := func() hash.Hash32 { return signed{fnv.New32a()} }
	p, err := producer.Builder(open, time.Millisecond, 0)(cluster.ListenAddrs(), "test", hasher)
	if err != nil {
		t.Fatal(err)
	}
	want, err := sarama.NewCustomHashPartitioner(hasher)("t").Partition(
		&sarama.ProducerMessage{Key: sarama.StringEncoder("k")}, partitions)
	if err != nil {
		t.Fatal(err)
	}
	at := make(chan int32, 1)
	p.Emit("t", "k", nil).ThenWithMessage(func(m *sarama.ProducerMessage, err error) {
		if err != nil {
			t.Error(err)
		}
		at <- m.Partition
	})
	if got := <-at; got != want {
		t.Errorf("in partition %d, want %d", got, want)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// When a topic gets more partitions, keys stay in their partitions; otherwise records of a key would be read out of
// order.
func TestKeysStayInTheirPartitionsWhenATopicGrows(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	open := func(more ...kgo.Opt) (*kgo.Client, error) {
		return kgo.NewClient(
			append(producer.Options(1<<20), append(more, kgo.MetadataMaxAge(300*time.Millisecond))...)...)
	}
	p, err := producer.Builder(open, time.Millisecond, 4)(cluster.ListenAddrs(), "test", fnv.New32a)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	spread := func() (at []int32) {
		var mu sync.Mutex
		for i := range 20 {
			sent := make(chan error, 1)
			p.Emit("t", fmt.Sprint("key", i), []byte("v")).ThenWithMessage(func(m *sarama.ProducerMessage, err error) {
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					at = append(at, m.Partition)
				}
				sent <- err
			})
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		return at
	}
	before := spread()
	admin, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if _, err := kadm.NewClient(admin).UpdatePartitions(t.Context(), 7, "t"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // until the producer has heard of it
	if diff := cmp.Diff(before, spread()); diff != "" {
		t.Errorf("partitions of keys (-before +after):\n%s", diff)
	}
}

package committed_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/devbroker"
	"tidemark/kafka/committed"
)

// A writer writes transactions to one partition.
type writer struct {
	*kgo.Client
	cluster committed.Cluster
	topic   string
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	w := &writer{cluster: committed.At(devbroker.ForTest(t)...), topic: fmt.Sprintf("ends%d", time.Now().UnixNano())}
	w.Client = w.client(t, kgo.TransactionalID(w.topic))
	if _, err := kadm.NewClient(w.Client).CreateTopic(t.Context(), 1, 1, nil, w.topic); err != nil {
		t.Fatal(err)
	}
	devbroker.AwaitTopics(t, w.Client, w.topic)
	return w
}

func (w *writer) client(t *testing.T, more ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(more, kgo.SeedBrokers(w.cluster.Brokers...))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// write leaves a transaction with some records open.
func (w *writer) write(t *testing.T, records int) {
	t.Helper()
	if err := w.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.ProduceSync(t.Context(),
			&kgo.Record{Topic: w.topic, Key: fmt.Append(nil, i), Value: []byte("1 1")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *writer) end(t *testing.T, how kgo.TransactionEndTry) {
	t.Helper()
	if err := w.EndTransaction(t.Context(), how); err != nil {
		t.Fatal(err)
	}
}

// last returns the result of Ends for partition 0, once no transaction is open: the markers of a transaction are
// written a moment after it ended.
func (w *writer) last(t *testing.T) int64 {
	t.Helper()
	ends, err := kadm.NewClient(w.Client).ListEndOffsets(t.Context(), w.topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(w.topic, 0)
	for range 100 {
		found, err := committed.Ends(t.Context(), w.Client, w.topic, map[int32]int64{0: end.Offset})
		if err != nil {
			t.Fatal(err)
		}
		if last, decided := found[0]; decided {
			return last
		}
		time.Sleep(20 * time.Millisecond)
	}
	return -1
}

func TestEndsAreAfterTheLastVisibleRecord(t *testing.T) {
	w := newWriter(t)
	if got := w.last(t); got != 0 {
		t.Errorf("empty: %d", got)
	}
	w.write(t, 1)
	w.end(t, kgo.TryAbort) // 0, marker 1
	if got := w.last(t); got != 0 {
		t.Errorf("only aborted: %d", got)
	}
	w.write(t, 3)
	w.end(t, kgo.TryCommit) // 2 to 4, marker 5
	if got := w.last(t); got != 5 {
		t.Errorf("after a commit: %d, want 5", got)
	}
	for range 40 {
		w.write(t, 1)
		w.end(t, kgo.TryAbort) // up to marker 85
	}
	if got := w.last(t); got != 5 {
		t.Errorf("after 40 aborts: %d, want 5", got)
	}
	plain := &kgo.Record{Topic: w.topic, Key: []byte("k"), Value: []byte("1 1")}
	if err := w.client(t).ProduceSync(t.Context(), plain).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := w.last(t); got != plain.Offset+1 {
		t.Errorf("after a plain record: %d, want %d", got, plain.Offset+1)
	}
}

// A processor's recovery ends after the last visible row, and waits for transactions that are open below the table's
// end; a view's does not.
func TestTopicManagerReturnsTheEndThatRecoveryReaches(t *testing.T) {
	w := newWriter(t)
	w.write(t, 2)
	w.end(t, kgo.TryCommit) // 0, 1, marker 2
	w.last(t)
	w.write(t, 2) // 3, 4
	processor, err := committed.TopicManager(w.cluster, committed.NoMinEnd)(w.cluster.Brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer processor.Close()
	view, err := committed.TopicManager(w.cluster, nil)(w.cluster.Brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer view.Close()
	if end, err := view.GetOffset(w.topic, 0, sarama.OffsetNewest); err != nil || end != 2 {
		t.Errorf("view: %d, %v; want 2", end, err)
	}
	told := make(chan int64, 1)
	go func() {
		end, err := processor.GetOffset(w.topic, 0, sarama.OffsetNewest)
		if err != nil {
			t.Error(err)
		}
		told <- end
	}()
	select {
	case end := <-told:
		t.Fatalf("processor: %d while a transaction is undecided", end)
	case <-time.After(300 * time.Millisecond):
	}
	w.end(t, kgo.TryCommit)
	if end := <-told; end != 5 {
		t.Errorf("processor: %d, want 5", end)
	}
}

// A broker limits an answer about many partitions: the rest of them look empty.
func TestEndsBehindAFullAnswer(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(8, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ends := map[int32]int64{}
	for partition := range int32(8) {
		for range 3 {
			if err := client.ProduceSync(t.Context(),
				&kgo.Record{Topic: "t", Partition: partition, Value: []byte("v")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			ends[partition]++
		}
	}
	full := 0
	cluster.ControlKey(kmsg.Fetch.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if asked := request.(*kmsg.FetchRequest); len(asked.Topics[0].Partitions) > 1 {
			full++
			answer := asked.ResponseKind().(*kmsg.FetchResponse)
			topic := kmsg.NewFetchResponseTopic()
			topic.Topic, topic.TopicID = asked.Topics[0].Topic, asked.Topics[0].TopicID
			for _, p := range asked.Topics[0].Partitions {
				empty := kmsg.NewFetchResponseTopicPartition()
				empty.Partition, empty.HighWatermark, empty.LastStableOffset = p.Partition, 3, 3
				topic.Partitions = append(topic.Partitions, empty)
			}
			answer.Topics = append(answer.Topics, topic)
			return answer, nil, true
		}
		return nil, nil, false
	})
	found, err := committed.Ends(t.Context(), client, "t", ends)
	if err != nil {
		t.Fatal(err)
	}
	for partition, end := range ends {
		if found[partition] != end {
			t.Errorf("partition %d: %d, want %d", partition, found[partition], end)
		}
	}
	if full == 0 {
		t.Error("nothing was asked about several partitions at once")
	}
}

package epochs_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka/epochs"
)

// A stale leader returns an old end. A table that is recovered up to there lacks rows whose inputs are committed.
func TestStaleTableEndIsRejected(t *testing.T) { eachGuarantee(t, testStaleEnd) }

func testStaleEnd(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c := newCounterAt(t, guarantee, cluster.ListenAddrs()...)
	c.produce(t, 300)
	run(t, c.one(t.TempDir(), c.count), c.done(t, 300))
	old, err := kadm.NewClient(c.client).ListEndOffsets(t.Context(), c.table)
	if err != nil {
		t.Fatal(err)
	}
	c.produce(t, 200)
	run(t, c.one(t.TempDir(), c.count), c.done(t, 500))

	var lies atomic.Int32
	replaced := time.Now().Add(3 * time.Second)
	cluster.ControlKey(kmsg.ListOffsets.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		asked := request.(*kmsg.ListOffsetsRequest)
		if asked.Topics[0].Topic != c.table || asked.Topics[0].Partitions[0].Timestamp != -1 ||
			time.Now().After(replaced) {
			return nil, nil, false
		}
		lies.Add(1)
		answer := asked.ResponseKind().(*kmsg.ListOffsetsResponse)
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = c.table
		for _, p := range asked.Topics[0].Partitions {
			told := kmsg.NewListOffsetsResponseTopicPartition()
			told.Partition, told.Offset = p.Partition, old[c.table][p.Partition].Offset
			topic.Partitions = append(topic.Partitions, told)
		}
		answer.Topics = append(answer.Topics, topic)
		return answer, nil, true
	})
	c.produce(t, 100)
	run(t, c.one(t.TempDir(), c.count), c.done(t, 600))
	c.judge(t, 600)
	if lies.Load() == 0 {
		t.Error("nobody was told an old end")
	}
}

// A table that was deleted and created again has no rows, so counts would begin at 1 again.
func TestRecreatedTableIsRefused(t *testing.T) { eachGuarantee(t, testRecreatedTable) }

func testRecreatedTable(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	c.produce(t, 100)
	run(t, c.one(t.TempDir(), c.count), c.done(t, 100)) // the refusal is by what is committed
	admin := kadm.NewClient(c.client)
	before, err := c.cluster.TopicID(t.Context(), c.table)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteTopic(t.Context(), c.table); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := admin.CreateTopic(t.Context(), partitions, 1, nil, c.table); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond) // a broker deletes when it comes to it
	}
	// The broker may answer with the former id for a while. A group that starts then waits for the former end, and is
	// refused only after endTimeout.
	for {
		if now, err := c.cluster.TopicID(t.Context(), c.table); err == nil && now != before {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.produce(t, 10)
	refused := c.one(t.TempDir(), c.count)
	run(t, refused, func() bool {
		err := refused.Ready()
		return err != nil && strings.Contains(err.Error(), "created again")
	})
	if n := len(c.read(t, c.counts)); n != 100 {
		t.Errorf("%d outputs, want 100", n)
	}
}

// A group commits past a transaction marker at the end of a partition, so that the committed offset is still in the log
// when retention has emptied the partition.
func TestCommitPastTrailingMarkers(t *testing.T) { eachGuarantee(t, testTrailingMarkers) }

func testTrailingMarkers(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	writer, err := kgo.NewClient(kgo.SeedBrokers(c.cluster.Brokers...), kgo.TransactionalID(c.group+"-writer"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort} {
		if err := writer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"hot", "1", "2", "3", "4", "5"} {
			r := &kgo.Record{Topic: c.events, Partition: partitionOf(key), Key: []byte(key), Value: []byte("x")}
			if err := writer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	run(t, c.one(t.TempDir(), c.count), func() bool { return c.committed(t) })
	admin := kadm.NewClient(c.client)
	ends, err := admin.ListEndOffsets(t.Context(), c.events)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.DeleteRecords(t.Context(), ends.Offsets()); err != nil {
		t.Fatal(err)
	}
	c.produce(t, 20)
	run(t, c.one(t.TempDir(), c.count), func() bool { return len(c.read(t, c.counts)) >= 26 })
	c.judge(t, 26)
}

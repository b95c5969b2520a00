package kafka_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// A writer writes transactions to one partition.
type writer struct {
	*kgo.Client
	topic string
}

func (c *counter) writer(t *testing.T) *writer {
	t.Helper()
	options, err := c.config.Franz()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(append(options, kgo.TransactionalID(fmt.Sprint(time.Now().UnixNano())),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &writer{client, c.streams.Files.Name}
}

// write leaves a transaction with some records open.
func (w *writer) write(t *testing.T, records int) {
	t.Helper()
	if err := w.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := w.ProduceSync(t.Context(), &kgo.Record{Topic: w.topic, Key: fmt.Append(nil, i), Value: []byte("1 1")}).FirstErr(); err != nil {
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

// last asks for the last end of partition 0 below its end as it is now, until all below it is decided: the markers of a
// transaction are written a moment after it ended.
func (w *writer) last(t *testing.T) int64 {
	t.Helper()
	ends, err := kadm.NewClient(w.Client).ListEndOffsets(t.Context(), w.topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(w.topic, 0)
	for range 100 {
		found, err := kafka.LastEnds(t.Context(), w.Client, w.topic, map[int32]int64{0: end.Offset})
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

func TestLastEndIsAfterTheLastRecordThatIsHandedOver(t *testing.T) {
	c := newCounter(t, kafka.AtLeastOnce)
	w := c.writer(t)
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
	if err := c.client.ProduceSync(t.Context(), plain).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := w.last(t); got != plain.Offset+1 {
		t.Errorf("after a plain record: %d, want %d", got, plain.Offset+1)
	}
}

// Recovery ends after the last row that is handed over, and not before a transaction below the table's end is decided; a
// view's does not wait for that.
func TestTopicManagersTellTheEndThatRecoveryReaches(t *testing.T) {
	c := newCounter(t, kafka.AtLeastOnce)
	w := c.writer(t)
	w.write(t, 2)
	w.end(t, kgo.TryCommit) // 0, 1, marker 2
	w.last(t)
	w.write(t, 2) // 3, 4
	processor, err := kafka.TopicManagerBuilder(c.config)(c.config.Brokers)
	if err != nil {
		t.Fatal(err)
	}
	defer processor.Close()
	view, err := kafka.ViewTopicManagerBuilder(c.config)(c.config.Brokers)
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

// Partitions that move between instances in the middle of their work move with each effect there once.
func TestMovedPartitionsAreExact(t *testing.T) {
	c := newCounter(t, kafka.ExactlyOnce)
	c.produce(t, 3000)
	first := c.instance("first", t.TempDir(), c.count)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	for len(c.read(t, c.streams.Notify.Name)) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	c.produce(t, 3000)
	run(t, c.instance("second", t.TempDir(), c.count), func() bool { return len(c.read(t, c.streams.Notify.Name)) >= 6000 })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.judge(t, 6000)
}

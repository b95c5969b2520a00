package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A counter is the smallest processor with effects: a row per key that counts its events, and an output for each.
type counter struct {
	guarantee kafka.Guarantee
	config    kafka.Config
	streams   topology.Streams
	client    *kgo.Client
}

func newCounter(t *testing.T, guarantee kafka.Guarantee) *counter {
	t.Helper()
	c := &counter{guarantee: guarantee, config: kafka.Config{Brokers: devbroker.ForTest(t), ClientID: "test"}}
	var err error
	size := topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1}
	if c.streams, err = topology.New(fmt.Sprintf("counter%d", time.Now().UnixNano()), size); err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), c.config, c.streams.Topics()); err != nil {
		t.Fatal(err)
	}
	options, err := c.config.Franz()
	if err != nil {
		t.Fatal(err)
	}
	if c.client, err = kgo.NewClient(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	return c
}

// produce sends events of 50 keys, half of them of one.
func (c *counter) produce(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		key := "hot"
		if i%2 == 1 {
			key = strconv.Itoa(i % 50)
		}
		c.client.Produce(t.Context(), &kgo.Record{
			Topic: c.streams.Events.Name, Partition: kafka.Partition(key, c.streams.Events.Partitions), Key: []byte(key), Value: []byte("x"),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := c.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (c *counter) group(dir string, count goka.ProcessCallback) *kafka.Group {
	return c.instance("one", dir, count)
}

func (c *counter) instance(id, dir string, count goka.ProcessCallback) *kafka.Group {
	return kafka.NewGroup(kafka.GroupConfig{
		Guarantee: c.guarantee, InstanceID: id,
		Kafka: c.config, Name: c.streams.FilesGroup, Table: c.streams.Files, Dir: dir, Log: slog.New(slog.DiscardHandler),
		Interval: 5 * time.Millisecond,
		Prepare: func(r *sarama.ConsumerMessage) any {
			r.Key = []byte(tidemarkv1.JoinKey(string(r.Key), "file"))
			return string(r.Value)
		},
		Older: func(record, stored []byte) bool { return number(record) < number(stored) },
		PartitionOf: func(_, key string, _ goka.Headers) int32 {
			return kafka.FilePartition([]byte(key), c.streams.Events.Partitions)
		},
		Graph: func(e *kafka.Epochs) *goka.GroupGraph {
			return goka.DefineGroup(goka.Group(c.streams.FilesGroup),
				goka.Input(goka.Stream(c.streams.Events.Name), raw{}, e.Callback(count)),
				goka.Output(goka.Stream(c.streams.Notify.Name), raw{}),
				goka.Persist(raw{}))
		},
	})
}

// raw hands bytes on as they are.
type raw struct{}

func (raw) Encode(v any) ([]byte, error) { return v.([]byte), nil }
func (raw) Decode(b []byte) (any, error) { return b, nil }

// number reads the count at the head of a row or output, "count offset".
func number(b []byte) int {
	n, _ := fields(b)
	return n
}

func fields(b []byte) (n int, offset int64) {
	if b == nil {
		return 0, -1
	}
	if _, err := fmt.Sscanf(string(b), "%d %d", &n, &offset); err != nil {
		panic(err)
	}
	return n, offset
}

func (c *counter) count(ctx goka.Context, _ any) {
	before, _ := ctx.Value().([]byte)
	n, offset := fields(before)
	if ctx.Offset() <= offset {
		return // a restart found it in the row: its output is in the log
	}
	after := fmt.Appendf(nil, "%d %d", n+1, ctx.Offset())
	ctx.Emit(goka.Stream(c.streams.Notify.Name), ctx.Key(), after)
	ctx.SetValue(after)
}

// run runs the group until done, which is asked again and again.
func run(t *testing.T, g *kafka.Group, done func() bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not done in a minute; ready: %v", g.Ready())
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// read returns all records of a topic as they stand.
func (c *counter) read(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	options, err := c.config.Franz()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(append(options, kgo.ConsumeTopics(topic), kgo.FetchMaxWait(50*time.Millisecond),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var records []*kgo.Record
	for quiet := 0; quiet < 3; {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		fetched := reader.PollFetches(ctx).Records()
		cancel()
		records = append(records, fetched...)
		if quiet++; len(fetched) > 0 {
			quiet = 0
		}
	}
	return records
}

// judge checks that every key's outputs count from 1 without a gap or a repeat, and that its row is the last of them.
func (c *counter) judge(t *testing.T, events int) {
	t.Helper()
	outputs, last := map[string]int{}, map[string]int{}
	for _, r := range c.read(t, c.streams.Notify.Name) {
		n := number(r.Value)
		if want := outputs[string(r.Key)] + 1; n != want {
			t.Errorf("output %d of %s says %d", want, r.Key, n)
		}
		outputs[string(r.Key)] = n
	}
	for _, r := range c.read(t, c.streams.Files.Name) {
		last[string(r.Key)] = number(r.Value)
	}
	total := 0
	for key, n := range outputs {
		total += n
		if last[key] != n {
			t.Errorf("row of %s is %d, want %d", key, last[key], n)
		}
	}
	if total != events {
		t.Errorf("%d outputs of %d events", total, events)
	}
}

// eachGuarantee runs a test in both modes.
func eachGuarantee(t *testing.T, test func(t *testing.T, guarantee kafka.Guarantee)) {
	t.Helper()
	for _, guarantee := range []kafka.Guarantee{kafka.AtLeastOnce, kafka.ExactlyOnce} {
		t.Run(string(guarantee), func(t *testing.T) { test(t, guarantee) })
	}
}

func TestGroupOverARestartAndALostStore(t *testing.T) { eachGuarantee(t, testRestart) }

func testRestart(t *testing.T, guarantee kafka.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	dir := t.TempDir()
	seen := func(n int) func() bool { return func() bool { return len(c.read(t, c.streams.Notify.Name)) >= n } }
	c.produce(t, 4000)
	run(t, c.group(dir, c.count), seen(4000))
	c.produce(t, 1000)
	run(t, c.group(dir, c.count), seen(5000))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c.produce(t, 1000)
	run(t, c.group(dir, c.count), seen(6000))
	c.judge(t, 6000)
}

// A callback that fails ends the processor; the group builds another, which begins at the committed prefix.
func TestGroupRecoversFromAFailure(t *testing.T) { eachGuarantee(t, testFailure) }

func testFailure(t *testing.T, guarantee kafka.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	c.produce(t, 2000)
	var failures atomic.Int32
	g := c.group(t.TempDir(), func(ctx goka.Context, message any) {
		if ctx.Offset() == 300 && failures.Add(1) <= 2 {
			ctx.SetValue([]byte("1000000 1000000")) // half of an effect, which must not survive
			ctx.Fail(errors.New("not today"))
			return
		}
		c.count(ctx, message)
	})
	run(t, g, func() bool { return len(c.read(t, c.streams.Notify.Name)) >= 2000 && failures.Load() >= 2 })
	rows := map[string]int{}
	for _, r := range c.read(t, c.streams.Files.Name) {
		rows[string(r.Key)] = number(r.Value)
	}
	total := 0
	for _, n := range rows {
		total += n
	}
	if total != 2000 {
		t.Errorf("rows count %d events, want 2000", total)
	}
	if guarantee == kafka.ExactlyOnce {
		c.judge(t, 2000) // what was done before the failure is not there a second time
	}
}

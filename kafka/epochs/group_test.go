package epochs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka/committed"
	"tidemark/kafka/epochs"
)

// A counter is the smallest processor with effects: a row per key that counts its events, and an output for each.
type counter struct {
	guarantee epochs.Guarantee
	cluster   committed.Cluster
	client    *kgo.Client

	events, table, counts string // topics, with as many partitions each
	group                 string
}

const partitions = 4

func newCounter(t *testing.T, guarantee epochs.Guarantee) *counter {
	t.Helper()
	return newCounterAt(t, guarantee, devbroker.ForTest(t)...)
}

func newCounterAt(t *testing.T, guarantee epochs.Guarantee, brokers ...string) *counter {
	t.Helper()
	name := fmt.Sprintf("counter%d", time.Now().UnixNano())
	c := &counter{
		guarantee: guarantee, cluster: committed.At(brokers...),
		events: name + "-events", table: name + "-table", counts: name + "-counts", group: name,
	}
	var err error
	if c.client, err = kgo.NewClient(kgo.SeedBrokers(c.cluster.Brokers...),
		kgo.UnknownTopicRetries(-1), // a broker may not know a topic yet that was just created
		kgo.RecordPartitioner(kgo.ManualPartitioner())); err != nil {
		t.Fatal(err)
	}
	answers, err := kadm.NewClient(c.client).CreateTopics(t.Context(), partitions, 1, nil, c.events, c.table, c.counts)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)
	devbroker.AwaitTopics(t, c.client, c.events, c.table, c.counts)
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
			Topic: c.events, Partition: partitionOf(key), Key: []byte(key), Value: []byte("x"),
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

func (c *counter) one(dir string, count goka.ProcessCallback) *epochs.Group {
	return c.instance("one", dir, count)
}

func (c *counter) instance(id, dir string, count goka.ProcessCallback) *epochs.Group {
	return epochs.NewGroup(c.conf(id, dir, count))
}

func (c *counter) conf(id, dir string, count goka.ProcessCallback) epochs.Config {
	return epochs.Config{
		Guarantee: c.guarantee, InstanceID: id,
		Cluster: c.cluster, Name: c.group, Table: c.table, Dir: dir, Log: slog.New(slog.DiscardHandler),
		Interval: 5 * time.Millisecond,
		Prepare: func(r *sarama.ConsumerMessage) any {
			r.Key = slices.Concat(r.Key, []byte("/row"))
			return string(r.Value)
		},
		Older:  func(record, stored []byte) bool { return number(record) < number(stored) },
		Hasher: func() hash.Hash32 { return new(headHasher) },
		Graph: func(e *epochs.Epochs) *goka.GroupGraph {
			return goka.DefineGroup(goka.Group(c.group),
				goka.Input(goka.Stream(c.events), raw{}, e.Callback(count)),
				goka.Output(goka.Stream(c.counts), raw{}),
				goka.Persist(raw{}))
		},
	}
}

// A headHasher hashes a key up to its first slash, so that a row is in the partition of its events, whose keys have no
// slash.
type headHasher struct{ key []byte }

func (h *headHasher) Write(b []byte) (int, error) { h.key = append(h.key, b...); return len(b), nil }

func (h *headHasher) Sum(b []byte) []byte { return binary.BigEndian.AppendUint32(b, h.Sum32()) }
func (h *headHasher) Reset()              { h.key = nil }
func (h *headHasher) Size() int           { return 4 }
func (h *headHasher) BlockSize() int      { return 1 }

func (h *headHasher) Sum32() uint32 {
	head, _, _ := bytes.Cut(h.key, []byte("/"))
	return crc32.ChecksumIEEE(head) >> 1 // goka's partitions are signed
}

func partitionOf(key string) int32 {
	h := new(headHasher)
	h.key = []byte(key)
	return int32(h.Sum32() % partitions)
}

// raw is a codec that returns the bytes unchanged.
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
	ctx.Emit(goka.Stream(c.counts), ctx.Key(), after)
	ctx.SetValue(after)
}

// done reports that there are so many outputs, and that the group has committed all inputs. Outputs are visible first:
// a group that is stopped in between processes their inputs again.
func (c *counter) done(t *testing.T, outputs int) func() bool {
	t.Helper()
	return func() bool { return len(c.read(t, c.counts)) >= outputs && c.committed(t) }
}

// committed reports whether the group has committed all inputs.
func (c *counter) committed(t *testing.T) bool {
	t.Helper()
	admin := kadm.NewClient(c.client)
	ends, err := admin.ListEndOffsets(t.Context(), c.events)
	if err != nil {
		t.Fatal(err)
	}
	commits, err := admin.FetchOffsets(t.Context(), c.group)
	if err != nil {
		return false
	}
	for partition, end := range ends[c.events] {
		if commit, _ := commits.Lookup(c.events, partition); end.Offset > 0 && commit.At != end.Offset {
			return false
		}
	}
	return true
}

// run runs the group until done returns true.
func run(t *testing.T, g *epochs.Group, done func() bool) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	for deadline := time.Now().Add(60 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			ready := g.Ready()
			stop()
			<-ended // before its folder is removed, without which its store would end the process
			t.Fatalf("not done in a minute; ready: %v", ready)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// read returns all records of a topic.
func (c *counter) read(t *testing.T, topic string) (records []*kgo.Record) {
	t.Helper()
	admin := kadm.NewClient(c.client)
	starts, err := admin.ListStartOffsets(t.Context(), topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		t.Fatal(err)
	}
	ends, err := admin.ListCommittedOffsets(t.Context(), topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		t.Fatal(err)
	}
	unread := map[int32]int64{} // the end of each partition
	ends.Each(func(o kadm.ListedOffset) {
		if start, found := starts.Lookup(topic, o.Partition); !found || start.Offset < o.Offset {
			unread[o.Partition] = o.Offset
		}
	})
	reader, err := kgo.NewClient(kgo.SeedBrokers(c.cluster.Brokers...), kgo.ConsumeTopics(topic),
		kgo.FetchMaxWait(50*time.Millisecond), kgo.KeepControlRecords(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(unread) > 0 {
		if ctx.Err() != nil {
			t.Fatalf("%s is not read to its end in a minute: %v", topic, unread)
		}
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				records = append(records, r)
			}
			if end, found := unread[r.Partition]; found && r.Offset+1 >= end {
				delete(unread, r.Partition)
			}
		})
	}
	return records
}

// judge checks that every key's outputs count from 1 without a gap or a repeat, and that its row is the last of them.
func (c *counter) judge(t *testing.T, events int) {
	t.Helper()
	outputs, last := map[string]int{}, map[string]int{}
	for _, r := range c.read(t, c.counts) {
		n := number(r.Value)
		if want := outputs[string(r.Key)] + 1; n != want {
			t.Errorf("output %d of %s says %d", want, r.Key, n)
		}
		outputs[string(r.Key)] = n
	}
	for _, r := range c.read(t, c.table) {
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
func eachGuarantee(t *testing.T, test func(t *testing.T, guarantee epochs.Guarantee)) {
	t.Helper()
	for _, guarantee := range []epochs.Guarantee{epochs.AtLeastOnce, epochs.ExactlyOnce} {
		t.Run(string(guarantee), func(t *testing.T) {
			t.Parallel() // most of their time they wait
			test(t, guarantee)
		})
	}
}

func TestGroupOverARestartAndALostStore(t *testing.T) { eachGuarantee(t, testRestart) }

func testRestart(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	dir := t.TempDir()
	seen := func(n int) func() bool { return func() bool { return len(c.read(t, c.counts)) >= n } }
	c.produce(t, 4000)
	run(t, c.one(dir, c.count), seen(4000))
	c.produce(t, 1000)
	run(t, c.one(dir, c.count), seen(5000))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	c.produce(t, 1000)
	run(t, c.one(dir, c.count), seen(6000))
	c.judge(t, 6000)
}

// A callback that fails ends the processor; the next one begins at the committed prefix.
func TestGroupRecoversFromAFailure(t *testing.T) { eachGuarantee(t, testFailure) }

func testFailure(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	c.produce(t, 2000)
	var failures atomic.Int32
	g := c.one(t.TempDir(), func(ctx goka.Context, message any) {
		if ctx.Offset() == 300 && failures.Add(1) <= 2 {
			ctx.SetValue([]byte("1000000 1000000")) // half of an effect, which must not survive
			ctx.Fail(errors.New("not today"))
			return
		}
		c.count(ctx, message)
	})
	run(t, g, func() bool { return len(c.read(t, c.counts)) >= 2000 && failures.Load() >= 2 })
	rows := map[string]int{}
	for _, r := range c.read(t, c.table) {
		rows[string(r.Key)] = number(r.Value)
	}
	total := 0
	for _, n := range rows {
		total += n
	}
	if total != 2000 {
		t.Errorf("rows count %d events, want 2000", total)
	}
	if guarantee == epochs.ExactlyOnce {
		c.judge(t, 2000) // what was done before the failure is not there a second time
	}
}

// Effects are exactly once also while partitions move between instances.
func TestMovedPartitionsAreExact(t *testing.T) {
	c := newCounter(t, epochs.ExactlyOnce)
	c.produce(t, 3000)
	first := c.instance("first", t.TempDir(), c.count)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- first.Run(ctx) }()
	for len(c.read(t, c.counts)) == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	c.produce(t, 3000)
	run(t, c.instance("second", t.TempDir(), c.count), func() bool { return len(c.read(t, c.counts)) >= 6000 })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.judge(t, 6000)
}

// Two inputs of one group have records at the same partitions and offsets: each callback gets its own.
func TestGroupOfTwoInputs(t *testing.T) { eachGuarantee(t, testTwoInputs) }

func testTwoInputs(t *testing.T, guarantee epochs.Guarantee) {
	t.Helper()
	c := newCounter(t, guarantee)
	more := c.events + "-more"
	if _, err := kadm.NewClient(c.client).CreateTopic(t.Context(), partitions, 1, nil, more); err != nil {
		t.Fatal(err)
	}
	devbroker.AwaitTopics(t, c.client, more)
	for _, topic := range []string{c.events, more} {
		for i := range 500 {
			key := fmt.Sprint(topic, i%20)
			c.client.Produce(t.Context(),
				&kgo.Record{
					Topic: topic, Partition: partitionOf(key), Key: []byte(key),
					Value: []byte(topic),
				}, func(_ *kgo.Record, err error) {
					if err != nil {
						t.Error(err)
					}
				})
		}
	}
	if err := c.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	tell := func(ctx goka.Context, message any) {
		if message != string(ctx.Topic()) {
			t.Errorf("the callback of %s got a message of %v", ctx.Topic(), message)
		}
		c.count(ctx, message)
	}
	conf := c.conf("one", t.TempDir(), nil)
	conf.Graph = func(e *epochs.Epochs) *goka.GroupGraph {
		return goka.DefineGroup(goka.Group(c.group),
			goka.Input(goka.Stream(c.events), raw{}, e.Callback(tell)),
			goka.Input(goka.Stream(more), raw{}, e.Callback(tell)),
			goka.Output(goka.Stream(c.counts), raw{}),
			goka.Persist(raw{}))
	}
	run(t, epochs.NewGroup(conf), func() bool { return len(c.read(t, c.counts)) >= 1000 })
	c.judge(t, 1000)
}

// Read-ahead is also limited in bytes: 30 large records take as much memory as thousands of others.
func TestReadingAheadIsBoundedInBytes(t *testing.T) {
	c := newCounter(t, epochs.AtLeastOnce)
	const each, events, bound = 500_000, 40, 4 << 20
	for range events {
		r := &kgo.Record{Topic: c.events, Partition: partitionOf("hot"), Key: []byte("hot"), Value: make([]byte, each)}
		if err := c.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	var ahead, most atomic.Int64
	conf := c.conf("one", t.TempDir(), func(ctx goka.Context, message any) {
		time.Sleep(20 * time.Millisecond) // so that reading gets ahead as far as it may
		ahead.Add(-each)
		c.count(ctx, message)
	})
	conf.Prepare = func(r *sarama.ConsumerMessage) any {
		r.Key = slices.Concat(r.Key, []byte("/row"))
		if n := ahead.Add(each); n > most.Load() {
			most.Store(n)
		}
		return nil
	}
	run(t, epochs.NewGroup(conf), func() bool { return len(c.read(t, c.counts)) >= events })
	c.judge(t, events)
	if n := most.Load(); n > bound+each || n < 4*each { // one of them is in the callback
		t.Errorf("%d bytes were read ahead, want up to %d", n, bound+each)
	}
}

package kafka_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/devbroker"
	"tidemark/kafka"
)

// A consumeBench has a topic, and one producer that chooses partitions.
type consumeBench struct {
	conf     kafka.Config
	topic    string
	producer *kgo.Client
}

func newConsumeBench(t *testing.T, partitions int) *consumeBench {
	t.Helper()
	b := &consumeBench{conf: kafka.Config{Brokers: devbroker.ForTest(t)}}
	b.topic = fmt.Sprintf("consume%d", time.Now().UnixNano())
	devbroker.CreateTopic(t, b.conf.Brokers, b.topic, partitions, nil)
	var err error
	if b.producer, err = kafka.NewProducer(b.conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.producer.Close)
	return b
}

func (b *consumeBench) produce(t *testing.T, partition int32, values ...string) {
	t.Helper()
	var records []*kgo.Record
	for _, value := range values {
		records = append(records, &kgo.Record{Topic: b.topic, Partition: partition, Value: []byte(value)})
	}
	if err := b.producer.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (b *consumeBench) committed(t *testing.T, partition int32) int64 {
	t.Helper()
	offsets, err := kafka.Committed(t.Context(), b.conf, b.topic, b.topic)
	if err != nil {
		t.Fatal(err)
	}
	if at, found := offsets[partition]; found {
		return at.At
	}
	return -1
}

func (b *consumeBench) members(t *testing.T) []kadm.DescribedGroupMember {
	t.Helper()
	groups, err := kadm.NewClient(b.producer).DescribeGroups(t.Context(), b.topic)
	if err != nil {
		t.Fatal(err)
	}
	return groups[b.topic].Members
}

// A handler handles batches of one partition, which are committed when it returns nil.
type handler func(ctx context.Context, batch []*kgo.Record) error

func newConsumer(
	log *slog.Logger, conf kafka.Config, config kafka.ConsumerConfig, handle handler,
) (*kafka.Consumer, error) {
	return kafka.NewConsumer(log, conf, config, func(ctx context.Context, p *kafka.AssignedPartition) error {
		for {
			batch, err := p.Next(ctx)
			if err != nil {
				return err
			}
			if err := handle(ctx, batch); err != nil {
				return fmt.Errorf("from offset %d: %w", batch[0].Offset, err)
			}
			p.Handled(batch[len(batch)-1])
		}
	})
}

// consume runs a member of the topic's group. stop ends it and returns Run's error.
func (b *consumeBench) consume(
	t *testing.T, config kafka.ConsumerConfig, handle handler,
) (c *kafka.Consumer, stop func() error) {
	t.Helper()
	config.Group = b.topic
	if len(config.Topics) == 0 {
		config.Topics = []string{b.topic}
	}
	if config.CommitEvery == 0 {
		config.CommitEvery = 100 * time.Millisecond
	}
	c, err := newConsumer(slog.New(slog.DiscardHandler), b.conf, config, handle)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { _ = stop() })
	return c, stop
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// A journal has the offsets that were handled, in the order in which that was finished.
type journal struct {
	mu      sync.Mutex
	offsets map[string][]int64
}

func (j *journal) add(batch []*kgo.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.offsets == nil {
		j.offsets = map[string][]int64{}
	}
	for _, r := range batch {
		at := fmt.Sprintf("%s/%d", r.Topic, r.Partition)
		j.offsets[at] = append(j.offsets[at], r.Offset)
	}
}

func (j *journal) count() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, offsets := range j.offsets {
		n += len(offsets)
	}
	return n
}

// once checks that each partition was handled from 0 to n without a gap, a repeat or a change of order.
func (j *journal) once(t *testing.T, topic string, partitions, n int) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	want := make([]int64, n)
	for i := range want {
		want[i] = int64(i)
	}
	for partition := range partitions {
		if diff := cmp.Diff(want, j.offsets[fmt.Sprintf("%s/%d", topic, partition)]); diff != "" {
			t.Errorf("partition %d of %s (-want +got):\n%s", partition, topic, diff)
		}
	}
}

func values(n int) (values []string) {
	for i := range n {
		values = append(values, fmt.Sprint(i))
	}
	return values
}

// Two topics, stopped several times on the way: what was committed is not delivered again, and nothing is left out.
func TestConsumeContinuesWhereItStopped(t *testing.T) {
	b, second := newConsumeBench(t, 3), ""
	second = b.topic + "-second"
	devbroker.CreateTopic(t, b.conf.Brokers, second, 3, nil)
	const each = 200
	for partition := range int32(3) {
		b.produce(t, partition, values(each)...)
		first := b.topic
		b.topic = second
		b.produce(t, partition, values(each)...)
		b.topic = first
	}
	var handled journal
	for stopAt := 100; ; stopAt += 400 {
		config := kafka.ConsumerConfig{Topics: []string{b.topic, second}, BatchRecords: 7}
		_, stop := b.consume(t, config, func(_ context.Context, batch []*kgo.Record) error {
			if len(batch) > 7 {
				t.Errorf("a batch of %d records", len(batch))
			}
			time.Sleep(time.Millisecond)
			handled.add(batch)
			return nil
		})
		await(t, "records handled", func() bool { return handled.count() >= min(stopAt, 6*each) })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if stopAt >= 6*each {
			break
		}
	}
	handled.once(t, b.topic, 3, each)
	handled.once(t, second, 3, each)
	if members := b.members(t); len(members) != 0 {
		t.Errorf("still members: %v", members)
	}
}

// While the handler of one partition waits, the others go on, its batch and what is behind it stay uncommitted, and
// memory is bounded.
func TestConsumeBlockedPartition(t *testing.T) {
	b := newConsumeBench(t, 2)
	b.produce(t, 0, "a", "b", "c", "stop", "d")
	var handled journal
	blocked := make(chan struct{}, 1)
	block := func(ctx context.Context, batch []*kgo.Record) error {
		if string(batch[0].Value) == "stop" {
			blocked <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}
		handled.add(batch)
		return nil
	}
	c, stop := b.consume(t, kafka.ConsumerConfig{BatchRecords: 1, DrainTimeout: 100 * time.Millisecond}, block)
	<-blocked
	heap := func() int64 {
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	payload := strings.Repeat("x", 400<<10)
	before := heap()
	const rounds = 60 // of an answer with much of partition 1 and little of partition 0
	for n := range rounds {
		both := []*kgo.Record{
			{Topic: b.topic, Partition: 0, Value: []byte("little")},
			{Topic: b.topic, Partition: 1, Value: []byte(payload)},
		}
		if err := b.producer.ProduceSync(t.Context(), both...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		await(t, "the other partition", func() bool { return handled.count() == 3+n+1 })
	}
	for range rounds {
		b.produce(t, 0, payload)
	}
	await(t, "lag", func() bool {
		lags, err := c.Lag(t.Context())
		return err == nil && len(lags) == 2 && lags[0].Records == 2+2*rounds
	})
	// The embedded broker has all of it in the same heap. Without detach, or without the pause, 20 MB more.
	produced := 2 * rounds * int64(len(payload))
	grown := heap() - before
	t.Logf("memory grew by %d KB for %d KB produced", grown>>10, produced>>10)
	if grown > produced+12<<20 {
		t.Error("too much")
	}
	await(t, "commits", func() bool { return b.committed(t, 0) == 3 && b.committed(t, 1) == rounds })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if at := b.committed(t, 0); at != 3 {
		t.Errorf("committed %d, want 3", at)
	}
	b.consume(t, kafka.ConsumerConfig{}, func(_ context.Context, batch []*kgo.Record) error {
		handled.add(batch)
		return nil
	})
	await(t, "the rest", func() bool { return handled.count() == 5+3*rounds })
	handled.once(t, b.topic, 1, 5+2*rounds)
}

// A partition that is paused and resumed again and again does not wait for records of an idle one.
func TestConsumeBusyPartitionBesideAnIdleOne(t *testing.T) {
	b := newConsumeBench(t, 2)
	const records = 200 // each fills a sixth of the buffer
	payload := strings.Repeat("x", 10<<10)
	for range records {
		b.produce(t, 0, payload)
	}
	begun := time.Now()
	var handled journal
	config := kafka.ConsumerConfig{BufferBytes: 64 << 10, BatchRecords: 2}
	b.consume(t, config, func(_ context.Context, batch []*kgo.Record) error {
		time.Sleep(5 * time.Millisecond)
		handled.add(batch)
		return nil
	})
	await(t, "all", func() bool { return handled.count() == records })
	t.Logf("%d records of 10 KiB in %s", records, time.Since(begun)) // a FetchMaxWait for three or four of them
	handled.once(t, b.topic, 1, records)
}

// A second member takes a partition over: what the first has begun it finishes and commits, and the second begins after
// that.
func TestConsumeRevokedPartitionIsFinished(t *testing.T) {
	b := newConsumeBench(t, 4)
	const each = 150
	for partition := range int32(4) {
		b.produce(t, partition, values(each)...)
	}
	var handled journal
	slow := func(batch []*kgo.Record) {
		time.Sleep(20 * time.Millisecond)
		handled.add(batch)
	}
	config := kafka.ConsumerConfig{BatchRecords: 3, CommitEvery: time.Minute} // so that only revocations commit
	var taken journal
	_, stopFirst := b.consume(t, config, func(_ context.Context, batch []*kgo.Record) error {
		if handled.count() > 50 && taken.count() == 0 {
			time.Sleep(200 * time.Millisecond) // or it would handle all before the second has joined
		}
		slow(batch)
		return nil
	})
	await(t, "the first", func() bool { return handled.count() > 50 })
	_, stopSecond := b.consume(t, config, func(_ context.Context, batch []*kgo.Record) error {
		taken.add(batch)
		slow(batch)
		return nil
	})
	await(t, "the second", func() bool { return taken.count() > 50 })
	if err := stopFirst(); err != nil {
		t.Fatal(err)
	}
	await(t, "all", func() bool { return handled.count() >= 4*each })
	if err := stopSecond(); err != nil {
		t.Fatal(err)
	}
	handled.once(t, b.topic, 4, each)
	for partition := range int32(4) {
		if at := b.committed(t, partition); at != each {
			t.Errorf("committed %d in partition %d, want %d", at, partition, each)
		}
	}
}

// A handler that does not finish within the limit is cancelled, and the new owner gets its batch.
func TestConsumeRevokedPartitionIsCancelled(t *testing.T) {
	b := newConsumeBench(t, 2)
	b.produce(t, 0, values(10)...)
	b.produce(t, 1, values(10)...)
	waiting := make(chan struct{}, 2)
	config := kafka.ConsumerConfig{DrainTimeout: 200 * time.Millisecond}
	b.consume(t, config, func(ctx context.Context, _ []*kgo.Record) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	<-waiting
	<-waiting
	var handled journal
	_, stop := b.consume(t, kafka.ConsumerConfig{}, func(_ context.Context, batch []*kgo.Record) error {
		handled.add(batch)
		return nil
	})
	await(t, "one of the partitions", func() bool { return handled.count() == 10 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if first, second := b.committed(t, 0), b.committed(t, 1); first+second != 10-1 { // the other one has no commit
		t.Errorf("committed %d and %d", first, second)
	}
}

// The group removes a member. What its handler has finished by then is not committed, even if it says that it
// succeeded, and is delivered again when the member has joined again, with what was buffered and paused.
func TestConsumeLostPartitionIsNotCommitted(t *testing.T) {
	b := newConsumeBench(t, 1)
	payload := strings.Repeat("x", 10<<10)
	const records = 50
	for range records {
		b.produce(t, 0, payload)
	}
	var handled journal
	deliveries := make(chan int64, 100)
	finish := make(chan struct{})
	var late atomic.Bool
	config := kafka.ConsumerConfig{BatchRecords: 5, BufferBytes: 64 << 10}
	c, stop := b.consume(t, config, func(ctx context.Context, batch []*kgo.Record) error {
		deliveries <- batch[0].Offset
		select {
		case <-ctx.Done(): // lost
			time.Sleep(500 * time.Millisecond)
			late.Store(true)
		case <-finish:
			handled.add(batch)
		}
		return nil
	})
	first := func() {
		t.Helper()
		select {
		case at := <-deliveries:
			if at != 0 {
				t.Errorf("begins at %d", at)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("nothing is delivered")
		}
	}
	first()
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = b.topic
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID = b.members(t)[0].MemberID
	leave.MemberID, leave.Members = member.MemberID, []kmsg.LeaveGroupRequestMember{member}
	if response, err := leave.RequestWith(t.Context(), b.producer); err != nil || response.ErrorCode != 0 {
		t.Fatal(response, err)
	}
	lost := time.Now()
	first()
	if took := time.Since(lost); took > 8*time.Second { // a heartbeat, and no DrainTimeout
		t.Errorf("delivered again after %s", took)
	}
	if !late.Load() {
		t.Error("delivered again while the first handler was running")
	}
	await(t, "ready", func() bool { return c.Ready() == nil })
	if at := b.committed(t, 0); at > 0 {
		t.Errorf("committed %d", at)
	}
	close(finish)
	await(t, "all", func() bool { return handled.count() == records })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	handled.once(t, b.topic, 1, records)
	if at := b.committed(t, 0); at != records {
		t.Errorf("committed %d", at)
	}
}

package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka"
)

func TestConsumeLag(t *testing.T) {
	b := newConsumeBench(t, 2)
	old := time.Now().Add(-time.Hour)
	client, err := kgo.NewClient(kgo.SeedBrokers(b.conf.Brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 5 {
		r := &kgo.Record{Topic: b.topic, Partition: 1, Timestamp: old.Add(time.Duration(i) * time.Minute)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	next := make(chan struct{})
	c, _ := b.consume(t, kafka.ConsumerConfig{BatchRecords: 2}, func(ctx context.Context, _ []*kgo.Record) error {
		select {
		case <-next:
		case <-ctx.Done():
		}
		return ctx.Err()
	})
	lag := func(records int64, age time.Duration) {
		t.Helper()
		var lags []kafka.ConsumerLag
		await(t, fmt.Sprintf("a lag of %d records", records), func() bool {
			var err error
			lags, err = c.Lag(t.Context())
			return err == nil && len(lags) == 2 &&
				lags[1].Records == records && lags[1].Age.Round(time.Minute) == age
		})
		if lags[0] != (kafka.ConsumerLag{Topic: b.topic, Partition: 0}) {
			t.Errorf("an empty partition: %+v", lags[0])
		}
	}
	lag(5, time.Hour)
	next <- struct{}{}
	lag(3, 58*time.Minute)
	next <- struct{}{}
	next <- struct{}{}
	lag(0, 0)
}

// When ctx ends the batch at hand is finished and committed, and no other is begun.
func TestConsumeDrains(t *testing.T) {
	b := newConsumeBench(t, 1)
	b.produce(t, 0, values(10)...)
	begun, finish := make(chan struct{}, 10), make(chan struct{})
	c, stop := b.consume(t, kafka.ConsumerConfig{BatchRecords: 2}, func(ctx context.Context, _ []*kgo.Record) error {
		begun <- struct{}{}
		<-finish
		return ctx.Err()
	})
	<-begun
	ended := make(chan error)
	go func() { ended <- stop() }()
	await(t, "not ready", func() bool { return c.Ready() != nil })
	select {
	case err := <-ended:
		t.Fatalf("ended with a handler running: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(finish)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if at := b.committed(t, 0); at != 2 || len(begun) != 0 {
		t.Errorf("committed %d, %d more batches", at, len(begun))
	}
	if c.Ready() == nil {
		t.Error("ready after Run")
	}
}

// A static member that restarts keeps its place in the group.
func TestConsumeStaticMember(t *testing.T) {
	b := newConsumeBench(t, 1)
	b.produce(t, 0, values(3)...)
	var handled journal
	for restarts := range 2 {
		config := kafka.ConsumerConfig{InstanceID: "one"}
		_, stop := b.consume(t, config, func(_ context.Context, batch []*kgo.Record) error {
			handled.add(batch)
			return nil
		})
		await(t, "the records", func() bool { return handled.count() == 3*(restarts+1) })
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		members := b.members(t)
		if len(members) != 1 || members[0].InstanceID == nil || *members[0].InstanceID != "one" {
			t.Errorf("members %v", members)
		}
		b.produce(t, 0, values(3)...)
	}
}

func TestConsumeHandlerError(t *testing.T) {
	b := newConsumeBench(t, 2)
	b.produce(t, 0, "a", "wrong", "b")
	wrong := errors.New("wrong")
	config := kafka.ConsumerConfig{Group: b.topic, Topics: []string{b.topic}, BatchRecords: 1}
	c, err := newConsumer(slog.New(slog.DiscardHandler), b.conf, config,
		func(_ context.Context, batch []*kgo.Record) error {
			if string(batch[0].Value) == "wrong" {
				return wrong
			}
			return nil
		})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again with the same Consumer
		err := c.Run(t.Context())
		if !errors.Is(err, wrong) || !strings.Contains(err.Error(), "partition 0 of "+b.topic+": from offset 1") {
			t.Fatal(err)
		}
		if !errors.Is(c.Ready(), wrong) {
			t.Errorf("ready: %v", c.Ready())
		}
		if at := b.committed(t, 0); at != 1 {
			t.Errorf("committed %d", at)
		}
	}
}

func TestConsumeEndsWithWhatWaitingDoesNotMend(t *testing.T) {
	const topic, group = "t", "g"
	acl := func(resource kmsg.ACLResourceType, name string, operations ...kmsg.ACLOperation) (acls []kfake.ACL) {
		for _, operation := range operations {
			acls = append(acls, kfake.ACL{
				Resource: resource, Name: name, Operation: operation, Allow: true,
				Pattern: kmsg.ACLResourcePatternTypeLiteral,
			})
		}
		return acls
	}
	groups, topics := kmsg.ACLResourceTypeGroup, kmsg.ACLResourceTypeTopic
	options := []kfake.Opt{
		kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, topic),
		kfake.Superuser("SCRAM-SHA-256", "root", "p"),
		kfake.User("SCRAM-SHA-256", "notopic", "p", acl(groups, group, kmsg.ACLOperationRead)...),
		kfake.User("SCRAM-SHA-256", "noread", "p",
			append(acl(groups, group, kmsg.ACLOperationRead), acl(topics, topic, kmsg.ACLOperationDescribe)...)...),
		kfake.User("SCRAM-SHA-256", "nogroup", "p", acl(topics, topic, kmsg.ACLOperationRead)...),
	}
	cluster, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	for _, test := range []struct{ user, topic, want string }{
		{"root", "missing", "topic missing does not exist"},
		{"notopic", topic, "topic t: this user may not describe it"},
		{"noread", topic, "topic t: this user may not read it"},
		{"nogroup", topic, "group g: this user may not join it"},
	} {
		conf := kafka.Config{Brokers: cluster.ListenAddrs(), SASL: kafka.SASLConfig{
			Mechanism: "SCRAM-SHA-256", User: test.user, Password: "p",
		}}
		config := kafka.ConsumerConfig{Group: group, Topics: []string{test.topic}}
		c, err := newConsumer(slog.New(slog.DiscardHandler), conf, config,
			func(context.Context, []*kgo.Record) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q (ready: %v)", test.user, err, test.want, c.Ready())
		}
		cancel()
	}
	b := &consumeBench{topic: topic, conf: kafka.Config{Brokers: cluster.ListenAddrs(), SASL: kafka.SASLConfig{
		Mechanism: "SCRAM-SHA-256", User: "root", Password: "wrong",
	}}}
	c, _ := b.consume(t, kafka.ConsumerConfig{}, nil)
	await(t, "the refused login", func() bool { // this broker hangs up without an answer
		err := c.Ready()
		return err != nil && strings.Contains(err.Error(), "refuses the one it got")
	})
}

func TestConsumeDeletedTopic(t *testing.T) {
	t.Parallel()
	b := newConsumeBench(t, 1)
	b.produce(t, 0, "a")
	handled := make(chan struct{}, 1)
	c, stop := b.consume(t, kafka.ConsumerConfig{}, func(context.Context, []*kgo.Record) error {
		handled <- struct{}{}
		return nil
	})
	<-handled
	if _, err := kadm.NewClient(b.producer).DeleteTopics(t.Context(), b.topic); err != nil {
		t.Fatal(err)
	}
	await(t, "an end", func() bool { return errors.Is(c.Ready(), kafka.ErrNoTopic) })
	if err := stop(); err != nil && !errors.Is(err, kafka.ErrNoTopic) {
		t.Error(err)
	}
}

// Records that retention has deleted before the group read them are not passed over in silence.
func TestConsumeCommitOutsideOfTheLog(t *testing.T) {
	b := newConsumeBench(t, 1)
	b.produce(t, 0, values(5)...)
	commit := kadm.Offset{Topic: b.topic, At: 1, LeaderEpoch: -1}
	if err := kafka.Commit(t.Context(), b.conf, b.topic, commit); err != nil {
		t.Fatal(err)
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(b.topic, 0, 3, -1)
	if _, err := kadm.NewClient(b.producer).DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
	config := kafka.ConsumerConfig{Group: b.topic, Topics: []string{b.topic}}
	c, err := newConsumer(slog.New(slog.DiscardHandler), b.conf, config,
		func(_ context.Context, batch []*kgo.Record) error { return fmt.Errorf("delivered %d", batch[0].Offset) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Run(ctx); err == nil || !strings.Contains(err.Error(), "no longer has the offset") {
		t.Error(err)
	}
}

// Brokers that are not there are waited for, and Ready says why.
func TestConsumeWaitsForBrokers(t *testing.T) {
	first, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	address := first.ListenAddrs()[0]
	first.Close()
	b := &consumeBench{conf: kafka.Config{Brokers: []string{address}}, topic: "t"}
	c, stop := b.consume(t, kafka.ConsumerConfig{}, func(context.Context, []*kgo.Record) error { return nil })
	refused := func() bool {
		err := c.Ready()
		return err != nil && strings.Contains(err.Error(), address)
	}
	await(t, "the broker in the error", refused)
	var port int
	if _, err := fmt.Sscanf(address, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	again, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.Ports(port))
	if err != nil {
		t.Fatal(err)
	}
	await(t, "ready", func() bool { return c.Ready() == nil })
	again.Close()
	await(t, "the broker in the error", refused)
	begun := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("it left a dead broker after %s", took)
	}
}

func TestNewConsumerRefuses(t *testing.T) {
	conf := kafka.Config{Brokers: []string{"127.0.0.1:1"}}
	for _, test := range []struct {
		conf   kafka.Config
		config kafka.ConsumerConfig
	}{
		{conf, kafka.ConsumerConfig{Topics: []string{"t"}}},
		{conf, kafka.ConsumerConfig{Group: "g"}},
		{kafka.Config{}, kafka.ConsumerConfig{Group: "g", Topics: []string{"t"}}},
	} {
		if _, err := newConsumer(slog.New(slog.DiscardHandler), test.conf, test.config, nil); err == nil {
			t.Errorf("%+v, %+v: no error", test.conf, test.config)
		}
	}
}

// Only committed records are delivered; aborted ones and markers are passed over by the commit too.
func TestConsumeTransactions(t *testing.T) {
	b := newConsumeBench(t, 1)
	client, err := kgo.NewClient(
		kgo.SeedBrokers(b.conf.Brokers...), kgo.TransactionalID(b.topic), kgo.DefaultProduceTopic(b.topic),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	transaction := func(end kgo.TransactionEndTry, value string) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		transaction(kgo.TryCommit, "committed")
		transaction(kgo.TryAbort, "aborted")
	}
	var handled journal
	c, stop := b.consume(t, kafka.ConsumerConfig{BatchRecords: 1}, func(_ context.Context, batch []*kgo.Record) error {
		for _, r := range batch {
			if string(r.Value) != "committed" || r.Attrs.IsControl() {
				t.Errorf("delivered %q at %d", r.Value, r.Offset)
			}
		}
		handled.add(batch)
		return nil
	})
	await(t, "commit of the last marker", func() bool { return b.committed(t, 0) == 12 })
	if n := handled.count(); n != 3 {
		t.Errorf("%d records, want 3", n)
	}
	if lags, err := c.Lag(t.Context()); err != nil || len(lags) != 1 || lags[0].Records != 0 || lags[0].Age != 0 {
		t.Errorf("%+v, %v", lags, err)
	}
	transaction(kgo.TryAbort, "aborted")
	await(t, "commit of an aborted transaction", func() bool { return b.committed(t, 0) == 14 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// A handler of partitions commits less than it has received, and receives the rest again.
func TestConsumePartitionHandler(t *testing.T) {
	b := newConsumeBench(t, 1)
	b.produce(t, 0, values(5)...)
	run := func(first, handled int64) {
		t.Helper()
		var got journal
		idle := make(chan error, 1)
		c, err := kafka.NewConsumer(slog.New(slog.DiscardHandler), b.conf,
			kafka.ConsumerConfig{
				Group: b.topic, Topics: []string{b.topic}, BatchRecords: 2, CommitEvery: 100 * time.Millisecond,
			},
			func(ctx context.Context, p *kafka.AssignedPartition) error {
				if begin := p.Begin(); max(0, begin) != first {
					t.Errorf("begins at %d, want %d", begin, first)
				}
				for {
					wait, cancel := context.WithTimeout(ctx, 2*time.Second)
					batch, err := p.Next(wait)
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						idle <- err
						_, err = p.Next(ctx)
					}
					if err != nil {
						return err
					}
					got.add(batch)
					for _, r := range batch {
						if r.Offset == handled {
							p.Handled(r)
						}
					}
				}
			})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		<-idle
		await(t, "the commit", func() bool { return b.committed(t, 0) == handled+1 })
		lags, err := c.Lag(t.Context())
		if err != nil || lags[0].Records != 4-handled || (lags[0].Age > 0) != (handled < 4) {
			t.Errorf("lag: %+v, %v", lags, err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if at := got.offsets[b.topic+"/0"]; at[0] != first || at[len(at)-1] != 4 {
			t.Errorf("received %v, want all from %d", at, first)
		}
	}
	run(0, 2)
	run(3, 4)
}

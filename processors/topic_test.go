package processors_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka"
	"tidemark/processors"
)

// deleteTopic deletes a topic and waits until the cluster has forgotten it.
func deleteTopic(t *testing.T, b *bench, name string) {
	t.Helper()
	admin := kadm.NewClient(b.client)
	if _, err := admin.DeleteTopic(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		topics, err := admin.ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !topics.Has(name) {
			b.client.PurgeTopicsFromClient(name)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%s is still there", name)
}

// An events topic that is recreated under a running group is refused as it is at the start.
func TestTopicRecreatedUnderARunningGroup(t *testing.T) {
	b := newBench(t)
	conf := b.conf
	conf.Metrics = prometheus.NewRegistry()
	ended := make(chan error, 1)
	go func() { ended <- processors.NewFiles(conf).Run(t.Context()) }()
	for i := range 5 {
		b.send(t, "w", event("updated", "w", fmt.Sprint("e", i), "f", ""))
	}
	b.records(t, b.conf.Streams.Notify, 5)
	deleteTopic(t, b, b.conf.Streams.Events.Name)
	b.apply(t)
	b.send(t, "w", event("updated", "w", "new", "f", ""))
	select {
	case err := <-ended:
		if !errors.Is(err, processors.ErrTopicRecreated) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(60 * time.Second):
		t.Error("the new log is read as if it were the old one")
	}
}

// Input that retention took before it was read is for a person to judge, so that person must hear of it.
func TestMissingInputIsReported(t *testing.T) {
	b := newBench(t)
	stop := b.start(t)
	for i := range 2 {
		b.send(t, "w", event("updated", "w", fmt.Sprint("e", i), "f", ""))
	}
	b.records(t, b.conf.Streams.Notify, 2)
	stop()
	for i := range 3 {
		b.send(t, "w", event("updated", "w", fmt.Sprint("lost", i), "f", ""))
	}
	home := kafka.Partition("w", b.conf.Streams.Events.Partitions)
	gone := kadm.Offsets{}
	gone.AddOffset(b.conf.Streams.Events.Name, home, 4, -1)
	if _, err := kadm.NewClient(b.client).DeleteRecords(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	conf := b.conf
	conf.Metrics = prometheus.NewRegistry()
	files := processors.NewFiles(conf)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- files.Run(ctx) }()
	want := fmt.Sprintf("%s/%d: the next offset to read is not in the log (the group has committed offset 2)",
		b.conf.Streams.Events.Name, home)
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := files.Ready()
		if err != nil && strings.Contains(err.Error(), want) {
			break
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("says %v", err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An instance that has read nothing of the old log is told by no offset, when it takes the others' partitions over,
// that they begin anew.
func TestTopicRecreatedUnderTwoInstances(t *testing.T) {
	b := newBench(t)
	type instance struct {
		ended chan error
		ready func() error
	}
	start := func(id string) instance {
		conf := b.conf
		conf.Metrics, conf.InstanceID, conf.Dir = prometheus.NewRegistry(), id, t.TempDir()
		files := processors.NewFiles(conf)
		i := instance{ended: make(chan error, 1), ready: files.Ready}
		go func() { i.ended <- files.Run(t.Context()) }()
		return i
	}
	both := []instance{start("a"), start("b")}
	group := b.conf.Streams.FilesGroup
	waitFor(t, func() string {
		lag, err := kafka.Lags(t.Context(), b.conf.Kafka, group, b.conf.Streams.Events.Name)
		return fmt.Sprint(lag.Members, err, both[0].ready(), both[1].ready())
	}, "2 <nil> <nil> <nil>")
	for i := range 5 {
		b.send(t, "w", event("updated", "w", fmt.Sprint("e", i), "f", "")) // one partition, of one instance
	}
	b.records(t, b.conf.Streams.Notify, 5)
	waitFor(t, func() string { // a commit that comes later would lie past the new log's end, and be noticed by that
		lag, err := kafka.Lags(t.Context(), b.conf.Kafka, group, b.conf.Streams.Events.Name)
		return fmt.Sprint(lag.Total(), err)
	}, "0 <nil>")
	deleteTopic(t, b, b.conf.Streams.Events.Name)
	b.apply(t)
	b.send(t, "w", event("updated", "w", "new", "f", ""))
	deadline := time.After(60 * time.Second)
	for _, i := range both {
		select {
		case err := <-i.ended:
			if !errors.Is(err, processors.ErrTopicRecreated) {
				t.Errorf("ended with %v", err)
			}
		case <-deadline:
			t.Fatal("the new log is read as if it were the old one")
		}
	}
}

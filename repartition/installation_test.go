package repartition_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/processors"
	"tidemark/topology"
)

// An installation is topics under a prefix, and the groups to run on them.
type installation struct {
	conf   processors.Config
	client *kgo.Client
}

func install(t *testing.T, brokers []string, partitions int, guarantee epochs.Guarantee) *installation {
	t.Helper()
	streams, err := topology.New(fmt.Sprintf("r%08x", rand.Uint32()),
		topology.Sizing{Partitions: partitions, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	i := &installation{conf: processors.Config{
		Kafka: kafka.Config{Brokers: brokers, ClientID: "test"}, Streams: streams, Dir: t.TempDir(),
		Log: slog.New(slog.DiscardHandler), Guarantee: guarantee,
	}}
	if guarantee == epochs.ExactlyOnce {
		i.conf.InstanceID = "i" // it then stays a member for 10 s, see leave
	}
	// events have times of the past
	if i.client, err = kafka.NewProducer(i.conf.Kafka, kgo.RecordDeliveryTimeout(0)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.client.Close)
	return i
}

func (i *installation) apply(t *testing.T) *installation {
	t.Helper()
	if _, err := kafka.ApplyTopics(t.Context(), i.conf.Kafka, i.conf.Streams.Topics()); err != nil {
		t.Fatal(err)
	}
	return i
}

// process runs both groups until they have read everything.
func (i *installation) process(t *testing.T) {
	t.Helper()
	i.run(t, true)
}

// run runs the files group, and that of the workspaces if notices are to be counted, until they have read everything.
func (i *installation) run(t *testing.T, counting bool) {
	t.Helper()
	conf, s := i.conf, i.conf.Streams
	conf.Metrics = prometheus.NewRegistry()
	groups := []struct {
		run          func(context.Context) error
		group, topic string
	}{{processors.NewFiles(conf).Run, s.FilesGroup, s.Events.Name}, {
		processors.NewWorkspaces(conf).Run,
		s.WorkspacesGroup, s.Notify.Name,
	}}
	if !counting {
		groups = groups[:1]
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, len(groups))
	for _, g := range groups {
		go func() { ended <- g.run(ctx) }()
	}
	await := func(what func(kafka.GroupLag) bool) {
		t.Helper()
		for _, g := range groups {
			for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
				lag, err := kafka.Lags(t.Context(), conf.Kafka, g.group, g.topic)
				if err == nil && what(lag) {
					break
				}
				if time.Since(begun) > time.Minute {
					t.Fatalf("group %s: %+v, %v", g.group, lag, err)
				}
			}
		}
	}
	await(func(l kafka.GroupLag) bool { return l.Members > 0 && l.Total() == 0 })
	cancel()
	for range groups {
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range groups {
		i.leave(t, g.group)
	}
	await(func(l kafka.GroupLag) bool { return l.Members == 0 })
}

// leave removes the static member from a group, whose session would expire after 10 s.
func (i *installation) leave(t *testing.T, group string) {
	t.Helper()
	if i.conf.InstanceID == "" {
		return
	}
	left, err := kadm.NewClient(i.client).LeaveGroup(t.Context(),
		kadm.LeaveGroup(group).InstanceIDs(i.conf.InstanceID).Reason("the test goes on"))
	if err == nil {
		err = left.Error()
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) { // it may have left by itself
		t.Fatal(err)
	}
}

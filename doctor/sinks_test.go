package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

// Of each sink the groups are checked that there are, notify's and model's by rule, also in the retry topic.
func TestSinkGroups(t *testing.T) {
	config := kafka.Config{Brokers: devbroker.ForTest(t)}
	s, err := topology.New(fmt.Sprintf("d%08x", rand.Uint32()),
		topology.Sizing{Partitions: 2, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kafka.ApplyTopics(t.Context(), config, s.Topics()); err != nil {
		t.Fatal(err)
	}
	client, err := kafka.NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	commit := func(group, topic string, partition int32, at int64) {
		t.Helper()
		if err := kafka.Commit(t.Context(), config, s.SinkGroup(group),
			kadm.Offset{Topic: topic, Partition: partition, At: at, LeaderEpoch: -1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, topic := range []string{s.Notify.Name, s.Index.Name, s.SinkRetry.Name} {
		record := &kgo.Record{Topic: topic, Partition: 1, Key: []byte("w/f"), Value: []byte("{}")}
		if err := client.ProduceSync(t.Context(), record).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	commit("notify-read", s.Notify.Name, 1, 1)
	commit("notify-read", s.SinkRetry.Name, 1, 1)
	commit("notify-lags", s.Notify.Name, 1, 0)
	commit("notify-lags", s.SinkRetry.Name, 1, 1)
	commit("search", s.Index.Name, 1, 1)
	commit("search", s.SinkRetry.Name, 1, 0)

	got := map[string]string{}
	d := &cluster{Config: Config{Kafka: config, Streams: s, Watch: 100 * time.Millisecond}}
	for _, role := range s.SinkRoles() {
		check := d.group(role, role.Groups[0])
		if role.Groups[0].Prefixed {
			check = d.groups(role, role.Groups[0])
		}
		for _, f := range check(t.Context()) {
			name, what, _ := strings.Cut(f.What, ": ")
			got[strings.TrimPrefix(name, s.SinkGroup(""))] = f.Status + " " + what + " → " + f.Fix
		}
	}
	want := map[string]string{ // what each begins with
		"search": "warn lag 0, but the group has no members (state Empty) → start `tidemark sink search`",
		"search in " + s.SinkRetry.Name: "fail lag 1 and no members (state Empty): dead letters that were replayed are " +
			"not delivered → start `tidemark sink search`",
		"notify-read": "warn lag 0, but the group has no members (state Empty) → start `tidemark sink notify`",
		"notify-lags": "warn lag 1 and no members (state Empty): messages are not sent → start `tidemark sink notify`",
		"archive":     "note nobody has run this sink → to use it, start `tidemark sink archive`",
		"model-…":     "note this user sees no group of this sink, so nobody has run it → to use it, start `tidemark sink",
	}
	for name, begin := range want {
		if !strings.HasPrefix(got[name], begin) {
			t.Errorf("%s: %q, want %q", name, got[name], begin)
		}
	}
	if len(got) != len(want) {
		t.Errorf("checked: %v", got)
	}
}

// What holds up a sink is another thing than what holds up a processor, and some sinks wait on purpose.
func TestStuckSinks(t *testing.T) {
	s, err := topology.New("d", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	lag := kafka.GroupLag{Group: "g", State: "Stable", Members: 1, Partitions: []kafka.PartitionLag{{End: 1000}}}
	growing := lag
	growing.Partitions = []kafka.PartitionLag{{End: 3000, Commit: 9}}
	for _, test := range []struct {
		role        topology.Role
		after       kafka.GroupLag
		status, fix string
	}{
		{s.SearchRole(), lag, Failure, "look at /readyz and the log of `tidemark sink search`: its destination may be down"},
		{s.NotifyRole(), lag, Warning, "nothing, if the rule has quiet hours, a digest or a rate; else look at /readyz"},
		{s.ArchiveRole(), lag, Warning, "nothing, if an object is being filled; else look at /readyz"},
		{s.ModelRole(), lag, Failure, "look at /readyz and the log of `tidemark sink model`"},
		{s.SearchRole(), growing, Warning, "start more processes (up to one per partition), or find what slows them: " +
			"tidemark_sink_delivery_seconds"},
		{s.ProcessRole(), growing, Warning, "start more processes (up to one per partition), or find what slows them: " +
			"tidemark_epoch_publish_seconds"},
	} {
		f := progress(lag, test.after, time.Second, test.role, test.role.Groups[0])
		if f.Status != test.status || !strings.HasPrefix(f.Fix, test.fix) {
			t.Errorf("%s: %+v", test.role.Name, f)
		}
	}
}

// A destination is checked as its sink does, also when no broker answers.
func TestDestinations(t *testing.T) {
	var found []Finding
	Run(t.Context(), Config{
		NoWebhooks: Finding{Status: Skipped}, Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}},
		Destinations: []Destination{
			{"search", func(context.Context) error { return nil }},
			{"archive", func(context.Context) error { return errors.New("archive: --archive-url: there is no bucket b") }},
			{"model", func(ctx context.Context) error {
				if _, bounded := ctx.Deadline(); !bounded {
					return errors.New("no deadline")
				}
				return nil
			}},
		},
	}, func(f Finding) {
		if f.Check == "destination" {
			found = append(found, f)
		}
	})
	if len(found) != 3 || found[0].Status != OK || !strings.HasPrefix(found[0].What, "search: reached") ||
		found[1].Status != Failure || found[1].What != "archive: --archive-url: there is no bucket b" ||
		found[1].Fix == "" || found[2].Status != OK {
		t.Errorf("%+v", found)
	}
}

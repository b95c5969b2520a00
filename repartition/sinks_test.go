package repartition_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/repartition"
	"tidemark/topology"
)

// commitBefore commits for the group of a sink in every partition of a topic, some records before its end.
func (i *installation) commitBefore(t *testing.T, sink, topic string, records int64) {
	t.Helper()
	spans, err := kafka.Extent(t.Context(), i.conf.Kafka, topic)
	if err != nil {
		t.Fatal(err)
	}
	var offsets []kadm.Offset
	for partition, span := range spans {
		offsets = append(offsets, kadm.Offset{
			Topic: topic, Partition: partition, At: max(0, span.To-records), LeaderEpoch: -1,
		})
	}
	if err := kafka.Commit(t.Context(), i.conf.Kafka, i.conf.Streams.SinkGroup(sink), offsets...); err != nil {
		t.Fatal(err)
	}
}

// lag returns the lag of a sink's group, -1 if it has committed nothing.
func (i *installation) lag(t *testing.T, sink, topic string) int64 {
	t.Helper()
	lag, err := kafka.Lags(t.Context(), i.conf.Kafka, i.conf.Streams.SinkGroup(sink), topic)
	if err != nil {
		t.Fatal(err)
	}
	if !lag.Committed() {
		return -1
	}
	return lag.Total()
}

func (i *installation) put(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	if err := i.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// texts returns the records of a topic keyed by file, as key=value, and fails for one in another partition than its
// key's.
func (i *installation) texts(t *testing.T, topic topology.Topic) (found []string) {
	t.Helper()
	i.each(t, topic.Name, func(r *kgo.Record) error {
		if want := kafka.FilePartition(r.Key, topic.Partitions); r.Partition != want {
			return fmt.Errorf("%s: %q is in partition %d, want %d", topic.Name, r.Key, r.Partition, want)
		}
		found = append(found, fmt.Sprintf("%s=%s", r.Key, r.Value))
		return nil
	})
	return found
}

// Sinks go on after a copy: nothing is sent, archived or asked again, and what was replayed and not read is read.
func TestSinksGoOn(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 5, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	s, s2 := old.conf.Streams, moved.conf.Streams
	old.send(t, []happening{added("w", "e1", "f", ""), added("v", "e2", "g", "")})
	old.process(t)
	old.send(t, []happening{added("w", "e3", "h", "")})
	old.run(t, false) // its notice is not counted, and copied

	home := kafka.Partition("w", 5)
	retry := func(sink, value string) *kgo.Record {
		return &kgo.Record{
			Topic: s.SinkRetry.Name, Partition: home, Key: []byte("w/f"), Value: []byte(value),
			Headers: []kgo.RecordHeader{
				{Key: topology.HeaderRetrySink, Value: []byte(sink)},
				{Key: topology.HeaderRetrySource, Value: []byte(s.Index.Name + "/1:2")},
			},
		}
	}
	old.put(t, retry("search", "read"), retry("model-all", "read"))
	for _, sink := range []string{"notify-all", "model-all", "search"} {
		old.commitBefore(t, sink, s.SinkRetry.Name, 0)
	}
	old.put(t, retry("notify-all", "unread 1"), retry("search", "unread 2"))
	for _, p := range []string{"1", "2"} {
		old.put(t, &kgo.Record{Topic: s.Predictions.Name, Partition: home, Key: []byte("w/f/r"), Value: []byte(p)})
	}
	rejected := &kgo.Record{Topic: s.Index.Name, Partition: home, Offset: 7, Key: []byte("w/h"), Value: []byte("{}")}
	old.put(t, deadletters.NewRecord(s.DLQ.Name, rejected, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Sink: "search",
	}))
	old.commitBefore(t, "notify-all", s.Notify.Name, 0)
	old.commitBefore(t, "search", s.Index.Name, 0)
	old.commitBefore(t, "archive", s.Events.Name, 0)
	old.commitBefore(t, "model-all", s.Index.Name, 0)
	old.commitBefore(t, "model-lags", s.Index.Name, 1)

	for range 2 { // the second run changes nothing
		move := old.moveTo(moved, nil)
		summary, err := move.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if summary.Retries != 2 || summary.Predictions != 1 || summary.Notices != 1 || summary.DeadLetters != 1 {
			t.Errorf("%+v", summary)
		}
		want := []repartition.SinkStart{
			{Group: s2.SinkGroup("search"), Begins: repartition.AtStart},
			{Group: s2.SinkGroup("notify-all"), Begins: repartition.AtEnd},
			{Group: s2.SinkGroup("archive"), Begins: repartition.AtEnd},
			{Group: s2.SinkGroup("model-all"), Begins: repartition.AtEnd},
			{Group: s2.SinkGroup("model-lags"), Begins: repartition.AtStart},
		}
		if diff := cmp.Diff(want, summary.Sinks); diff != "" {
			t.Errorf("groups (-want +got):\n%s", diff)
		}
		for _, g := range []struct {
			sink, topic string
			lag         int64
		}{
			{"search", s2.Index.Name, -1},
			{"notify-all", s2.Notify.Name, 0},
			{"archive", s2.Events.Name, 0},
			{"model-all", s2.Index.Name, 0},
			{"model-lags", s2.Index.Name, -1},
			{"notify-all", s2.SinkRetry.Name, -1},
		} {
			if got := moved.lag(t, g.sink, g.topic); got != g.lag {
				t.Errorf("%s has lag %d in %s, want %d", g.sink, got, g.topic, g.lag)
			}
		}
		if diff := cmp.Diff([]string{"w/f=unread 1", "w/f=unread 2"}, moved.texts(t, s2.SinkRetry)); diff != "" {
			t.Errorf("retries (-want +got):\n%s", diff)
		}
	}
	if got := moved.texts(t, s2.Predictions); len(got) == 0 || got[len(got)-1] != "w/f/r=2" {
		t.Errorf("predictions: %v", got)
	}

	// Once a sink has run there, the new prefix is in use.
	moved.commitBefore(t, "archive", s2.Events.Name, 0)
	move := old.moveTo(moved, nil)
	if _, err := move.Run(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "is in use: group "+s2.SinkGroup("archive")) {
		t.Errorf("a prefix in use: %v", err)
	}

	// The entry of a sink goes back to it under the new prefix.
	queue := deadletters.New(moved.conf.Kafka, s2)
	result, err := queue.Replay(t.Context(), deadletters.Filter{Sinks: []string{"search"}},
		deadletters.Options{Yes: true})
	if err != nil || result.Done != 1 {
		t.Errorf("replay: %+v, %v", result, err)
	}
	if got := moved.texts(t, s2.SinkRetry); len(got) != 3 || got[2] != "w/h={}" {
		t.Errorf("replayed: %v", got)
	}
}

// Notices that are counted are not copied. So each of them must have been read.
func TestSinksThatKeepACopyFromBeingMade(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce).apply(t), install(t, brokers, 3, epochs.AtLeastOnce)
	s := old.conf.Streams
	old.send(t, []happening{added("w", "e1", "f", "")})
	old.process(t)
	old.commitBefore(t, "notify-late", s.Notify.Name, 1)
	refused := func(want string) {
		t.Helper()
		move := old.moveTo(moved, nil)
		if _, err := move.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	refused("group " + s.SinkGroup("notify-late") + " has not read 1 records of " + s.Notify.Name +
		", which would not be sent: run `sink notify`")
	old.commitBefore(t, "notify-late", s.Notify.Name, 0)

	member, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumerGroup(s.SinkGroup("search")),
		kgo.ConsumeTopics(s.Index.Name))
	if err != nil {
		t.Fatal(err)
	}
	member.PollFetches(t.Context())
	refused("a sink is running: group " + s.SinkGroup("search") + " has members: stop `sink search`")
	if err := member.LeaveGroupContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	member.Close()
	move := old.moveTo(moved, nil)
	if _, err := move.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

// An installation that was made before there were sinks has none of their topics.
func TestAnInstallationWithoutSinks(t *testing.T) {
	brokers := devbroker.ForTest(t)
	old, moved := install(t, brokers, 2, epochs.AtLeastOnce), install(t, brokers, 3, epochs.AtLeastOnce)
	topics := old.conf.Streams.Topics()
	if _, err := kafka.ApplyTopics(t.Context(), old.conf.Kafka,
		topics[:len(topics)-len(old.conf.Streams.SinkTopics())]); err != nil {
		t.Fatal(err)
	}
	old.send(t, []happening{added("w", "e1", "f", "")})
	old.process(t)
	move := old.moveTo(moved, nil)
	summary, err := move.Run(t.Context())
	if err != nil || summary.Files.Equal != 1 || summary.Sinks != nil {
		t.Errorf("%+v, %v", summary, err)
	}
	if err := kafka.CheckTopics(t.Context(), moved.conf.Kafka, moved.conf.Streams.Topics()); err != nil {
		t.Error(err)
	}
}

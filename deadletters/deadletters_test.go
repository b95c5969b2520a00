package deadletters_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/processors"
	"tidemark/topology"
)

const partitions = 4

// A bench is an installation: its topics, the files group, and its dead letters.
type bench struct {
	conf   kafka.Config
	s      topology.Streams
	queue  *deadletters.Queue
	client *kgo.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := topology.New(fmt.Sprintf("d%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: partitions, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{conf: kafka.Config{Brokers: devbroker.ForTest(t)}, s: s}
	if _, err := kafka.ApplyTopics(t.Context(), b.conf, s.Topics()); err != nil {
		t.Fatal(err)
	}
	if b.client, err = kafka.NewProducer(b.conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	b.queue = deadletters.New(b.conf, s)
	return b
}

// fold runs the files group until the test ends.
func (b *bench) fold(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	files := processors.NewFiles(processors.Config{
		Kafka: b.conf, Streams: b.s, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	})
	go func() { ended <- files.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (b *bench) put(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	for _, r := range records {
		if r.Topic == "" {
			r.Topic = b.s.Events.Name
		}
	}
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// send puts an event of the workspace w where it belongs.
func (b *bench) send(t *testing.T, value string) {
	t.Helper()
	b.put(t, &kgo.Record{Key: []byte("w"), Value: []byte(value), Partition: kafka.Partition("w", partitions)})
}

func event(id, file string, second int) string {
	return fmt.Sprintf(`{"event":"workspace_storage_file_updated","workspace_id":"w","event_id":%q,"object_id":%q,"created":"%s","received_at":"2026-11-24T13:00:00Z"}`,
		id, file, time.Date(2026, 11, 24, 12, 0, second, 0, time.UTC).Format(time.RFC3339))
}

func (b *bench) all(t *testing.T, topic topology.Topic) []*kgo.Record {
	t.Helper()
	spans, err := kafka.Extent(t.Context(), b.conf, topic.Name)
	if err != nil {
		t.Fatal(err)
	}
	var records []*kgo.Record
	if err := kafka.Read(t.Context(), b.conf, topic.Name, spans, func(r *kgo.Record) error {
		records = append(records, r)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return records
}

// await returns the records of a topic once there are n.
func (b *bench) await(t *testing.T, topic topology.Topic, n int) []*kgo.Record {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		records := b.all(t, topic)
		if len(records) == n {
			return records
		}
		if len(records) > n || time.Now().After(end) {
			t.Fatalf("%s has %d records, want %d", topic.Name, len(records), n)
		}
	}
}

func (b *bench) entries(t *testing.T, f deadletters.Filter) []string {
	t.Helper()
	entries, err := b.queue.Entries(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{}
	for _, e := range entries {
		texts = append(texts,
			strings.TrimSpace(fmt.Sprintf("%s %s %s/%s x%d %s", e.ID, e.Reason, e.WorkspaceID, e.EventID, e.Times,
				e.Resolved)))
	}
	return texts
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func expect(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func replay(t *testing.T, b *bench, f deadletters.Filter, o deadletters.Options) *deadletters.Result {
	t.Helper()
	result, err := b.queue.Replay(t.Context(), f, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// What was dead-lettered is folded when it comes back: neither the window nor its own id keeps it out. A resend of it,
// and a second replay of the same bytes, are duplicates.
func TestReplayIsFoldedOnce(t *testing.T) {
	b := newBench(t)
	b.fold(t)
	home := kafka.Partition("w", partitions)
	for i := range 256 { // fills the window of w/f
		b.send(t, event(fmt.Sprintf("e%d", i), "f", 100+i))
	}
	old := event("old", "f", 1)
	b.send(t, old)
	astray := event("astray", "g", 2)
	b.put(t, &kgo.Record{Key: []byte("w"), Value: []byte(astray), Partition: (home + 1) % partitions})
	contradicted := event("contradicted", "h", 3)
	b.put(t, &kgo.Record{
		Key: []byte("other"), Value: []byte(contradicted), Partition: home,
		Headers: []kgo.RecordHeader{
			{Key: "ce_id", Value: []byte("another")}, {Key: "ce_type", Value: []byte("workspace_storage_file_updated")}, {Key: "traceparent", Value: []byte("t")},
		},
	})
	b.send(t, "{not json")
	b.await(t, b.s.DLQ, 4)
	b.await(t, b.s.Notify, 256)

	dry := replay(t, b, deadletters.Filter{}, deadletters.Options{})
	if !dry.DryRun || dry.Done != 3 || dry.Skipped != 1 {
		t.Errorf("dry run: %+v", dry)
	}
	b.await(t, b.s.Events, 260) // it sent nothing

	done := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true})
	if done.DryRun || done.Done != 3 || done.Skipped != 1 ||
		!strings.Contains(fmt.Sprint(done.Tallies), "dead-lettered again: not strict JSON") {
		t.Errorf("replay: %+v", done)
	}
	notices := b.await(t, b.s.Notify, 259)
	for id, value := range map[string]string{"old": old, "astray": astray, "contradicted": contradicted} {
		n := 0
		for _, r := range notices {
			if strings.Contains(string(r.Value), `"event_id":"`+id+`"`) && strings.Contains(string(r.Value), `"version":`) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s was folded %d times, want once", id, n)
		}
		for _, r := range b.all(t, b.s.Events) {
			if !strings.HasPrefix(header(r, "tidemark-replay"), "dlq ") || !strings.Contains(string(r.Value), `"`+id+`"`) {
				continue
			}
			if string(r.Value) != value || string(r.Key) != "w" || r.Partition != home {
				t.Errorf("%s came back as %d %q = %q", id, r.Partition, r.Key, r.Value)
			}
			for _, h := range r.Headers {
				if strings.HasPrefix(h.Key, "dlq.") || h.Key == "ce_id" {
					t.Errorf("%s came back with the header %s", id, h.Key)
				}
			}
			if id == "contradicted" && (header(r, "ce_type") == "" || header(r, "traceparent") != "t") {
				t.Errorf("headers that agree were lost: %v", r.Headers)
			}
		}
	}

	// Sent again by the provider, and replayed once more from a copy: nothing is folded twice.
	b.send(t, astray)
	b.put(t, &kgo.Record{
		Key: []byte("w"), Value: []byte(old), Partition: home,
		Headers: []kgo.RecordHeader{{Key: "tidemark-replay"}},
	})
	b.send(t, event("last", "i", 4))
	b.await(t, b.s.Notify, 260)
	if again := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true}); again.Done != 0 ||
		again.Skipped != 1 {
		t.Errorf("a second replay: %+v", again)
	}
	b.await(t, b.s.Notify, 260)
	if open := b.entries(t, deadletters.Filter{}); len(open) != 1 || !strings.Contains(open[0], "not_json") {
		t.Errorf("open: %v", open)
	}

	// By force it goes back as it was, and is a dead letter again: a new one, of another record.
	if forced := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true, Force: true}); forced.Done != 1 {
		t.Errorf("by force: %+v", forced)
	}
	b.await(t, b.s.DLQ, 4+4+1) // entries, resolution records, and the new entry
	if open := b.entries(t, deadletters.Filter{Reasons: []string{"not_json"}}); len(open) != 1 {
		t.Errorf("open: %v", open)
	}
}

// dead is the dead letter of an event.
func (b *bench) dead(partition int32, offset int64, workspace, value, reason string, second int) *kgo.Record {
	return &kgo.Record{
		Topic: b.s.DLQ.Name, Partition: partition, Key: []byte(workspace), Value: []byte(value),
		Headers: []kgo.RecordHeader{
			{Key: "dlq.reason", Value: []byte(reason)},
			{Key: "dlq.message", Value: []byte("fix it")},
			{Key: "dlq.topic", Value: []byte(b.s.Events.Name)},
			{Key: "dlq.partition", Value: fmt.Append(nil, partition)},
			{Key: "dlq.offset", Value: fmt.Append(nil, offset)},
			{Key: "dlq.first_failed_at", Value: []byte(time.Date(2026, 11, 24, 12, 0, second, 0, time.UTC).Format(time.RFC3339))},
		},
	}
}

func TestEntriesAreSourceRecords(t *testing.T) {
	b := newBench(t)
	b.put(t,
		b.dead(1, 5, "w", event("a", "f", 1), "wrong_partition", 10),
		b.dead(1, 7, "w", event("b", "f", 1), "wrong_partition", 12),
		b.dead(1, 5, "w", event("a", "f", 1), "wrong_partition", 30), // again, after a crash
		b.dead(0, 9, "w", event("c", "f", 1), "wrong_partition", 11),
		b.dead(2, 1, "v", `{"event_id":"d","workspace_id":7}`, "missing_field", 20),
		&kgo.Record{Topic: b.s.DLQ.Name, Partition: 3, Key: []byte("x"), Value: []byte("by hand")},
	)
	byHand := b.s.DLQ.Name + "/3:0"
	// Across partitions in the order of time; within one in its own.
	expect(t, "all", b.entries(t, deadletters.Filter{}), []string{
		"1:5 wrong_partition w/a x2", "0:9 wrong_partition w/c x1", "1:7 wrong_partition w/b x1",
		"2:1 missing_field v/d x1", byHand + "  x/ x1",
	})
	since := time.Date(2026, 11, 24, 12, 0, 20, 0, time.UTC)
	expect(t, "since", b.entries(t,
		deadletters.Filter{Since: since, Reasons: []string{"wrong_partition", "missing_field"}}), []string{
		"1:5 wrong_partition w/a x2", "2:1 missing_field v/d x1",
	})
	expect(t, "event", b.entries(t, deadletters.Filter{WorkspaceID: "w", EventID: "b"}),
		[]string{"1:7 wrong_partition w/b x1"})

	entries, err := b.queue.Entries(t.Context(), deadletters.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	groups := deadletters.Groups(entries)
	if g := groups[0]; len(groups) != 3 || g.Reason != "wrong_partition" || g.Entries != 3 || g.Records != 4 ||
		g.First.Second() != 10 || g.Last.Second() != 30 {
		t.Errorf("groups %+v", groups)
	}

	// Dropping resolves what matches, and only that; nothing is sent.
	result, err := b.queue.Drop(t.Context(), deadletters.Filter{EventID: "a"}, deadletters.Options{Yes: true})
	if err != nil || result.Done != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	// a crash before the commit: the same record still
	b.put(t, b.dead(1, 5, "w", event("a", "f", 1), "wrong_partition", 40))
	// of the recreated topic, at the same offset
	b.put(t, b.dead(1, 7, "w", event("other", "f", 1), "wrong_partition", 50))
	expect(t, "after a drop", b.entries(t, deadletters.Filter{WorkspaceID: "w"}), []string{
		"0:9 wrong_partition w/c x1", "1:7 wrong_partition w/b x1", "1:7 wrong_partition w/other x1",
	})
	// Of two entries at one position only that is resolved which was selected.
	if result, err := b.queue.Drop(t.Context(), deadletters.Filter{EventID: "other"},
		deadletters.Options{Yes: true}); err != nil || result.Done != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	expect(t, "after the drop of another log's", b.entries(t, deadletters.Filter{WorkspaceID: "w"}), []string{
		"0:9 wrong_partition w/c x1", "1:7 wrong_partition w/b x1",
	})
	// A position means the newest record there, not that of the deleted topic.
	position := deadletters.Filter{Sources: []deadletters.Source{{Topic: b.s.Events.Name, Partition: 1, Offset: 7}}}
	if result, err := b.queue.Drop(t.Context(), position, deadletters.Options{Yes: true}); err != nil ||
		result.Done != 0 || len(result.Already) != 1 {
		t.Fatalf("%+v, %v", result, err)
	}
	counter := deadletters.NewCounter(b.queue, slog.New(slog.DiscardHandler))
	go func() { _ = counter.Run(t.Context()) }() // until the test ends: it gives no other error
	awaitOpen(t, counter, 4)
	expect(t, "with what is resolved", b.entries(t, deadletters.Filter{EventID: "a", All: true}),
		[]string{"1:5 wrong_partition w/a x3 dropped"})
	b.await(t, b.s.Events, 0)

	source, err := deadletters.ParseSource(byHand, b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	if entry, r, err := b.queue.Find(t.Context(), source); err != nil || string(r.Value) != "by hand" ||
		entry.DLQPosition != "3:0" {
		t.Errorf("found %+v, %v", entry, err)
	}
	source.Offset = 9
	if _, _, err := b.queue.Find(t.Context(), source); !errors.Is(err, deadletters.ErrNoEntry) {
		t.Errorf("an entry that is not there: %v", err)
	}
	// Another topic's records reach other readers than the files group.
	if result := replay(t, b, deadletters.Filter{Reasons: []string{""}},
		deadletters.Options{Force: true}); result.Done != 0 || result.Skipped != 1 {
		t.Errorf("a record of no events topic: %+v", result)
	}
}

// An interrupted replay continues where it stopped, and keeps the order of a workspace.
func TestReplayContinues(t *testing.T) {
	b := newBench(t)
	for i := range 40 {
		b.put(t, b.dead(int32(i%3), int64(i), "w", event(fmt.Sprintf("e%02d", i), "f", 1), "wrong_partition", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	first, err := b.queue.Replay(ctx, deadletters.Filter{}, deadletters.Options{Yes: true, Rate: 20})
	if err == nil || first.Done == 0 || first.Done > 20 {
		t.Fatalf("the first run: %+v, %v", first, err)
	}
	sent := len(b.all(t, b.s.Events))
	if sent != first.Done {
		t.Errorf("%d were sent, %d are marked", sent, first.Done)
	}
	second := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true})
	if first.Done+second.Done != 40 {
		t.Errorf("%d and %d are not 40", first.Done, second.Done)
	}
	var ids []string
	for _, r := range b.await(t, b.s.Events, 40) {
		var e struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(r.Value, &e); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	for i, id := range ids {
		if want := fmt.Sprintf("e%02d", i); id != want {
			t.Fatalf("record %d is %s, want %s: %v", i, id, want, ids)
		}
	}
}

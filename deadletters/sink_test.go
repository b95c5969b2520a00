package deadletters_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/topology"
)

// indexed is a record of the index topic, as a sink has read it.
func (b *bench) indexed(file string, version, offset int64) *kgo.Record {
	return &kgo.Record{
		Topic: b.s.Index.Name, Partition: kafka.Partition("w", partitions), Offset: offset, Key: []byte("w/" + file),
		Value:   fmt.Appendf(nil, `{"op":"upsert","id":"w/%[1]s","workspace_id":"w","file_id":"%[1]s","version":%[2]d}`, file, version),
		Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte("t")}},
	}
}

// reject puts the dead letter of a record that a sink rejected into its topic.
func (b *bench) reject(t *testing.T, sink string, source *kgo.Record) {
	t.Helper()
	b.put(t, deadletters.NewRecord(b.s.DLQ.Name, source, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Message: "shorten the path", Sink: sink,
		Answer: "400 mapper_parsing_exception",
	}))
}

// What a sink rejected goes back to that sink, not to the events topic and not to another sink that rejected the same
// record.
func TestEntriesOfSinks(t *testing.T) {
	b := newBench(t)
	home := kafka.Partition("w", partitions)
	b.reject(t, "search", b.indexed("f", 2, 7))
	b.reject(t, "model-scan", b.indexed("f", 2, 7))
	b.reject(t, "search", b.indexed("f", 3, 9))
	b.reject(t, "search", b.indexed("f", 2, 7)) // again, after a crash
	b.reject(t, "archive", b.indexed("g", 1, 11))
	b.put(t, b.dead(home, 5, "w", event("a", "f", 1), "wrong_partition", 10))
	at := func(offset int, sink string) string {
		return fmt.Sprintf("%s/%d:%d@%s", b.s.Index.Name, home, offset, sink)
	}
	inEvents := fmt.Sprintf("%d:5", home)
	expect(t, "all", b.entries(t, deadletters.Filter{}), []string{
		inEvents + " wrong_partition w/a x1",
		at(7, "search") + " sink_rejected w/ x2", at(7, "model-scan") + " sink_rejected w/ x1",
		at(9, "search") + " sink_rejected w/ x1", at(11, "archive") + " sink_rejected w/ x1",
	})
	expect(t, "of a sink", b.entries(t, deadletters.Filter{Sinks: []string{"model-scan"}}),
		[]string{at(7, "model-scan") + " sink_rejected w/ x1"})

	h := deadletters.NewHandler(b.queue, func(r *kgo.Record) any { return string(r.Value) },
		slog.New(slog.DiscardHandler))
	if status, answer := ask(t, h, "GET", "/dlq?sink=model-scan&sink=archive", ""); status != 200 ||
		answer["entries"] != 2.0 {
		t.Errorf("two sinks: %d %v", status, answer)
	}
	if status, answer := ask(t, h, "POST", "/dlq/drop", `{"sinks":["search"]}`); status != 200 || answer["done"] != 2.0 {
		t.Errorf("a dry run of a drop: %d %v", status, answer)
	}
	_, answer := ask(t, h, "GET", "/dlq/"+at(9, "search"), "")
	if entry, _ := answer["entry"].(map[string]any); entry["sink"] != "search" ||
		entry["answer"] != "400 mapper_parsing_exception" ||
		entry["message"] != "shorten the path" || answer["record"] != string(b.indexed("f", 3, 9).Value) {
		t.Errorf("shown as %v", answer)
	}

	sinks := deadletters.Filter{Reasons: []string{deadletters.ReasonSinkRejected}}
	if result := replay(t, b, sinks, deadletters.Options{}); !result.DryRun || result.Done != 3 || result.Skipped != 1 {
		t.Errorf("dry run: %+v", result)
	}
	search := deadletters.Filter{Sinks: []string{"search"}}
	if result := replay(t, b, search, deadletters.Options{Yes: true}); result.Done != 2 || result.Skipped != 0 {
		t.Errorf("search: %+v", result)
	}
	for i, r := range b.await(t, b.s.SinkRetry, 2) { // in the order of the source
		want := b.indexed("f", int64(2+i), int64(7+2*i))
		if r.Partition != home || string(r.Key) != string(want.Key) || string(r.Value) != string(want.Value) ||
			len(r.Headers) != 3 || header(r, "traceparent") != "t" {
			t.Errorf("retry %d: %d %q = %q, %v", i, r.Partition, r.Key, r.Value, r.Headers)
		}
		from := deadletters.Source{Topic: want.Topic, Partition: want.Partition, Offset: want.Offset}
		if sink, source, ok := deadletters.ParseRetry(r); !ok || sink != "search" || source != from {
			t.Errorf("retry %d is for %q, from %+v, %v", i, sink, source, ok)
		}
		if _, _, ok := deadletters.ParseRetry(want); ok {
			t.Error("a record of the index counts as a retry")
		}
	}
	replayedTo := fmt.Sprintf("%s/%d:1", b.s.SinkRetry.Name, home)
	if resolved, err := b.queue.Entries(t.Context(),
		deadletters.Filter{Sinks: []string{"search"}, All: true}); err != nil ||
		len(resolved) != 2 || resolved[1].ReplayedTo != replayedTo {
		t.Errorf("resolved %+v, %v", resolved, err)
	}

	// The entry of the other sink at the same position is still open. It can be named, and dropped.
	counter := deadletters.NewCounter(b.queue, slog.New(slog.DiscardHandler))
	go func() { _ = counter.Run(t.Context()) }() // until the test ends: it gives no other error
	awaitOpen(t, counter, 3)
	source, err := deadletters.ParseSource(at(7, "model-scan"), b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := b.queue.Drop(t.Context(), deadletters.Filter{Sources: []deadletters.Source{source}},
		deadletters.Options{Yes: true})
	if err != nil || dropped.Done != 1 {
		t.Errorf("drop: %+v, %v", dropped, err)
	}
	awaitOpen(t, counter, 2)
	result := replay(t, b, sinks, deadletters.Options{Yes: true, Force: true})
	if result.Done != 0 || result.Skipped != 1 || result.Tallies[0].Sink != "archive" ||
		!strings.HasPrefix(result.Tallies[0].Why, `this release has no sink "archive" that takes records back`) {
		t.Errorf("a sink that reads no retries: %+v", result)
	}
	expect(t, "left", b.entries(t, deadletters.Filter{}), []string{
		inEvents + " wrong_partition w/a x1", at(11, "archive") + " sink_rejected w/ x1",
	})
	b.await(t, b.s.SinkRetry, 2)
	b.await(t, b.s.Events, 0)
}

// A record that its sink rejects once more is a new entry. Replayed again, it still has the position of its source.
func TestASinkRejectsARetry(t *testing.T) {
	b := newBench(t)
	sink := deadletters.Filter{Sinks: []string{"notify-urgent"}}
	b.reject(t, "notify-urgent", b.indexed("f", 2, 7))
	replay(t, b, sink, deadletters.Options{Yes: true})
	b.reject(t, "notify-urgent", b.await(t, b.s.SinkRetry, 1)[0])
	expect(t, "rejected again", b.entries(t, sink), []string{
		fmt.Sprintf("%s/%d:0@notify-urgent sink_rejected w/ x1", b.s.SinkRetry.Name, kafka.Partition("w", partitions)),
	})
	replay(t, b, sink, deadletters.Options{Yes: true})
	r := b.await(t, b.s.SinkRetry, 2)[1]
	if to, source, ok := deadletters.ParseRetry(r); !ok || to != "notify-urgent" || source.Topic != b.s.Index.Name ||
		source.Offset != 7 || len(r.Headers) != 3 {
		t.Errorf("retried for %s, from %+v, %v, headers %v", to, source, ok, r.Headers)
	}
}

// An entry that was copied from an installation with more partitions goes where its key belongs now.
func TestEntriesOfSinksOfAnotherPrefix(t *testing.T) {
	b := newBench(t)
	copied := b.indexed("f", 2, 7)
	copied.Topic, copied.Partition = "old-index", partitions+5
	dead := deadletters.NewRecord(b.s.DLQ.Name, copied, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Sink: "search",
	})
	dead.Partition = 0
	b.put(t, dead)
	if result := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true}); result.Done != 1 {
		t.Fatalf("%+v", result)
	}
	r := b.await(t, b.s.SinkRetry, 1)[0]
	if _, source, ok := deadletters.ParseRetry(r); !ok || r.Partition != kafka.Partition("w", partitions) ||
		source.Text("") != fmt.Sprintf("old-index/%d:7", partitions+5) {
		t.Errorf("in partition %d, from %+v, %v", r.Partition, source, ok)
	}
}

// A sink cannot be given a record that was not kept whole; an event can do without its key.
func TestEntriesOfSinksTooLargeToKeep(t *testing.T) {
	b := newBench(t)
	large := b.indexed("f", 1, 3)
	large.Value = make([]byte, topology.MaxMessageBytes)
	b.reject(t, "search", large)
	key := b.indexed("g", 1, 4)
	key.Key = make([]byte, topology.MaxMessageBytes)
	b.reject(t, "search", key)
	b.queue.RetrySinks(func(string, *kgo.Record) (*kgo.Record, error) { return nil, errors.New("called") })
	for offset, part := range map[int64]string{3: "value", 4: "key"} {
		source := deadletters.Source{Topic: b.s.Index.Name, Partition: large.Partition, Offset: offset, Sink: "search"}
		result := replay(t, b, deadletters.Filter{Sources: []deadletters.Source{source}},
			deadletters.Options{Yes: true, Force: true})
		want := fmt.Sprintf("too large to keep: %d bytes of its %s; the source record is at %s until it expires",
			topology.MaxMessageBytes, part, source.Place())
		if result.Skipped != 1 || result.Tallies[0].Why != want {
			t.Errorf("%s: %+v", part, result)
		}
	}
}

func TestSourcesAsText(t *testing.T) {
	for text, want := range map[string]deadletters.Source{
		"7:1234":               {Topic: "s-events", Partition: 7, Offset: 1234},
		"s-index/0:3":          {Topic: "s-index", Offset: 3},
		"s-index/0:3@search":   {Topic: "s-index", Offset: 3, Sink: "search"},
		"s-events/1:2@archive": {Topic: "s-events", Partition: 1, Offset: 2, Sink: "archive"},
	} {
		got, err := deadletters.ParseSource(text, "s-events")
		again, err2 := deadletters.ParseSource(got.Text("s-events"), "s-events")
		if err != nil || err2 != nil || got != want || again != want {
			t.Errorf("%q is %+v and %+v, %v, %v", text, got, again, err, err2)
		}
	}
	for _, text := range []string{"", "first", "7:", "/7:1", "7:1@", "@search", "s-index/@search"} {
		if got, err := deadletters.ParseSource(text, "s-events"); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

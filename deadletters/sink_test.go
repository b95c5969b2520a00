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
	retries := topology.Topic{Name: b.s.Index.Name + "-retry", Partitions: partitions, Replication: 1, MinISR: 1}
	if _, err := kafka.ApplyTopics(t.Context(), b.conf, []topology.Topic{retries}); err != nil {
		t.Fatal(err)
	}
	b.reject(t, "search", b.indexed("f", 2, 7))
	b.reject(t, "model", b.indexed("f", 2, 7))
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
		at(7, "search") + " sink_rejected w/ x2", at(7, "model") + " sink_rejected w/ x1",
		at(9, "search") + " sink_rejected w/ x1", at(11, "archive") + " sink_rejected w/ x1",
	})
	expect(t, "of a sink", b.entries(t, deadletters.Filter{Sinks: []string{"model"}}),
		[]string{at(7, "model") + " sink_rejected w/ x1"})

	h := deadletters.NewHandler(b.queue, func(r *kgo.Record) any { return string(r.Value) },
		slog.New(slog.DiscardHandler))
	_, answer := ask(t, h, "GET", "/dlq/"+at(9, "search"), "")
	if entry, _ := answer["entry"].(map[string]any); entry["sink"] != "search" ||
		entry["answer"] != "400 mapper_parsing_exception" ||
		entry["message"] != "shorten the path" || answer["record"] != string(b.indexed("f", 3, 9).Value) {
		t.Errorf("shown as %v", answer)
	}

	// Without a way to the sinks their entries stay open, and the event goes back.
	sinks := deadletters.Filter{Reasons: []string{deadletters.ReasonSinkRejected}}
	result := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true, Force: true})
	const why = "this release has no sinks: replay it with the release that wrote it, or drop it"
	if result.Done != 1 || result.Skipped != 4 || !strings.Contains(fmt.Sprint(result.Tallies), why) {
		t.Errorf("without sinks: %+v", result)
	}
	b.await(t, b.s.Events, 1)

	b.queue.RetrySinks(func(sink string, source *kgo.Record) (*kgo.Record, error) {
		if sink == "archive" {
			return nil, errors.New("the sink archive does not run")
		}
		headers := append(source.Headers, kgo.RecordHeader{Key: "sink", Value: []byte(sink)})
		return &kgo.Record{
			Topic: retries.Name, Partition: source.Partition, Key: source.Key, Value: source.Value,
			Headers: headers,
		}, nil
	})
	if result := replay(t, b, sinks, deadletters.Options{}); !result.DryRun || result.Done != 3 || result.Skipped != 1 {
		t.Errorf("dry run: %+v", result)
	}
	search := deadletters.Filter{Sinks: []string{"search"}}
	if result := replay(t, b, search, deadletters.Options{Yes: true}); result.Done != 2 || result.Skipped != 0 {
		t.Errorf("search: %+v", result)
	}
	for i, r := range b.await(t, retries, 2) { // in the order of the source
		want := b.indexed("f", int64(2+i), 0)
		if r.Partition != home || string(r.Key) != string(want.Key) || string(r.Value) != string(want.Value) ||
			len(r.Headers) != 2 || header(r, "traceparent") != "t" || header(r, "sink") != "search" {
			t.Errorf("retry %d: %d %q = %q, %v", i, r.Partition, r.Key, r.Value, r.Headers)
		}
	}
	replayedTo := fmt.Sprintf("%s/%d:1", retries.Name, home)
	if resolved, err := b.queue.Entries(t.Context(),
		deadletters.Filter{Sinks: []string{"search"}, All: true}); err != nil ||
		len(resolved) != 2 || resolved[1].ReplayedTo != replayedTo {
		t.Errorf("resolved %+v, %v", resolved, err)
	}

	// The entry of the other sink at the same position is still open. It can be named, and dropped.
	counter := deadletters.NewCounter(b.queue, slog.New(slog.DiscardHandler))
	go func() { _ = counter.Run(t.Context()) }() // until the test ends: it gives no other error
	awaitOpen(t, counter, 2)
	source, err := deadletters.ParseSource(at(7, "model"), b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	dropped, err := b.queue.Drop(t.Context(), deadletters.Filter{Sources: []deadletters.Source{source}},
		deadletters.Options{Yes: true})
	if err != nil || dropped.Done != 1 {
		t.Errorf("drop: %+v, %v", dropped, err)
	}
	expect(t, "left", b.entries(t, deadletters.Filter{}), []string{at(11, "archive") + " sink_rejected w/ x1"})
	awaitOpen(t, counter, 1)
	result = replay(t, b, sinks, deadletters.Options{Yes: true})
	if result.Done != 0 || result.Skipped != 1 || result.Tallies[0].Why != "the sink archive does not run" {
		t.Errorf("a sink that refuses: %+v", result)
	}
	b.await(t, b.s.Events, 1)
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

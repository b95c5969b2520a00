package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// What a sink's destination rejected is listed with the sink, and goes back to it with the ACLs of operate.
func TestDeadLettersOfSinks(t *testing.T) {
	streams, addr := guardedTopics(t)
	client, err := kafka.NewProducer(kafka.Config{
		Brokers: []string{addr}, SASL: kafka.SASLConfig{Mechanism: "PLAIN", User: "root", Password: "root"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for offset, sink := range []string{"search", "search", "notify-urgent", "notify-gone", "archive"} {
		rejected := &kgo.Record{
			Topic: streams.Index.Name, Partition: 1, Offset: int64(offset), Key: []byte("w/f"),
			Value: []byte(`{"op":"upsert","id":"w/f","workspace_id":"w","file_id":"f","version":1}`),
		}
		dead := deadletters.NewRecord(streams.DLQ.Name, rejected, deadletters.Failure{
			Reason: deadletters.ReasonSinkRejected, Message: "shorten the path", Sink: sink,
			Answer: "400 mapper_parsing_exception",
		})
		if err := client.ProduceSync(t.Context(), dead).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv(passwordVariable, "operate")
	operate := func(args ...string) string {
		t.Helper()
		return succeed(t, append(args, "--brokers", addr, "--kafka-sasl-mechanism", "SCRAM-SHA-256",
			"--kafka-sasl-user", "operate")...)
	}
	contains := func(out string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(out, part) {
				t.Errorf("want %q in:\n%s", part, out)
			}
		}
	}
	contains(operate("dlq", "list"), "sink_rejected (search)         2 ", "sink_rejected (notify-gone)    1 ")
	if out := operate("dlq", "list", "--each", "--sink", "notify-gone,archive"); strings.Count(out, "\n") != 3 {
		t.Errorf("of two sinks:\n%s", out)
	}
	contains(operate("dlq", "show", "fastio-index/1:0@search"),
		"search\n", "400 mapper_parsing_exception\n", "shorten the path\n")
	operate("dlq", "drop", "--sink", "notify-gone", "--yes")
	contains(operate("dlq", "replay", "--yes"), "sink_rejected (search)         2         0        -",
		`no sink "archive" that takes records back`)
	contains(operate("dlq", "list", "--each", "--resolved"), "replayed to fastio-sink-retry/1:0", "dropped")
	t.Setenv(passwordVariable, "sink-search") // it may read its own retries
	contains(succeed(t, "tail", "sink-retry", "--from", "start", "--until-end", "-o", "json", "--brokers", addr,
		"--kafka-sasl-mechanism", "SCRAM-SHA-256", "--kafka-sasl-user", "sink-search"),
		`"tidemark-sink":"notify-urgent"`, `"tidemark-source":"fastio-index/1:1"`)
}

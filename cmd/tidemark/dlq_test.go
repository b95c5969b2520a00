package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

// deadForTest puts two dead letters into the topic of them: of 1:5, which is an event, and of 1:6, which is none.
func deadForTest(t *testing.T, config kafka.Config, streams topology.Streams) {
	t.Helper()
	client, err := kafka.NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	event := &kgo.Record{
		Topic: streams.DLQ.Name, Partition: 1, Key: []byte("w"),
		Value: []byte(`{"event":"workspace_storage_file_added","event_id":"e","workspace_id":"w","object_id":"f","created":"2026-11-24T12:00:00Z"}`),
		Headers: []kgo.RecordHeader{
			header("dlq.reason", "wrong_partition"), header("dlq.topic", streams.Events.Name),
			header("dlq.partition", "1"), header("dlq.offset", "5"),
		},
	}
	none := &kgo.Record{
		Topic: streams.DLQ.Name, Partition: 1, Key: []byte("w"), Value: []byte("none"),
		Headers: []kgo.RecordHeader{
			header("dlq.reason", "not_json"), header("dlq.topic", streams.Events.Name),
			header("dlq.partition", "1"), header("dlq.offset", "6"),
		},
	}
	if err := client.ProduceSync(t.Context(), event, none).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// The ACLs of operate are enough for what its tools do, and who lacks one is told which.
func TestTheACLsOfOperateSuffice(t *testing.T) {
	streams, addr := guardedTopics(t)
	deadForTest(t, kafka.Config{
		Brokers: []string{addr},
		SASL:    kafka.SASLConfig{Mechanism: "PLAIN", User: "root", Password: "root"},
	}, streams)

	by := func(role string, args ...string) []string {
		t.Setenv(passwordVariable, role)
		return append(args, "--brokers", addr, "--kafka-sasl-mechanism", "SCRAM-SHA-256", "--kafka-sasl-user", role)
	}
	if _, errs, code := tidemark(t, by("process", "dlq", "list")...); code != exitFailed ||
		!strings.Contains(errs, "grant the ACL operation Read") {
		t.Errorf("list as process: exit %d\n%s", code, errs)
	}
	if out := succeed(t, by("operate", "dlq", "list", "--each")...); !strings.Contains(out, "1:5") {
		t.Errorf("list:\n%s", out)
	}
	succeed(t, by("operate", "dlq", "replay", "--yes")...)
	if out := succeed(t, by("operate", "replay", "--yes")...); !strings.HasPrefix(out, "1 sent again") {
		t.Errorf("replay:\n%s", out)
	}
	if _, errs, code := tidemark(t, by("operate", "diff", "files", "files")...); code != exitFailed ||
		!strings.Contains(errs, "has committed nothing") {
		t.Errorf("diff of a group that never ran: exit %d\n%s", code, errs)
	}
}

// A terminal that says nothing has not said yes.
func TestDropAsks(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	deadForTest(t, kafka.Config{Brokers: brokers}, streams)
	where := []string{
		"--brokers", strings.Join(brokers, ","), "--topic-prefix",
		strings.TrimSuffix(streams.DLQ.Name, "-dlq"),
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var out, errs bytes.Buffer
	args := append([]string{"dlq", "drop"}, where...)
	if code := run(context.Background(), args, console{in: null, out: &out, err: &errs}); code != exitFailed ||
		!strings.Contains(errs.String(), "Drop 2 dead letters?") {
		t.Errorf("exit %d\n%s", code, &errs)
	}
	if code := run(context.Background(), args,
		console{in: strings.NewReader("yes\n"), out: &out, err: &errs}); code != exitUsage {
		t.Errorf("a pipe is no terminal: exit %d\n%s", code, &errs)
	}
	if out := succeed(t, append([]string{"dlq", "list", "--each"}, where...)...); !strings.Contains(out, "1:5") {
		t.Errorf("it was dropped:\n%s", out)
	}
	// a script's unset variable
	for _, empty := range [][]string{
		{"--workspace", ""},
		{"--reason="},
		{"--reason", "not_json,"},
		{"--event-id", ""},
		{"--since="},
	} {
		for _, command := range [][]string{{"dlq", "drop"}, {"dlq", "replay"}} {
			args := append(append(append(command, where...), "--yes"), empty...)
			if _, errs, code := tidemark(t, args...); code != exitUsage ||
				!strings.Contains(errs, "omit the flag to select all") {
				t.Errorf("%v: exit %d\n%s", args, code, errs)
			}
		}
	}
	for _, empty := range []string{"--workspace=", "--event=", "--from=", "--to="} {
		if _, errs, code := tidemark(t,
			append(append([]string{"replay", empty}, where...), "--yes")...); code != exitUsage {
			t.Errorf("replay %s: exit %d\n%s", empty, code, errs)
		}
	}
	for _, form := range []string{"table", "json"} {
		args := append(append([]string{"dlq", "replay", "1:6"}, where...), "--yes", "-o", form)
		if _, errs, code := tidemark(t, args...); code != exitFailed ||
			!strings.Contains(errs, "1 of the entries named") {
			t.Errorf("replay of what is still no event, as %s: exit %d\n%s", form, code, errs)
		}
	}
	for in, want := range map[string]bool{
		"y\n": true, "YES": true, "\n": false, "no\n": false, "": false,
		"yesterday\n": false,
	} {
		if got := agreed(strings.NewReader(in)); got != want {
			t.Errorf("%q counts as %t", in, got)
		}
	}
	if _, errs, code := tidemark(t,
		append([]string{"dlq", "drop", "--workspace", "nobody"}, append(where, "--yes")...)...); code != exitOK {
		t.Errorf("exit %d\n%s", code, errs)
	}
	succeed(t, append(append([]string{"dlq", "drop"}, where...), "--yes")...)
	if out := succeed(t, append([]string{"dlq", "list"}, where...)...); !strings.Contains(out, "no dead letters") {
		t.Errorf("not dropped:\n%s", out)
	}
}

// Of a record that was too large to keep, show says where the source record is.
func TestShowOfWhatWasTooLarge(t *testing.T) {
	config := kafka.Config{Brokers: devbroker.ForTest(t)}
	streams := streamsForTest(t, config.Brokers)
	client, err := kafka.NewProducer(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	if err := client.ProduceSync(t.Context(),
		&kgo.Record{Topic: streams.DLQ.Name, Partition: 1, Key: []byte("w"), Headers: []kgo.RecordHeader{
			header("dlq.reason", "not_json"), header("dlq.topic", streams.Events.Name), header("dlq.partition", "1"),
			header("dlq.offset", "5"),
			header("dlq.value_omitted", "6291456"),
		}}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	out := succeed(t, "dlq", "show", "1:5", "--brokers", config.Brokers[0], "--topic-prefix",
		strings.TrimSuffix(streams.DLQ.Name, "-dlq"))
	want := "The value of 6291456 bytes was too large to keep: the source record is at offset 5 of partition 1 of " +
		streams.Events.Name
	if !strings.Contains(out, want) {
		t.Errorf("show:\n%s", out)
	}
}

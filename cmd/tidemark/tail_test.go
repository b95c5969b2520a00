package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/topology"
)

// streamsForTest makes the topics under a prefix of their own. Records of those that are named, without it, keep the
// producers' times.
func streamsForTest(t *testing.T, brokers []string, stamped ...string) topology.Streams {
	t.Helper()
	streams, err := topology.New(fmt.Sprintf("cmd%08x", rand.Uint32()),
		topology.Sizing{Partitions: 3, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range stamped {
		topic, _ := streams.Find(name)
		config := topic.Config()
		config[kafka.TimestampType] = "CreateTime"
		devbroker.CreateTopic(t, brokers, topic.Name, topic.Partitions, config)
	}
	if _, err := kafka.ApplyTopics(t.Context(), kafka.Config{Brokers: brokers}, streams.Topics()); err != nil {
		t.Fatal(err)
	}
	return streams
}

func produce(t *testing.T, brokers []string, records ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func TestTailPrintsOneObjectALine(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers, "events")
	prefix := strings.TrimSuffix(streams.Events.Name, "-events")
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	record := func(partition int32, key, value []byte, headers ...kgo.RecordHeader) *kgo.Record {
		return &kgo.Record{
			Topic: streams.Events.Name, Partition: partition, Key: key, Value: value, Headers: headers,
			Timestamp: at,
		}
	}
	produce(t, brokers,
		record(0, []byte("ws"), []byte("{\n \"html\": \"<a>\",\n \"n\": 12345678901234567890}"),
			kgo.RecordHeader{Key: "ce_id", Value: []byte("e1")}),
		record(0, nil, nil),
		record(2, []byte{0xff}, []byte{0x00, 0x01}, kgo.RecordHeader{Key: "raw", Value: []byte{0xfe}}),
		record(2, []byte("ws"), []byte("not json")),
	)
	args := func(more ...string) []string {
		return append([]string{
			"tail", "events", "--topic-prefix", prefix, "--brokers", strings.Join(brokers, ","),
			"-o", "json",
		}, more...)
	}

	out := succeed(t, args("--from", "start", "--until-end")...)
	got := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var r struct{ Partition, Offset int }
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		got[fmt.Sprintf("%d:%d", r.Partition, r.Offset)] = lines.Text()
	}
	head := func(partition, offset int) string {
		return fmt.Sprintf(`{"topic":"%s","partition":%d,"offset":%d,"timestamp":"2026-11-24T12:00:00Z",`, streams.Events.Name, partition, offset)
	}
	want := map[string]string{
		"0:0": head(0, 0) + `"key":"ws","headers":{"ce_id":"e1"},"value":{"html":"<a>","n":12345678901234567890}}`,
		"0:1": head(0, 1) + `"key":null,"headers":{},"value":null}`,
		"2:0": head(2, 0) + `"key":null,"key_base64":"/w==","headers":{},"value_base64":"AAE=","headers_base64":{"raw":"/g=="}}`,
		"2:1": head(2, 1) + `"key":"ws","headers":{},"value_base64":"bm90IGpzb24="}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	// The same topic by its whole name; where to begin, and where to stop.
	full := append([]string{"tail", streams.Events.Name}, args()[2:]...)
	for _, test := range []struct {
		args []string
		want int
	}{
		{append(full, "--from", "start", "--until-end"), 4},
		{args("--from", "1", "--until-end"), 2},
		{args("--from", "99", "--until-end"), 0},
		{args("--from", "start", "--until-end", "--partition", "2"), 2},
		{args("--from", "start", "--limit", "3"), 3},
		{args("--until-end"), 0},
	} {
		if got := strings.Count(succeed(t, test.args...), "\n"); got != test.want {
			t.Errorf("%q: %d records, want %d", test.args, got, test.want)
		}
	}
	if _, errs, code := tidemark(t, append(args(), "--topic-prefix", "nowhere")...); code != exitFailed ||
		!strings.Contains(errs, "nowhere-events does not exist") {
		t.Errorf("a topic that is not there: exit %d, %s", code, errs)
	}
	for _, wrong := range [][]string{args("--from", "middle"), args("--partition", "9"), args("--limit", "-1")} {
		if _, errs, code := tidemark(t, wrong...); code != exitUsage {
			t.Errorf("%q: exit %d, %s; want %d", wrong, code, errs, exitUsage)
		}
	}
}

// An aborted transaction and the marker at its end are no records, and do not keep --until-end waiting.
func TestTailUntilEndPassesAbortedTransactions(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers)
	produce(t, brokers, &kgo.Record{Topic: streams.Index.Name, Partition: 1, Key: []byte("k"), Value: []byte(`1`)})
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.TransactionalID(streams.Index.Name),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: streams.Index.Name, Partition: 1, Key: []byte("k"), Value: []byte(`2`)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	out := succeed(t, "tail", "index", "--topic-prefix", strings.TrimSuffix(streams.Index.Name, "-index"),
		"--brokers", strings.Join(brokers, ","), "--from", "start", "--until-end", "-o", "json")
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, `"value":1`) {
		t.Errorf("printed:\n%s", out)
	}
}

func TestTailForPeople(t *testing.T) {
	brokers := devbroker.ForTest(t)
	streams := streamsForTest(t, brokers, "dlq")
	produce(t, brokers, &kgo.Record{Topic: streams.DLQ.Name, Partition: 0, Key: []byte("ws/\x1b[2J"), Value: []byte(`{"a":1}`), Timestamp: time.Unix(0, 0)})
	where := []string{
		"--topic-prefix", strings.TrimSuffix(streams.DLQ.Name, "-dlq"), "--brokers",
		strings.Join(brokers, ","), "--from", "start", "--until-end",
	}
	table := succeed(t, append([]string{"tail", "dlq"}, where...)...)
	if want := `0:0  1970-01-01T00:00:00Z  "ws/\x1b[2J"  {"a":1}` + "\n"; table != want {
		t.Errorf("table %q, want %q", table, want)
	}
	yaml := succeed(t, append([]string{"tail", "dlq", "-o", "yaml"}, where...)...)
	if !strings.HasPrefix(yaml, "---\ntopic: "+streams.DLQ.Name+"\n") || !strings.Contains(yaml, "value:\n  a: 1\n") {
		t.Errorf("yaml:\n%s", yaml)
	}
}

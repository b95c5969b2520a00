package processors_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/topology"
)

// Brokers limit the compressed size of a batch, so a record may be too large for a dead letter. It becomes a shortened
// one.
func TestDeadLettersLargerThanARecord(t *testing.T) {
	const limit = topology.MaxMessageBytes
	home := kafka.Partition("w", 4)
	large := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	good := event("added", "w", "e1", "f", "")
	cases := map[string]struct {
		record  kgo.Record
		omitted string // what the entry leaves out
	}{
		"value":        {kgo.Record{Key: []byte("w"), Value: large(6 << 20)}, "value"},
		"value nearly": {kgo.Record{Key: []byte("w"), Value: large(limit - 100)}, "value"},
		"value fits":   {kgo.Record{Key: []byte("w"), Value: large(limit - 4096)}, ""},
		"key":          {kgo.Record{Key: large(5 << 20), Value: []byte(good)}, "key"},
		// once in the key, once more in dlq.message
		"key in words": {kgo.Record{Key: large(3 << 20), Value: []byte(good)}, ""},
		"header": {kgo.Record{
			Key: []byte("w"), Value: []byte("no"),
			Headers: []kgo.RecordHeader{{Key: "h", Value: large(5 << 20)}},
		}, "headers"},
		"ce header": {kgo.Record{
			Key: []byte("w"), Value: []byte(good),
			Headers: []kgo.RecordHeader{{Key: "ce_id", Value: large(3 << 20)}},
		}, ""},
		"all of it": {kgo.Record{
			Key: large(5 << 20), Value: large(5<<20 + 1),
			Headers: []kgo.RecordHeader{{Key: "h", Value: large(5 << 20)}},
		}, "key value headers"},
	}
	b := newBench(t)
	options, err := b.conf.Kafka.Franz()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := kgo.NewClient(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64<<20))...)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	defer b.start(t)()
	names := map[string]string{} // by offset
	for name, c := range cases {
		c.record.Topic, c.record.Partition = b.conf.Streams.Events.Name, home
		produced, err := foreign.ProduceSync(t.Context(), &c.record).First()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		names[strconv.FormatInt(produced.Offset, 10)] = name
	}
	b.send(t, "w", good)
	b.records(t, b.conf.Streams.Notify, 1) // later records are not blocked

	for _, r := range b.records(t, b.conf.Streams.DLQ, len(cases)) {
		name := names[header(r, "dlq.offset")]
		source := cases[name].record
		var omitted []string
		for _, part := range []struct {
			name string
			size int
			kept bool
		}{
			{"key", len(source.Key), bytes.Equal(r.Key, source.Key)},
			{"value", len(source.Value), bytes.Equal(r.Value, source.Value)},
			{"headers", 5<<20 + 1, len(source.Headers) == 0 || header(r, source.Headers[0].Key) == string(source.Headers[0].Value)},
		} {
			said := header(r, "dlq."+part.name+"_omitted")
			if part.kept != (said == "") || !part.kept && said != strconv.Itoa(part.size) {
				t.Errorf("%s: the %s is kept: %t, and is said to have %q bytes", name, part.name, part.kept, said)
			}
			if !part.kept {
				omitted = append(omitted, part.name)
			}
		}
		if got := strings.Join(omitted, " "); got != cases[name].omitted {
			t.Errorf("%s: left out %q, want %q", name, got, cases[name].omitted)
		}
		if message := header(r, "dlq.message"); message == "" || len(message) > 2048 || r.Partition != home {
			t.Errorf("%s: in partition %d, with a message of %d bytes", name, r.Partition, len(message))
		}
	}
}

// What begins with "dlq." is ours to say: a foreign dlq.resolved would hide the entry.
func TestForeignDeadLetterHeadersAreLeftOut(t *testing.T) {
	b := newBench(t)
	defer b.start(t)()
	b.put(t, &kgo.Record{
		Key: []byte("w"), Value: []byte("no"), Partition: kafka.Partition("w", 4),
		Headers: []kgo.RecordHeader{
			{Key: "dlq.resolved", Value: []byte("dropped")}, {Key: "dlq.value_omitted", Value: []byte("7")}, {Key: "dlq.reason", Value: []byte("none")}, {Key: "h", Value: []byte("kept")},
		},
	})
	r := b.records(t, b.conf.Streams.DLQ, 1)[0]
	if header(r, "dlq.resolved")+header(r, "dlq.value_omitted") != "" || header(r, "dlq.reason") != "not_json" ||
		header(r, "h") != "kept" {
		t.Errorf("headers %v", r.Headers)
	}
}

package deadletters_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
)

// An entry whose record was too large to keep is listed and dropped, and never replayed incomplete.
func TestEntriesOfRecordsTooLargeToKeep(t *testing.T) {
	b := newBench(t)
	without := func(r *kgo.Record, part, length string) *kgo.Record {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "dlq." + part + "_omitted", Value: []byte(length)})
		return r
	}
	empty := func(offset int64, second int) *kgo.Record {
		r := b.dead(1, offset, "w", "", "not_json", second)
		r.Value = nil
		return r
	}
	b.put(t,
		without(empty(5, 10), "value", "6291456"),
		without(empty(5, 11), "value", "6291456"), // dead-lettered again
		without(empty(5, 12), "value", "7000000"), // of the recreated topic, at the same offset
		without(b.dead(1, 6, "", event("a", "f", 1), "key_mismatch", 13), "key", "5000000"),
		without(b.dead(1, 7, "", "{not json", "not_json", 14), "key", "5000000"),
		without(b.dead(1, 8, "w", "{not json", "not_json", 15), "headers", "5000000"),
	)
	expect(t, "entries", b.entries(t, deadletters.Filter{}), []string{
		"1:5 not_json w/ x2", "1:5 not_json w/ x1", "1:6 key_mismatch w/a x1", "1:7 not_json / x1",
		"1:8 not_json w/ x1",
	})
	source, err := deadletters.ParseSource("1:5", b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	entry, _, err := b.queue.Find(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(entry)
	if err != nil || entry.ValueOmitted != 7000000 || !bytes.Contains(shown, []byte(`"value_omitted":7000000`)) {
		t.Errorf("shown as %s, %v", shown, err)
	}

	// An event's key comes from its JSON. Force sends a record as it was, so it must be complete.
	done := replay(t, b, deadletters.Filter{}, deadletters.Options{Yes: true, Force: true})
	want := "too large to keep: 6291456 bytes of its value; the source record is at offset 5 of partition 1 of " +
		b.s.Events.Name + " until it expires"
	if done.Done != 1 || done.Skipped != 4 || done.Tallies[0].Why != want {
		t.Errorf("replay: %+v", done)
	}
	sent := b.await(t, b.s.Events, 1)[0]
	if string(sent.Key) != "w" || sent.Partition != kafka.Partition("w", partitions) ||
		string(sent.Value) != event("a", "f", 1) {
		t.Errorf("sent %q = %q", sent.Key, sent.Value)
	}
	for _, h := range sent.Headers {
		if strings.HasPrefix(h.Key, "dlq.") {
			t.Errorf("sent with %s", h.Key)
		}
	}
	dropped, err := b.queue.Drop(t.Context(), deadletters.Filter{}, deadletters.Options{Yes: true})
	if err != nil || dropped.Done != 4 {
		t.Errorf("drop: %+v, %v", dropped, err)
	}
}

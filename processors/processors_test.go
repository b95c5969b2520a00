package processors_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A bench is a cluster's topics, and both groups to run on them.
type bench struct {
	conf   processors.Config
	client *kgo.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	streams, err := topology.New(fmt.Sprintf("p%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{conf: processors.Config{
		Kafka: kafka.Config{Brokers: devbroker.ForTest(t), ClientID: "test"}, Streams: streams,
		Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler),
	}}
	b.apply(t)
	options, err := b.conf.Kafka.Franz()
	if err != nil {
		t.Fatal(err)
	}
	if b.client, err = kgo.NewClient(append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	return b
}

func (b *bench) apply(t *testing.T) {
	t.Helper()
	if _, err := kafka.ApplyTopics(t.Context(), b.conf.Kafka, b.conf.Streams.Topics()); err != nil {
		t.Fatal(err)
	}
}

// send produces an event's JSON as a foreign producer does: keyed by the bare workspace, no headers.
func (b *bench) send(t *testing.T, workspace, value string) {
	t.Helper()
	b.put(t, &kgo.Record{Key: []byte(workspace), Value: []byte(value), Partition: kafka.Partition(workspace, 4)})
}

func (b *bench) put(t *testing.T, r *kgo.Record) {
	t.Helper()
	if r.Topic == "" {
		r.Topic = b.conf.Streams.Events.Name
	}
	if err := b.client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// start runs both groups and returns what stops them.
func (b *bench) start(t *testing.T) (stop func()) {
	t.Helper()
	conf := b.conf
	conf.Metrics = prometheus.NewRegistry()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	files, workspaces := processors.NewFiles(conf), processors.NewWorkspaces(conf)
	go func() { ended <- files.Run(ctx) }()
	go func() { ended <- workspaces.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
}

// records waits until a topic has n records and returns them in the order of their partitions.
func (b *bench) records(t *testing.T, topic topology.Topic, n int) []*kgo.Record {
	t.Helper()
	options, err := b.conf.Kafka.Franz()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(append(options, kgo.ConsumeTopics(topic.Name))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var found []*kgo.Record
	for len(found) < n {
		fetches := reader.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s has %d records, want %d", topic.Name, len(found), n)
		}
		found = append(found, fetches.Records()...)
	}
	if len(found) > n {
		t.Fatalf("%s has %d records, want %d", topic.Name, len(found), n)
	}
	return found
}

func decode[T any](t *testing.T, r *kgo.Record) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(r.Value, &v); err != nil {
		t.Fatalf("%s: %v", r.Value, err)
	}
	return v
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

type state struct {
	Status  string `json:"status"`
	Size    int64  `json:"size"`
	Version int64  `json:"version"`
}

type notice struct {
	OpID     string `json:"op_id"`
	Event    string `json:"event"`
	Version  int64  `json:"version"`
	Position string `json:"position"`
	Before   *state `json:"before"`
	After    *state `json:"after"`
}

func event(kind, workspace, id, file string, more string) string {
	return fmt.Sprintf(`{"event":"workspace_storage_file_%s","workspace_id":%q,"event_id":%q,"object_id":%q%s}`, kind, workspace, id, file, more)
}

func TestEventsBecomeStateIndexAndNotices(t *testing.T) {
	b := newBench(t)
	stop := b.start(t)
	b.send(t, "a/b", event("added", "a/b", "e1", "f/1", `,"size":10`))
	b.send(t, "a/b", event("updated", "a/b", "e2", "f/1", `,"size":12`))
	b.send(t, "a/b", event("updated", "a/b", "e2", "f/1", `,"size":12`)) // a resend
	b.send(t, "a/b", event("deleted", "a/b", "e3", "f/1", ""))
	b.send(t, "a/b", `{"event":"workspace_storage_file_added","workspace_id":"a/b","event_id":"e4"}`) // names no file

	notices := b.records(t, b.conf.Streams.Notify, 4)
	for i, want := range []notice{
		{OpID: "a%2Fb/e1/f%2F1", Event: "workspace_storage_file_added", Version: 1, After: &state{"active", 10, 1}},
		{OpID: "a%2Fb/e2/f%2F1", Event: "workspace_storage_file_updated", Version: 2, Before: &state{"active", 10, 1}, After: &state{"active", 12, 2}},
		{OpID: "a%2Fb/e3/f%2F1", Event: "workspace_storage_file_deleted", Version: 3, Before: &state{"active", 12, 2}, After: &state{"trashed", 12, 3}},
		{OpID: "a%2Fb/e4", Event: "workspace_storage_file_added"},
	} {
		got := decode[notice](t, notices[i])
		want.Position = fmt.Sprintf("%d:%d", kafka.Partition("a/b", 4), []int{0, 1, 3, 4}[i])
		if g, w := asJSON(t, got), asJSON(t, want); g != w {
			t.Errorf("notice %d\n got %s\nwant %s", i, g, w)
		}
	}
	if key := string(notices[0].Key); key != "a%2Fb/f%2F1" {
		t.Errorf("key of a notice is %q", key)
	}
	if key := string(notices[3].Key); key != "a%2Fb" {
		t.Errorf("key of a notice without a file is %q", key)
	}
	index := b.records(t, b.conf.Streams.Index, 3)
	for i, want := range []string{"upsert", "upsert", "delete"} {
		if got := decode[struct{ Op string }](t, index[i]).Op; got != want || index[i].Value == nil {
			t.Errorf("index record %d is %q, want %q", i, got, want)
		}
	}
	waitFor(t, func() string {
		w := b.workspace(t, "a/b")
		return fmt.Sprintf("%d files, %d trashed, %d events", w.GetFiles(), w.GetTrashed(), w.GetEvents())
	}, "0 files, 1 trashed, 4 events")
	stop()
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func waitFor(t *testing.T, look func() string, want string) {
	t.Helper()
	got := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = look(); got == want {
			return
		}
	}
	t.Fatalf("is %s, want %s", got, want)
}

// workspace returns the last row of a workspace in its table topic.
func (b *bench) workspace(t *testing.T, id string) *tidemarkv1.WorkspaceState {
	t.Helper()
	row := &tidemarkv1.WorkspaceState{}
	if err := proto.Unmarshal(b.last(t, b.conf.Streams.Workspaces, tidemarkv1.JoinKey(id, "")), row); err != nil {
		t.Fatal(err)
	}
	return row
}

// last returns the value of the last committed record of a key; nil when there is none, or when it is a null.
func (b *bench) last(t *testing.T, topic topology.Topic, key string) (value []byte) {
	t.Helper()
	options, err := b.conf.Kafka.Franz()
	if err != nil {
		t.Fatal(err)
	}
	reader, err := kgo.NewClient(
		append(options, kgo.ConsumeTopics(topic.Name), kgo.FetchIsolationLevel(kgo.ReadCommitted()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		records := reader.PollFetches(ctx).Records()
		cancel()
		for _, r := range records {
			if string(r.Key) == key {
				value = r.Value
			}
		}
		if len(records) == 0 {
			return value
		}
	}
}

func TestInvalidRecordsBecomeDeadLetters(t *testing.T) {
	good := event("added", "w", "e1", "f", "")
	home, elsewhere := kafka.Partition("w", 4), (kafka.Partition("w", 4)+1)%4
	type poison struct {
		record kgo.Record
		reason string
	}
	cases := map[string]*poison{
		"not JSON":       {kgo.Record{Key: []byte("w"), Value: []byte("\xff{"), Partition: home}, "not_json"},
		"a key twice":    {kgo.Record{Key: []byte("w"), Value: []byte(`{"event":"x","event":"y"}`), Partition: home}, "not_json"},
		"no event id":    {kgo.Record{Key: []byte("w"), Value: []byte(`{"event":"x","workspace_id":"w"}`), Partition: home}, "missing_field"},
		"a control byte": {kgo.Record{Key: []byte("w"), Value: []byte(`{"event":"x","event_id":"a\u0007","workspace_id":"w"}`), Partition: home}, "bad_field"},
		"a long name":    {kgo.Record{Key: []byte("w"), Value: []byte(event("added", "w", "e1", "f", `,"name":"`+strings.Repeat("n", 5000)+`"`)), Partition: home}, "field_too_large"},
		"another key":    {kgo.Record{Key: []byte("v"), Value: []byte(good), Partition: home}, "key_mismatch"},
		"another header": {
			kgo.Record{
				Key: []byte("w"), Value: []byte(good), Partition: home,
				Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("e9")}},
			}, "key_mismatch",
		},
		"wrong partition": {
			kgo.Record{Key: []byte("w"), Value: []byte(good), Partition: elsewhere},
			"wrong_partition",
		},
		"no value":         {kgo.Record{Key: []byte("w"), Partition: home}, "null_value"},
		"no key, no value": {kgo.Record{Partition: home}, "null_value"},
	}
	b := newBench(t)
	defer b.start(t)()
	for name, c := range cases {
		c.record.Headers = append(c.record.Headers, kgo.RecordHeader{Key: "case", Value: []byte(name)})
		b.put(t, &c.record)
	}
	// null headers say nothing
	b.put(t, &kgo.Record{Key: []byte("w"), Value: []byte(good), Partition: home, Headers: []kgo.RecordHeader{
		{Key: "ce_id"}, {Key: "ce_type"}, {Key: "ce_subject"}, {Key: "tidemark-replay"}, {Key: "other"},
	}}) // and later records are not blocked
	for _, r := range b.records(t, b.conf.Streams.DLQ, len(cases)) {
		name := header(r, "case") // the source's headers are kept
		c, known := cases[name]
		if !known {
			t.Errorf("an unexpected dead letter: %s", r.Value)
			continue
		}
		if got := header(r, "dlq.reason"); got != c.reason {
			t.Errorf("%s: reason %q, want %q (%s)", name, got, c.reason, header(r, "dlq.message"))
		}
		if string(r.Value) != string(c.record.Value) || (r.Value == nil) != (c.record.Value == nil) ||
			string(r.Key) != string(c.record.Key) {
			t.Errorf("%s: kept as %q = %q", name, r.Key, r.Value)
		}
		if got, want := header(r, "dlq.partition")+":"+
			header(r, "dlq.offset"), fmt.Sprintf("%d:%d", c.record.Partition, c.record.Offset); got != want {
			t.Errorf("%s: came from %s, want %s", name, got, want)
		}
		if r.Partition != c.record.Partition || header(r, "dlq.topic") != b.conf.Streams.Events.Name ||
			header(r, "dlq.message") == "" {
			t.Errorf("%s: partition %d, headers %v", name, r.Partition, r.Headers)
		}
		if got := header(r, "dlq.key_null") != ""; got != (c.record.Key == nil) {
			t.Errorf("%s: dlq.key_null %t", name, got)
		}
	}
	b.records(t, b.conf.Streams.Notify, 1)
}

// Whatever is lost of the local disk, and however often the groups start, nothing is done twice.
func TestRestartsRepeatNothing(t *testing.T) {
	b := newBench(t)
	for round := range 3 {
		if round == 2 {
			if err := os.RemoveAll(b.conf.Dir); err != nil {
				t.Fatal(err)
			}
		}
		stop := b.start(t)
		for i := range 20 {
			b.send(t, "w", event("updated", "w", fmt.Sprintf("e%d-%d", round, i), fmt.Sprint("f", i%3), ""))
		}
		b.records(t, b.conf.Streams.Notify, 20*(round+1))
		stop()
	}
	want := map[string]int64{}
	for _, r := range b.records(t, b.conf.Streams.Index, 60) {
		op := decode[struct{ Version int64 }](t, r)
		if want[string(r.Key)]++; op.Version != want[string(r.Key)] {
			t.Errorf("%s: version %d, want %d", r.Key, op.Version, want[string(r.Key)])
		}
	}
}

func TestRecreatedTopicIsRefused(t *testing.T) {
	b := newBench(t)
	stop := b.start(t)
	b.send(t, "w", event("added", "w", "e1", "f", ""))
	b.records(t, b.conf.Streams.Notify, 1)
	stop()
	deleteTopic(t, b, b.conf.Streams.Events.Name)
	b.apply(t)
	b.conf.Metrics = prometheus.NewRegistry()
	if err := processors.NewFiles(b.conf).Run(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "--accept-new-log") {
		t.Fatalf("the new log was taken for the old one: %v", err)
	}
	b.conf.AcceptNewLog = true
	stop = b.start(t)
	b.send(t, "w", event("added", "w", "e1", "f", "")) // its offset was used before, but its id is remembered
	b.send(t, "w", event("updated", "w", "e2", "f", ""))
	b.records(t, b.conf.Streams.Notify, 2)
	stop()
}

// An owner that was paused may append the record of an older version after the newest, even while nobody owns the
// partition. Compaction would keep that one, so the newest is sent again.
func TestIndexEndsWithTheNewestVersion(t *testing.T) {
	b := newBench(t)
	stop := b.start(t)
	for i := range 3 {
		b.send(t, "w", event("updated", "w", fmt.Sprint("e", i), "f", ""))
	}
	versions := b.records(t, b.conf.Streams.Index, 3)
	late := func(r *kgo.Record) *kgo.Record {
		return &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value}
	}
	b.put(t, late(versions[0]))
	b.put(t, late(versions[1]))
	mended := b.records(t, b.conf.Streams.Index, 6)
	if got := string(mended[5].Value); got != string(versions[2].Value) {
		t.Errorf("the last record is %s, want %s", got, versions[2].Value)
	}
	stop()

	b.put(t, late(versions[1]))
	stop = b.start(t)
	defer stop()
	mended = b.records(t, b.conf.Streams.Index, 8)
	if got := string(mended[7].Value); got != string(versions[2].Value) {
		t.Errorf("after a restart the last record is %s, want %s", got, versions[2].Value)
	}
	b.put(t, late(versions[2])) // nothing is wrong with it
	b.send(t, "w", event("updated", "w", "e9", "f", ""))
	b.records(t, b.conf.Streams.Notify, 4)
	time.Sleep(3 * time.Second) // of which a look takes one
	b.records(t, b.conf.Streams.Index, 10)
}

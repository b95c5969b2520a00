package replay_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/devbroker"
	"tidemark/diff"
	"tidemark/kafka"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/replay"
	"tidemark/topology"
)

const partitions = 4

type bench struct {
	conf   kafka.Config
	s      topology.Streams
	client *kgo.Client
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := topology.New(fmt.Sprintf("r%d", time.Now().UnixNano()),
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
	return b
}

func (b *bench) put(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	if err := b.client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// record is an event where it belongs.
func (b *bench) record(kind, workspace, id, file string, second int) *kgo.Record {
	value := fmt.Sprintf(`{"event":"workspace_storage_file_%s","workspace_id":%q,"event_id":%q,"object_id":%q,"size":%d,"created":"%s","received_at":"2026-11-24T13:00:00Z"}`,
		kind, workspace, id, file, second, time.Date(2026, 11, 24, 12, 0, second, 0, time.UTC).Format(time.RFC3339))
	return &kgo.Record{
		Topic: b.s.Events.Name, Partition: kafka.Partition(workspace, partitions),
		Key: []byte(workspace), Value: []byte(value),
	}
}

func (b *bench) records(t *testing.T, topic topology.Topic) []*kgo.Record {
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

func (b *bench) files(s topology.Streams, dir string, change func(*processors.Config)) *processors.Files {
	conf := processors.Config{
		Kafka: b.conf, Streams: s, Dir: dir, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	}
	if change != nil {
		change(&conf)
	}
	return processors.NewFiles(conf)
}

// live folds with the live group until it has committed all that is in the topic.
func (b *bench) live(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- b.files(b.s, dir, nil).Run(ctx) }()
	for ; ; time.Sleep(50 * time.Millisecond) {
		spans, err := kafka.Extent(t.Context(), b.conf, b.s.Events.Name)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := kafka.Committed(t.Context(), b.conf, b.s.FilesGroup, b.s.Events.Name)
		if err != nil {
			t.Fatal(err)
		}
		for partition, o := range committed {
			if o.At >= spans[partition].To {
				delete(spans, partition)
			}
		}
		if spans.Len() == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("not folded: %v", spans)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func (b *bench) rebuild(ctx context.Context, t *testing.T, dir, name string, sel replay.Selection,
	change func(*replay.Rebuild),
) (topology.Streams, error) {
	t.Helper()
	target, err := replay.Target(b.s, name)
	if err != nil {
		t.Fatal(err)
	}
	r := &replay.Rebuild{Kafka: b.conf, Streams: target, Dir: dir, Select: sel}
	r.Fold = func(ctx context.Context, admit func(*tidemarkv1.Event, *tidemarkv1.Position) bool) error {
		return b.files(target, dir, func(c *processors.Config) { c.TableOnly, c.Admit = true, admit }).Run(ctx)
	}
	if change != nil {
		change(r)
	}
	return target, r.Run(ctx)
}

// interrupted starts a rebuild with that rate, and ends it when more than done events are folded.
func (b *bench) interrupted(t *testing.T, dir, name string, sel replay.Selection, rate float64, done int64) {
	t.Helper()
	cut, cancel := context.WithCancel(t.Context())
	_, err := b.rebuild(cut, t, dir, name, sel, func(r *replay.Rebuild) {
		r.Rate = rate
		r.Report = func(p replay.Progress) {
			if p.Done > done {
				cancel()
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
}

func (b *bench) diff(t *testing.T, c diff.Comparison) (diff.Summary, []diff.Difference) {
	t.Helper()
	c.Kafka = b.conf
	if c.Ignore == nil {
		c.Ignore = []string{"log_id", "seen"}
	}
	var found []diff.Difference
	summary, err := c.Run(t.Context(), func(d diff.Difference) error {
		found = append(found, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return *summary, found
}

func (b *bench) table(t *testing.T, group string) diff.Table {
	t.Helper()
	table, err := diff.TableOf(b.s, group)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// A rebuilt table is equal to the live one, and nothing else is written. A row that was changed, one that is missing
// and one that was added are found.
func TestRebuiltTableIsTheLiveOne(t *testing.T) {
	b := newBench(t)
	for i := range 300 {
		workspace := fmt.Sprint("w", i%7)
		// resends, too late ones
		b.put(t, b.record([]string{"added", "updated", "deleted"}[i%3], workspace, fmt.Sprint("e", i%250),
			fmt.Sprint("f", i%20), (i*37)%60))
	}
	b.put(t, &kgo.Record{Topic: b.s.Events.Name, Partition: 1, Key: []byte("w0"), Value: []byte("no event")})
	b.live(t, t.TempDir())
	notices, index, dead := len(b.records(t, b.s.Notify)), len(b.records(t, b.s.Index)), len(b.records(t, b.s.DLQ))
	if dead != 1 || notices == 0 {
		t.Fatalf("%d notices, %d dead letters", notices, dead)
	}

	// Interrupted, and started again.
	dir := t.TempDir()
	b.interrupted(t, dir, "rebuilt", replay.Selection{}, 100, 20)
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{WorkspaceID: "w1"}, nil); err == nil ||
		!strings.Contains(err.Error(), "started with another selection") {
		t.Errorf("another selection on the same table: %v", err)
	}
	if _, err := b.rebuild(t.Context(), t, t.TempDir(), "rebuilt", replay.Selection{}, nil); err == nil {
		t.Error("continued without the state file")
	}
	target, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, i, d := len(b.records(t, b.s.Notify)), len(b.records(t, b.s.Index)), len(
		b.records(t, b.s.DLQ)); n != notices || i != index || d != dead {
		t.Errorf("the rebuild published: %d, %d, %d records", n-notices, i-index, d-dead)
	}
	compare := diff.Comparison{A: b.table(t, "files"), B: b.table(t, "rebuilt"), Ignore: []string{}}
	summary, found := b.diff(t, compare)
	if len(found) > 0 || summary.Different != 0 || summary.NotCompared != 0 || summary.Equal < 50 {
		t.Fatalf("%+v, %+v", summary, found)
	}

	b.plant(t, target.Files)
	summary, found = b.diff(t, diff.Comparison{A: compare.A, B: compare.B})
	slices.SortFunc(found, func(x, y diff.Difference) int { return strings.Compare(x.Key, y.Key) })
	for i := range found {
		found[i].Partition = 0
	}
	want := []diff.Difference{
		{Key: "w1/f1", WorkspaceID: "w1", FileID: "f1", OnlyIn: b.s.FilesGroup},
		{Key: "w2/f2", WorkspaceID: "w2", FileID: "f2", Fields: []diff.Field{{Name: "size", A: found[1].Fields[0].A, B: int64(999)}, {Name: "status", A: found[1].Fields[1].A, B: "erased"}}},
		{Key: "w3/many", WorkspaceID: "w3", FileID: "many", OnlyIn: target.FilesGroup},
	}
	if diff := cmp.Diff(want, found); diff != "" || summary.Different != 3 {
		t.Errorf("%+v (-want +got):\n%s", summary, diff)
	}
	if _, found := b.diff(t,
		diff.Comparison{A: compare.A, B: compare.B, WorkspaceID: "w2", Ignore: []string{"size", "status"}}); len(
		found) > 0 {
		t.Errorf("what is ignored was found: %+v", found)
	}

	// What only one group has read yet is no difference.
	b.put(t, b.record("updated", "w5", "later", "f5", 59), b.record("added", "w5", "later2", "new", 59))
	b.live(t, t.TempDir())
	if summary, found := b.diff(t, diff.Comparison{A: compare.A, B: compare.B, WorkspaceID: "w5"}); len(found) > 0 ||
		summary.NotCompared != 2 || summary.BehindA != 0 || summary.BehindB != 2 {
		t.Errorf("%+v, %+v", summary, found)
	}
	if _, err := b.rebuild(t.Context(), t, dir, "rebuilt", replay.Selection{}, nil); err != nil {
		t.Fatal(err)
	}
	if summary, found := b.diff(t,
		diff.Comparison{A: compare.A, B: compare.B, WorkspaceID: "w5", Ignore: []string{}}); len(found) > 0 ||
		summary.NotCompared != 0 {
		t.Errorf("once it has caught up: %+v, %+v", summary, found)
	}
}

// plant changes, deletes and adds a row of a table.
func (b *bench) plant(t *testing.T, table topology.Topic) {
	t.Helper()
	for _, r := range b.records(t, table) {
		if string(r.Key) != "w2/f2" {
			continue
		}
		row := &tidemarkv1.FileState{}
		if err := proto.Unmarshal(r.Value, row); err != nil {
			t.Fatal(err)
		}
		row.Size, row.Status = proto.Int64(999), tidemarkv1.Status_STATUS_ERASED
		value, err := proto.Marshal(row)
		if err != nil {
			t.Fatal(err)
		}
		b.put(t, &kgo.Record{Topic: table.Name, Partition: r.Partition, Key: r.Key, Value: value})
	}
	added, err := proto.Marshal(
		&tidemarkv1.FileState{WorkspaceId: "w3", FileId: "many", Position: &tidemarkv1.Position{}})
	if err != nil {
		t.Fatal(err)
	}
	b.put(t,
		&kgo.Record{Topic: table.Name, Partition: kafka.Partition("w1", partitions), Key: []byte("w1/f1")},
		&kgo.Record{
			Topic: table.Name, Partition: kafka.Partition("w3", partitions), Key: []byte("w3/many"),
			Value: added,
		})
}

// A rebuild up to a time or position folds nothing behind it, and its group commits nothing behind it.
func TestRebuildStopsWhereItShould(t *testing.T) {
	b := newBench(t)
	for i := range 30 {
		b.put(t, b.record("updated", "w", fmt.Sprint("e", i), "f", i))
	}
	home := kafka.Partition("w", partitions)
	dir, sel := t.TempDir(), replay.Selection{To: fmt.Sprintf("%d:20", home)}
	target, err := b.rebuild(t.Context(), t, dir, "half", sel, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows := b.records(t, target.Files)
	row := &tidemarkv1.FileState{}
	if err := proto.Unmarshal(rows[len(rows)-1].Value, row); err != nil {
		t.Fatal(err)
	}
	if row.GetVersion() != 20 || row.GetPosition().GetOffset() != 19 {
		t.Errorf("the row is %v", row)
	}
	committed, err := kafka.Committed(t.Context(), b.conf, target.FilesGroup, b.s.Events.Name)
	if err != nil || committed[home].At != 20 {
		t.Errorf("committed %v, %v", committed, err)
	}
	// A killed run had committed events that were not folded: the next one resets that.
	beyond := kadm.Offset{Topic: b.s.Events.Name, Partition: home, At: 30, LeaderEpoch: -1}
	if err := kafka.Commit(t.Context(), b.conf, target.FilesGroup, beyond); err != nil {
		t.Fatal(err)
	}
	if _, err := b.rebuild(t.Context(), t, dir, "half", sel, nil); err != nil {
		t.Fatal(err)
	}
	if committed, err = kafka.Committed(t.Context(), b.conf, target.FilesGroup, b.s.Events.Name); err != nil ||
		committed[home].At != 20 {
		t.Errorf("after a kill: committed %v, %v", committed, err)
	}
	for _, name := range []string{"files", "workspaces", "replay", "", "a b"} {
		if _, err := replay.Target(b.s, name); err == nil {
			t.Errorf("%q is a group that could be overwritten", name)
		}
	}
}

// "20s" is relative to when a rebuild was first started. A rebuild ends if the topic ends in a transaction's marker,
// which consumers do not see.
func TestRebuildContinuesFromItsFirstStart(t *testing.T) {
	b := newBench(t)
	for i := range 30 {
		b.put(t, b.record("updated", "w", fmt.Sprint("e", i), "f", i))
	}
	b.transact(t, b.record("updated", "w", "last", "f", 40))
	dir, sel := t.TempDir(), replay.Selection{From: "20s"}
	b.interrupted(t, dir, "lately", sel, 5, 2)
	target, err := b.rebuild(t.Context(), t, dir, "lately", sel,
		func(r *replay.Rebuild) { r.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	if err != nil {
		t.Fatal(err)
	}
	rows := b.records(t, target.Files)
	row := &tidemarkv1.FileState{}
	if err := proto.Unmarshal(rows[len(rows)-1].Value, row); err != nil {
		t.Fatal(err)
	}
	if row.GetVersion() != 31 {
		t.Errorf("of 31 events %d are in the row", row.GetVersion())
	}
}

// transact writes records in a transaction.
func (b *bench) transact(t *testing.T, records ...*kgo.Record) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(b.conf.Brokers...), kgo.TransactionalID(t.Name()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := client.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
}

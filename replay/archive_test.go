package replay_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/diff"
	"tidemark/kafka"
	"tidemark/parquetlog"
	"tidemark/processors"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/replay"
	sink "tidemark/sinks/archive"
)

// A fixedPartition gives the records of a partition, and stops once they are archived.
type fixedPartition struct {
	records []*kgo.Record
	begin   int64
	stop    context.CancelFunc
}

func (p *fixedPartition) Next(ctx context.Context) ([]*kgo.Record, error) {
	if records := p.records[p.begin:]; len(records) > 0 {
		p.begin = int64(len(p.records))
		return records, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (p *fixedPartition) Handled(last *kgo.Record) {
	if last.Offset == p.records[len(p.records)-1].Offset {
		p.stop()
	}
}

func (p *fixedPartition) Begin() int64  { return -1 }
func (p *fixedPartition) Topic() string { return p.records[0].Topic }
func (p *fixedPartition) Number() int32 { return p.records[0].Partition }

// archive writes the events topic into a folder, and returns the folder and its URL.
func (b *bench) archive(t *testing.T) (dir, url string) {
	t.Helper()
	dir = t.TempDir()
	url = "file://" + dir
	a, err := sink.New(sink.Config{
		Location: parquetlog.Location{URL: url}, Topic: b.s.Events.Name, Dir: t.TempDir(),
		Window: time.Second, MaxRecords: 9,
		Grace:   time.Millisecond,
		TopicID: func(ctx context.Context) (string, error) { return kafka.TopicID(ctx, b.conf, b.s.Events.Name) },
		End:     func(context.Context, int32) (int64, error) { return 0, nil },
		Retry:   func(ctx context.Context, attempt func(context.Context) error) error { return attempt(ctx) },
		Log:     slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := map[int32][]*kgo.Record{}
	for _, r := range b.records(t, b.s.Events) {
		all[r.Partition] = append(all[r.Partition], r)
	}
	for _, records := range all {
		slices.SortFunc(records, func(a, b *kgo.Record) int { return cmp.Compare(a.Offset, b.Offset) })
		ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
		err := a.Partition(ctx, &fixedPartition{records: records, stop: stop})
		if stop(); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	return dir, url
}

// expire deletes the records before the ends less keep, as retention does.
func (b *bench) expire(t *testing.T, ends kafka.Spans, keep int64) {
	t.Helper()
	before := kadm.Offsets{}
	for partition, span := range ends {
		before.Add(kadm.Offset{Topic: b.s.Events.Name, Partition: partition, At: max(0, span.To-keep)})
	}
	deleted, err := kadm.NewClient(b.client).DeleteRecords(t.Context(), before)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) rebuildArchived(
	ctx context.Context, t *testing.T, dir, name, url string, change func(*replay.Rebuild),
) error {
	t.Helper()
	_, err := b.rebuild(ctx, t, dir, name, replay.Selection{}, func(r *replay.Rebuild) {
		var err error
		place := parquetlog.Location{URL: url}
		if r.Archive, err = replay.OpenArchive(ctx, place, b.s.Events.Name, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		r.ArchiveURL = url
		target := r.Streams
		r.Fold = func(ctx context.Context, admit func(*tidemarkv1.Event, *tidemarkv1.Position) bool) error {
			return b.files(target, dir, func(c *processors.Config) {
				c.TableOnly, c.Admit, c.Join = true, admit, r.Join
			}).Run(ctx)
		}
		if change != nil {
			change(r)
		}
	})
	return err
}

// After events have expired, the table from the archive and the rest of the topic is the live one, in every field. So
// is one from a run that was interrupted. Events that are in both are folded once: versions are equal.
func TestRebuildFromTheArchive(t *testing.T) {
	b := newBench(t)
	put := func(from, to int) {
		for i := from; i < to; i++ {
			kind := []string{"added", "updated", "deleted"}[i%3]
			b.put(t, b.record(kind, fmt.Sprint("w", i%7), fmt.Sprint("e", i%180), fmt.Sprint("f", i%20), (i*37)%60))
		}
	}
	put(0, 150)
	dir, url := b.archive(t)
	ends, err := kafka.Extent(t.Context(), b.conf, b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	put(150, 200)
	b.live(t, t.TempDir())
	for _, test := range []struct {
		name string
		keep int64
	}{{"some", 10}, {"none", 0}} {
		b.expire(t, ends, test.keep)
		state := t.TempDir()
		if test.name == "none" {
			cut, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			err := b.rebuildArchived(cut, t, state, test.name, url, func(r *replay.Rebuild) { r.Rate = 20 })
			if cancel(); err == nil {
				t.Fatal("was not interrupted")
			}
		}
		if err := b.rebuildArchived(t.Context(), t, state, test.name, url, nil); err != nil {
			t.Fatal(err)
		}
		compare := diff.Comparison{A: b.table(t, "files"), B: b.table(t, test.name), Ignore: []string{}}
		if summary, found := b.diff(t, compare); len(found) > 0 || summary.NotCompared != 0 || summary.Equal < 50 {
			t.Errorf("%s: %+v, %+v", test.name, summary, found)
		}
		if _, err := b.rebuild(t.Context(), t, state, test.name, replay.Selection{}, nil); err == nil ||
			!strings.Contains(err.Error(), "--archive") {
			t.Errorf("continued without the archive: %v", err)
		}
	}
	b.refused(t, dir, url)
}

// refused checks what an archive with missing events, or of another topic, is answered.
func (b *bench) refused(t *testing.T, dir, url string) {
	t.Helper()
	names, err := filepath.Glob(dir + "/*/*/*/*.parquet")
	if err != nil || len(names) < 8 {
		t.Fatal(names, err)
	}
	tried := false
	partitionOf := func(name string) string { return name[:len(name)-len("00000000000000000000.parquet")] }
	for i, name := range names[1 : len(names)-1] { // neither the first nor the last of its partition
		if partitionOf(names[i]) != partitionOf(name) || partitionOf(name) != partitionOf(names[i+2]) {
			continue
		}
		tried = true
		if err := os.Rename(name, dir+"/away"); err != nil {
			t.Fatal(err)
		}
		err := b.rebuildArchived(t.Context(), t, t.TempDir(), "gap", url, nil)
		if err == nil || !strings.Contains(err.Error(), "the archive lacks the offsets") {
			t.Errorf("a missing object: %v", err)
		}
		if err := os.Rename(dir+"/away", name); err != nil {
			t.Fatal(err)
		}
		break
	}
	if !tried {
		t.Error("no partition has three objects")
	}
	ends, err := kafka.Extent(t.Context(), b.conf, b.s.Events.Name)
	if err != nil {
		t.Fatal(err)
	}
	b.expire(t, ends, 0)
	err = b.rebuildArchived(t.Context(), t, t.TempDir(), "late", url, nil)
	if err == nil || !strings.Contains(err.Error(), "expired before they were archived") {
		t.Errorf("events that are nowhere: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, b.s.Events.Name, "_topic"), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = b.rebuildArchived(t.Context(), t, t.TempDir(), "other", url, nil)
	if err == nil || !strings.Contains(err.Error(), "was created again") {
		t.Errorf("another topic: %v", err)
	}
}

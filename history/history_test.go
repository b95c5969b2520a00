package history

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	"tidemark/kafka/committed"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// noon is when the records of these tests are written.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

const events = "events-1"

// A copyTest is a copy of one partition.
type copyTest struct {
	*Copy
	tb   testing.TB
	next int64
	step time.Duration // between two records
}

func openCopy(tb testing.TB, dir string) *copyTest {
	tb.Helper()
	streams, err := topology.New("test", topology.Sizing{Partitions: 1, Replication: 1, MinISR: 1})
	if err != nil {
		tb.Fatal(err)
	}
	c, err := New(Config{
		Streams: streams, Dir: dir, Keep: 24 * time.Hour, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.Open("pin", events); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return &copyTest{Copy: c, tb: tb, step: time.Hour}
}

func (c *copyTest) resume(topic kafka.Span, first, lastEvent int64) {
	c.tb.Helper()
	var err error
	if c.next, err = c.Resume(0, topic, first, lastEvent, noon); err != nil {
		c.tb.Fatal(err)
	}
}

// change applies the notice of a file's change by the event at an offset. before is the offset of the change before, -1
// for a new file.
func (c *copyTest) change(file string, at, before int64, edit ...func(*tidemarkv1.Notice)) {
	c.tb.Helper()
	state := func(offset int64) *tidemarkv1.FileState {
		if offset < 0 {
			return nil
		}
		return &tidemarkv1.FileState{
			WorkspaceId: "ws", FileId: file, Version: offset + 1, Path: fmt.Sprintf("/d/%s-%d", file, offset),
			Size: new(offset), Status: tidemarkv1.Status_STATUS_ACTIVE, Position: &tidemarkv1.Position{Offset: offset},
		}
	}
	n := &tidemarkv1.Notice{
		WorkspaceId: "ws", FileId: file, EventId: "e", Event: "workspace_storage_file_updated", Version: new(at + 1),
		Position: &tidemarkv1.Position{Offset: at}, At: noon.UnixMicro(), Before: state(before), After: state(at),
	}
	for _, e := range edit {
		e(n)
	}
	value, err := codecs.Notice{}.Encode(n)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.record(value)
}

// record applies a record.
func (c *copyTest) record(value []byte) {
	c.tb.Helper()
	written := noon.Add(time.Duration(c.next) * c.step)
	if err := c.Apply(&kgo.Record{Offset: c.next, Value: value, Timestamp: written}); err != nil {
		c.tb.Fatal(err)
	}
	c.next++
}

// state returns what the copy knows: the bound, and the offsets of the changes of file "f", the newest first.
func (c *copyTest) state() string {
	c.tb.Helper()
	var b strings.Builder
	if err := c.Read(0, func(s *Snapshot) error {
		fmt.Fprint(&b, s.Before(), ":")
		return s.Versions("ws", "f", 1<<40, func(n *tidemarkv1.Notice) (bool, error) {
			fmt.Fprint(&b, " ", n.GetPosition().GetOffset())
			return true, nil
		})
	}); err != nil {
		return err.Error()
	}
	return b.String()
}

// After a failed send the topic has 10, 12, 11, 12.
func TestRepeatedNoticesAreKeptOnce(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	for _, at := range []int64{10, 12, 11, 12, 10} {
		c.change("f", at, at-1)
	}
	if got := c.state(); got != "-1: 12 11 10" {
		t.Error(got)
	}
}

// A copy that begins in the middle has the notices of all events after those of the margin, which is one here.
func TestABeginningInTheMiddle(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{From: 100, To: 200}, 150, 30)
	if got := c.state(); got != "30:" {
		t.Errorf("before the first notice: %s", got)
	}
	c.change("f", 21, 20)
	c.change("f", 22, 21)
	if got := c.state(); got != "21: 22" || c.next != 152 {
		t.Errorf("%s, next is %d", got, c.next)
	}
}

// A copy may begin among late notices of a former owner: those of events between them and the next are missing.
func TestABeginningAmongLateNotices(t *testing.T) {
	for name, rest := range map[string]func(c *copyTest){
		"by time":   func(c *copyTest) { c.step = time.Minute },
		"by number": func(c *copyTest) { c.next += margin },
	} {
		c := openCopy(t, t.TempDir())
		c.step = time.Millisecond
		c.resume(kafka.Span{From: 100, To: 200}, 150, 30)
		for i, want := range []string{"6:", "7:", "25:", "25:"} {
			c.change("f", []int64{6, 7, 25, 8}[i], 5)
			if got := c.state(); got != want {
				t.Errorf("%s: %s, want %s", name, got, want)
			}
		}
		rest(c)
		for _, at := range []int64{26, 27, 31} {
			c.change("f", at, at-1)
		}
		if got := c.state(); got != "25: 31 27 26" {
			t.Errorf("%s: %s", name, got)
		}
		if n := c.hours(noon)["0 * "].Events; n != 7 { // also those that are not all there are
			t.Errorf("%s: %d events counted", name, n)
		}
	}
	c := openCopy(t, t.TempDir())
	c.step = time.Millisecond
	c.resume(kafka.Span{From: 100, To: 200}, 150, 30)
	c.change("f", 31, 30)
	if got := c.state(); got != "30: 31" {
		t.Errorf("an event of later than the beginning: %s", got)
	}
}

// The activity is of seven days, whatever is kept otherwise.
func TestWhereTheReadingBegins(t *testing.T) {
	c := openCopy(t, t.TempDir())
	week := noon.Add(-ActivityKept)
	for _, row := range []struct {
		keep        time.Duration
		first, want time.Time
		before      int64
	}{
		{time.Hour, time.Time{}, week, margin},
		{240 * time.Hour, time.Time{}, noon.Add(-240 * time.Hour), margin},
		{time.Hour, week.Add(time.Minute), week.Add(time.Minute), 0},
		{time.Hour, noon, noon, 0},
	} {
		c.conf.Keep = row.keep
		if from, before := c.readFrom(noon, row.first); from != row.want || before != row.before {
			t.Errorf("%s, first event %s: %s and %d", row.keep, row.first, from, before)
		}
	}
}

func TestTrimSaysWhatIsGone(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	for _, at := range []int64{10, 12, 11, 13, 14} {
		c.change("f", at, at-1)
	}
	if err := c.Trim(noon.Add(c.Keep() + 2*time.Hour)); err != nil { // the first two
		t.Fatal(err)
	}
	if got := c.state(); got != "12: 14 13" {
		t.Error(got)
	}
	c.change("f", 12, 11) // repeated, and was removed
	if got := c.state(); got != "12: 14 13" {
		t.Errorf("after a repetition: %s", got)
	}
}

// A copy that was down for longer than the topic keeps notices lacks some.
func TestAGapIsNoticed(t *testing.T) {
	dir := t.TempDir()
	c := openCopy(t, dir)
	c.resume(kafka.Span{}, 0, -1)
	c.change("f", 10, -1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCopy(t, dir)
	c.resume(kafka.Span{From: 5, To: 9}, 5, 20)
	c.change("f", 17, 16)
	c.change("f", 18, 17)
	if got := c.state(); got != "17: 18" {
		t.Error(got)
	}
}

// The state before a change answers nothing about positions before the change before it.
func TestAMissingNoticeIsNoticed(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	c.change("f", 10, -1)
	c.change("f", 30, 20)
	for at, want := range map[int64]string{
		-1: "none", 9: "none", 10: "unknown", 19: "unknown", 20: "/d/f-20", 29: "/d/f-20", 30: "unknown",
	} {
		if err := c.Read(0, func(s *Snapshot) error {
			state, known, err := s.FileAt("ws", "f", at)
			got := state.GetPath()
			if !known {
				got = "unknown"
			} else if state == nil {
				got = "none"
			}
			if got != want || known && state != nil && state.GetFileId() != "f" {
				t.Errorf("as of %d: %s, want %s", at, got, want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// A state from before the events topic was recreated is the one before the first change in the new topic.
func TestAStateOfAnotherLog(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	c.change("f", 10, 5000)
	c.change("g", 11, 11)
	for file, want := range map[string]string{"f": "/d/f-5000", "g": "/d/g-11"} {
		if err := c.Read(0, func(s *Snapshot) error {
			state, known, err := s.FileAt("ws", file, 7)
			if !known || state.GetPath() != want {
				t.Errorf("%s: %v, known: %v", file, state, known)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// What another program writes, and notices of another partition, change nothing.
func TestForeignRecords(t *testing.T) {
	c := openCopy(t, t.TempDir())
	c.resume(kafka.Span{}, 0, -1)
	for _, value := range []string{"", "{}", "no json", `{"workspace_id":"ws","position":"3:1"}`} {
		c.record([]byte(value))
	}
	c.change("f", 1, -1)
	if got := c.state(); got != "-1: 1" {
		t.Error(got)
	}
	if next, _ := c.Next(0); next != 5 {
		t.Errorf("next is %d", next)
	}
}

func TestKeepIsLimited(t *testing.T) {
	streams, err := topology.New("test", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	for keep, ok := range map[time.Duration]bool{
		-1: false, 0: false, time.Hour: true, 720 * time.Hour: true, 721 * time.Hour: false,
	} {
		if _, err := New(Config{Streams: streams, Keep: keep, Metrics: prometheus.NewRegistry()}); (err == nil) != ok {
			t.Errorf("%s: %v", keep, err)
		}
	}
}

// A store that is found corrupt is wiped, and filled again.
func TestCorruptStoreEndsTheReading(t *testing.T) {
	dir := t.TempDir()
	c := openCopy(t, dir)
	ids := map[string]committed.TopicID{}
	look := func(context.Context, ...string) (map[string]committed.TopicID, error) { return ids, nil }
	c.pin, _, _ = c.topics(t.Context(), look)
	c.resume(kafka.Span{}, 0, -1)
	for i := range int64(2000) {
		c.change("f", i, i-1)
	}
	if err := c.check(t.Context(), look); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	tables, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	for _, name := range tables {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(content) / 2 {
			content[i] ^= 0xff
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c = openCopy(t, dir)
	c.pin, _, _ = c.topics(t.Context(), look)
	_ = c.state()
	if err := c.check(t.Context(), look); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("%v", err)
	}
	ids[c.conf.Streams.Notify.Name] = committed.TopicID{Topic: "another"}
	c = openCopy(t, t.TempDir())
	if err := c.check(t.Context(), look); err == nil || !strings.Contains(err.Error(), "recreated") {
		t.Errorf("%v", err)
	}
}

package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
	"tidemark/replay"
)

const topic = "fastio-events"

// A topicLog is a log of one partition in memory.
type topicLog struct {
	mu      sync.Mutex
	records []*kgo.Record // control records included
	grown   chan struct{}
}

func newLog(records ...*kgo.Record) *topicLog {
	l := &topicLog{grown: make(chan struct{})}
	l.add(records...)
	return l
}

func (l *topicLog) add(records ...*kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records = append(l.records, records...)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *topicLog) from(offset int64, most int) ([]*kgo.Record, chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, r := range l.records {
		if r.Offset >= offset {
			return l.records[i:min(i+most, len(l.records))], l.grown
		}
	}
	return nil, l.grown
}

func (l *topicLog) end(context.Context, int32) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) == 0 {
		return 0, nil
	}
	return l.records[len(l.records)-1].Offset + 1, nil
}

func (l *topicLog) data() (records []*kgo.Record) {
	for _, r := range l.records {
		if !r.Attrs.IsControl() {
			records = append(records, r)
		}
	}
	return records
}

// A group keeps the committed offset of partition 3.
type group struct {
	mu        sync.Mutex
	committed int64
	changed   chan struct{}
}

func newGroup() *group { return &group{committed: -1, changed: make(chan struct{})} }

func (g *group) commit(offset int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if offset > g.committed {
		g.committed = offset
		close(g.changed)
		g.changed = make(chan struct{})
	}
}

func (g *group) at() (int64, chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.committed, g.changed
}

// A member is the partition as one of its owners has it.
type member struct {
	log         *topicLog
	group       *group
	begin, next int64
	batch       int
	before      func() // called before each batch
}

func (g *group) member(l *topicLog, batch int) *member {
	at, _ := g.at()
	return &member{log: l, group: g, begin: at, next: max(0, at), batch: batch}
}

func (m *member) Next(ctx context.Context) ([]*kgo.Record, error) {
	if m.before != nil {
		m.before()
	}
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		records, grown := m.log.from(m.next, m.batch)
		if len(records) > 0 {
			m.next = records[len(records)-1].Offset + 1
			return records, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
		}
	}
}

func (m *member) Handled(last *kgo.Record) { m.group.commit(last.Offset + 1) }
func (m *member) Begin() int64             { return m.begin }
func (m *member) Topic() string            { return topic }
func (m *member) Number() int32            { return 3 }

// newArchive returns an archive of l in a folder, or in a bucket.
func newArchive(t *testing.T, url string, l *topicLog, change func(*Config)) *Archive {
	t.Helper()
	conf := Config{
		Location: parquetlog.Location{URL: url, Endpoint: endpointOf(url)}, Topic: topic, Window: time.Second,
		Dir:     t.TempDir(),
		TopicID: func(context.Context) (string, error) { return "cluster/topic", nil }, End: l.end,
		Retry: func(ctx context.Context, attempt func(context.Context) error) (err error) {
			// While another owner uploads an object, a server may refuse to create it and not have it yet.
			for err = attempt(ctx); errors.Is(err, fs.ErrNotExist) && ctx.Err() == nil; err = attempt(ctx) {
				time.Sleep(10 * time.Millisecond)
			}
			return err
		},
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
		MaxRecords: 50, MaxBytes: 8 << 10, Grace: 20 * time.Millisecond,
	}
	if change != nil {
		change(&conf)
	}
	a, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

func endpointOf(url string) string {
	if strings.HasPrefix(url, "s3:") {
		return os.Getenv("S3_ENDPOINT")
	}
	return ""
}

// untilIdle archives until all of the log is committed.
func (a *Archive) untilIdle(t *testing.T, l *topicLog, g *group, m Partition) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- a.Partition(ctx, m) }()
	end, _ := l.end(ctx, 3)
	for {
		at, changed := g.at()
		if at >= end {
			cancel()
			<-ended
			return
		}
		select {
		case <-changed:
		case err := <-ended:
			t.Fatalf("committed %d of %d: %v", at, end, err)
		}
	}
}

// objects returns the names of a folder's objects, with a hash of each.
func objects(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".parquet") {
			return err
		}
		data, err := os.ReadFile(name)
		found[strings.TrimPrefix(name, dir+"/")] = fmt.Sprintf("%x", sha256.Sum256(data))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// read returns all records of an archive.
func read(t *testing.T, url string) (records []*kgo.Record, err error) {
	t.Helper()
	at := parquetlog.Location{URL: url, Endpoint: endpointOf(url)}
	r, err := replay.OpenArchive(t.Context(), at, topic, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	err = r.Read(t.Context(), 3, 0, func(r *kgo.Record) error {
		records = append(records, r)
		return nil
	})
	return records, err
}

var noon = time.Date(2026, 11, 29, 12, 59, 58, 0, time.UTC)

// event is a record at an offset, and seconds after noon.
func event(offset int64, seconds float64) *kgo.Record {
	value := fmt.Sprintf(`{"event":"workspace_storage_file_added","workspace_id":"w%d","event_id":"e%d","object_id":"f","future":[1.0]}`,
		offset%5, offset)
	return &kgo.Record{
		Topic: topic, Partition: 3, Offset: offset, Key: []byte(fmt.Sprintf("w%d", offset%5)), Value: []byte(value),
		Timestamp: noon.Add(time.Duration(seconds*1000) * time.Millisecond), LeaderEpoch: int32(offset / 100),
		Headers: []kgo.RecordHeader{{Key: "ce_id", Value: []byte("e")}},
	}
}

func marker(offset int64, seconds float64) *kgo.Record {
	r := event(offset, seconds)
	r.Attrs = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{Control: true})
	return r
}

// randomLog has late records, holes, markers and records of all sizes.
func randomLog(random *rand.Rand, n int) *topicLog {
	l := newLog()
	offset, seconds := int64(0), 0.0
	for range n {
		seconds += random.Float64() / 20
		r := event(offset, seconds)
		switch random.IntN(20) {
		case 0:
			r.Timestamp = r.Timestamp.Add(-2 * time.Second)
		case 1:
			offset += random.Int64N(3)
			r = marker(offset, seconds)
		case 2:
			r.Value = []byte(strings.Repeat("\xff", random.IntN(9000)))
		}
		l.add(r)
		offset++
	}
	return l
}

func folderURL(t *testing.T) (dir, url string) {
	t.Helper()
	dir = t.TempDir()
	return dir, "file://" + dir
}

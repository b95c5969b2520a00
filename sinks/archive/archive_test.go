package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/parquetlog"
	"tidemark/sinks"
)

// same compares what is archived of a record.
func same(want, got []*kgo.Record) string {
	return cmp.Diff(want, got, cmpopts.IgnoreUnexported(kgo.Record{}, kgo.RecordAttrs{}),
		cmpopts.IgnoreFields(kgo.Record{}, "LeaderEpoch", "Context"))
}

// An object ends with its window, its count or its bytes. A late record stays in the object of its offset.
func TestObjectsEnd(t *testing.T) {
	l := newLog(event(7, 0), event(8, 0.9), event(9, -1), event(10, 1.9), // one window: 12:59:58
		event(11, 2), event(12, 2.5), // the next one
		event(13, 3.1), event(14, 3.2), event(15, 3.3), event(16, 3.3)) // three by count
	large := event(17, 3.4)
	large.Value = []byte(strings.Repeat("x", 8<<10)) // does not fit into an object with others
	l.add(large, event(18, 3.5))
	dir, url := folderURL(t)
	a := newArchive(t, url, l, func(c *Config) { c.MaxRecords, c.Window = 3, 2*time.Second })
	g := newGroup()
	a.untilIdle(t, l, g, g.member(l, 100))
	got := slices.Sorted(maps.Keys(objects(t, dir)))
	name := func(hour string, first int64) string {
		return fmt.Sprintf("fastio-events/dt=2026-11-29/hour=%s/fastio-events-3-%020d.parquet", hour, first)
	}
	want := []string{
		name("12", 7), name("12", 10), name("13", 11), name("13", 14), name("13", 17), name("13", 18),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	records, err := read(t, url)
	if diff := same(l.data(), records); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// What was received is what is read: bytes that are no JSON or no UTF-8, absent and empty ones, and headers.
func TestRecordsSurvive(t *testing.T) {
	l := newLog()
	for i, value := range [][]byte{
		nil, {}, []byte("\xff\x00"), []byte("{"), []byte(" {\"a\":1,  \"a\":2}\n"), []byte(`{"event_id":5}`), []byte("\x00"),
	} {
		r := event(int64(i), 0)
		r.Value, r.Key = value, [][]byte{nil, {}, {0xff}}[i%3]
		r.Headers = [][]kgo.RecordHeader{
			nil, {{Key: "", Value: nil}, {Key: "a", Value: []byte{}}, {Key: "a", Value: []byte{0xfe}}, {Key: "\xfd"}},
		}[i%2]
		l.add(r)
	}
	_, url := folderURL(t)
	g := newGroup()
	newArchive(t, url, l, nil).untilIdle(t, l, g, g.member(l, 2))
	records, err := read(t, url)
	if diff := same(l.data(), records); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// An idle partition is closed only when all of its log was received. A record that comes late, in a window that is
// closed, is in an object of its own; a rerun from the beginning finds both and changes nothing.
func TestIdleClose(t *testing.T) {
	t.Parallel()
	l := newLog(event(0, 0), event(1, 0.1), marker(2, 0.1))
	dir, url := folderURL(t)
	g := newGroup()
	stalled := newArchive(t, url, l, func(c *Config) {
		c.End = func(context.Context, int32) (int64, error) { return 4, nil }
	})
	ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if err := stalled.Partition(ctx, g.member(l, 9)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if got := objects(t, dir); len(got) != 0 {
		t.Fatalf("closed before all of the log was received: %v", got)
	}
	a := newArchive(t, url, l, nil)
	a.untilIdle(t, l, g, g.member(l, 9))
	if at, _ := g.at(); at != 3 {
		t.Errorf("committed %d, want 3: the marker is read too", at)
	}
	l.add(event(3, 0.2))
	a.untilIdle(t, l, g, g.member(l, 9))
	before := objects(t, dir)
	if len(before) != 2 {
		t.Fatalf("%v", before)
	}
	l.add(event(4, 9))
	again := newGroup()
	a.untilIdle(t, l, again, again.member(l, 9))
	for name, hash := range objects(t, dir) {
		if before[name] != hash && !strings.Contains(name, "04.parquet") {
			t.Errorf("%s has changed or is new", name)
		}
	}
	records, err := read(t, url)
	if diff := same(l.data(), records); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Holes in the offsets are no gaps. A missing object is.
func TestMissingObjectIsFound(t *testing.T) {
	l := newLog(event(0, 0), marker(1, 0), event(5, 1), marker(6, 1), event(9, 2), event(10, 3))
	dir, url := folderURL(t)
	g := newGroup()
	a := newArchive(t, url, l, nil)
	a.untilIdle(t, l, g, g.member(l, 1))
	if records, err := read(t, url); err != nil || len(records) != 4 {
		t.Errorf("%d records, %v", len(records), err)
	}
	gone := filepath.Join(dir, fmt.Sprintf("fastio-events/dt=2026-11-29/hour=12/fastio-events-3-%020d.parquet", 5))
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, url); err == nil || !strings.Contains(err.Error(), "lacks the offsets 5 to 8") {
		t.Errorf("%v", err)
	}
}

var errKilled = errors.New("killed")

// A deadly store ends the process at a random point of a create: before it, within it, or after it.
type deadly struct {
	parquetlog.Store
	mu     sync.Mutex
	random *rand.Rand
}

func (d *deadly) Create(ctx context.Context, name string, file *os.File) (bool, error) {
	d.mu.Lock()
	dice := d.random.IntN(12)
	d.mu.Unlock()
	if dice == 0 {
		return false, errKilled
	}
	created, err := d.Store.Create(ctx, name, file)
	if dice == 1 {
		return false, errKilled
	}
	return created, err
}

// After kills at random points, and with a second owner at the same time, the objects are the same, byte for byte, as
// those of a run without them.
func TestKillsChangeNothing(t *testing.T) {
	t.Parallel()
	for _, store := range stores(t) {
		t.Run(store.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			random := rand.New(rand.NewPCG(seed, 0))
			l := randomLog(random, 2000)
			want, calm := store.url(t), newGroup()
			newArchive(t, want, l, nil).untilIdle(t, l, calm, calm.member(l, 100))
			got := store.url(t)
			kills, g := killed(t, l, got, random, 100)
			a := newArchive(t, got, l, nil)
			a.untilIdle(t, l, g, g.member(l, 100))
			if diff := cmp.Diff(store.objects(t, want), store.objects(t, got)); diff != "" || kills < 100 {
				t.Errorf("%d kills (-want +got):\n%s", kills, diff)
			}
			records, err := read(t, got)
			if diff := same(l.data(), records); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// killed runs owners that are killed, in pairs, until there were enough kills.
func killed(t *testing.T, l *topicLog, url string, random *rand.Rand, enough int) (kills int, g *group) {
	t.Helper()
	g = newGroup()
	end, _ := l.end(t.Context(), 3)
	for kills < enough {
		if at, _ := g.at(); at >= end { // begin again: the objects are there
			g = newGroup()
		}
		var both sync.WaitGroup
		for range 2 {
			a := newArchive(t, url, l, nil)
			a.store = &deadly{Store: a.store, random: rand.New(rand.NewPCG(random.Uint64(), 0))}
			lifetime := time.Duration(random.IntN(300)) * time.Millisecond
			if random.IntN(10) == 0 {
				lifetime = 1500 * time.Millisecond // long enough to close an idle partition
			}
			ctx, kill := context.WithTimeout(t.Context(), lifetime)
			m, life := g.member(l, 1+random.IntN(200)), random.IntN(40)
			m.before = func() {
				if life--; life < 0 {
					kill()
				}
			}
			kills++
			both.Go(func() {
				defer kill()
				if err := a.Partition(ctx, m); ctx.Err() == nil && !errors.Is(err, errKilled) {
					t.Errorf("ended with %v", err)
				}
			})
		}
		both.Wait()
	}
	return kills, g
}

// An overwriting store is what a bucket is without conditional writes.
type overwriting struct{ parquetlog.Store }

func (o overwriting) Create(ctx context.Context, name string, file *os.File) (bool, error) {
	place := filepath.Join(strings.TrimPrefix(fmt.Sprint(o.Store), "{"), name)
	if err := os.Remove(place); err != nil && !os.IsNotExist(err) {
		return false, err
	}
	return o.Store.Create(ctx, name, file)
}

// The control of the test above: with objects that are overwritten, and closed by the wall clock alone, the same owners
// leave other objects than a run without kills.
func TestKillsChangeAnArchiveThatOverwrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	l := randomLog(random, 600)
	naive := func(a *Archive) {
		a.conf.End = func(context.Context, int32) (int64, error) { return 0, nil } // always idle
		a.conf.Grace = -1020 * time.Millisecond
		a.store = overwriting{a.store}
	}
	calmDir, calmURL := folderURL(t)
	calm := newGroup()
	newArchive(t, calmURL, l, nil).untilIdle(t, l, calm, calm.member(l, 100))
	dir, url := folderURL(t)
	for range 4 {
		g := newGroup()
		for range 5 { // owners whose fetches are slow now and then
			a := newArchive(t, url, l, nil)
			naive(a)
			ctx, kill := context.WithTimeout(t.Context(), 500*time.Millisecond)
			m, life := g.member(l, 1+random.IntN(100)), 5+random.IntN(40)
			m.before = func() {
				if life--; life < 0 {
					kill()
				}
			}
			if err := a.Partition(ctx, m); ctx.Err() == nil {
				t.Fatal(err)
			}
			kill()
		}
	}
	g := newGroup()
	newArchive(t, url, l, nil).untilIdle(t, l, g, g.member(l, 100))
	if cmp.Equal(objects(t, calmDir), objects(t, dir)) {
		t.Error("the test of kills cannot fail")
	}
}

// A topic that was created again is refused, as its offsets start over. So is a server that overwrites.
func TestCheckRefuses(t *testing.T) {
	l := newLog(event(0, 0))
	_, url := folderURL(t)
	a := newArchive(t, url, l, nil)
	a.conf.TopicID = func(context.Context) (string, error) { return "cluster/other", nil }
	if err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "choose another prefix") {
		t.Errorf("recreated: %v", err)
	}
	a = newArchive(t, url, l, nil)
	a.topicID = "cluster/other" // as if both had been checked at the same time
	g := newGroup()
	newArchive(t, url, l, nil).untilIdle(t, l, g, g.member(l, 1))
	err := a.Partition(t.Context(), newGroup().member(l, 1))
	if _, rejected := errors.AsType[*sinks.Rejected](err); !rejected {
		t.Errorf("another topic id: %v", err)
	}
	_, other := folderURL(t)
	a = newArchive(t, other, l, nil)
	a.store = overwriting{a.store}
	if err := a.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "conditional writes") {
		t.Errorf("overwriting: %v", err)
	}
}

// Each error of a server says which setting is wrong, and has no secret.
func TestErrorsOfAServer(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
	t.Setenv("AWS_REGION", "us-east-1")
	for code, want := range map[string]string{
		"NoSuchBucket": "create it", "AccessDenied": "s3:PutObject", "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY",
		"PermanentRedirect": "AWS_REGION", "": "--s3-endpoint",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>no</Message></Error>", code)
		}))
		store, err := parquetlog.Location{URL: "s3://bucket/prefix", Endpoint: server.URL}.Open()
		if err != nil {
			t.Fatal(err)
		}
		if code == "" {
			server.Close()
		}
		file, err := parquetlog.Temporary(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		_, err = store.Create(t.Context(), "x", file)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "very-secret") {
			t.Errorf("%s: %v", code, err)
		}
		server.Close()
	}
}

func TestNewRefuses(t *testing.T) {
	for _, url := range []string{
		"", "archive", "s3:///x", "s3://bucket:1/x", "file://host/x", "file:///", "s3://b/../c", "s3://b/a?x=1", "s3://u:p@b/c",
	} {
		_, err := New(Config{Location: parquetlog.Location{URL: url}, Dir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), "--archive-url") || strings.Contains(err.Error(), "u:p@") {
			t.Errorf("%q: %v", url, err)
		}
	}
	_, err := New(Config{Location: parquetlog.Location{URL: "file:///x"}, Window: 2 * time.Hour, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "--archive-window") {
		t.Errorf("%v", err)
	}
}

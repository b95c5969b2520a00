package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// mute is a cluster that does not respond.
type mute struct{}

func (mute) read(context.Context) (snapshot, error) { return snapshot{}, errors.New("no brokers") }

func (mute) topicIDs(context.Context) (topicIDs, error)             { return topicIDs{}, errors.New("no brokers") }
func (mute) times(context.Context, []eventAt) map[eventAt]time.Time { return nil }

// at is the fixture's cluster with timestamps of events.
type at struct {
	*fixture
	when map[int64]time.Time // by offset
}

func (a at) times(_ context.Context, of []eventAt) map[eventAt]time.Time {
	found := map[eventAt]time.Time{}
	for _, e := range of {
		if when, ok := a.when[e.offset]; ok {
			found[e] = when
		}
	}
	return found
}

func TestLagIsTheAgeOfTheOldestMissingEvent(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	now := time.Now()
	cluster := at{f, map[int64]time.Time{0: now.Add(-time.Hour), 1: now.Add(-time.Minute)}}
	check := func(name string, records int64, least, most time.Duration) {
		t.Helper()
		l, known := f.progress.lag(&f.Server.files.coverage, p, time.Now())
		if !known || l.records != records || l.age < least || l.age > most {
			t.Errorf("%s: %d records, %s old, known %v; want %d, %s to %s", name, l.records, l.age, known, records,
				least, most)
		}
	}
	poll := func() {
		f.progress.timesDue = time.Time{}
		f.progress.poll(t.Context(), cluster)
	}
	check("nothing there", 0, 0, 0)

	f.begin()
	f.now.eventsEnd[p] = 2
	poll()
	check("two events, no processor", 2, time.Hour, time.Hour+time.Minute)

	row := fileRow("ws", "a", "/a", isActive, 1)
	row.Position = &tidemarkv1.Position{Partition: p, Offset: 0}
	f.put(row)
	f.now.filesEnd[p] = 1
	poll()
	check("the first has its row, nothing is committed", 1, time.Minute, 2*time.Minute)

	f.now.filesCommit[p] = 2 // the second left no row
	poll()
	check("all committed", 0, 0, 0)

	f.now.filesEnd[p], f.now.eventsEnd[p], f.now.filesCommit[p] = 2, 3, 3
	poll()
	check("committed, its row not read yet, its time unknown", 1, 0, time.Minute)
}

func TestLagGrowsWhileBrokersAreSilent(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxStaleness = time.Minute })
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != 200 || w.Header().Get(headerLag) != "0" {
		t.Fatalf("%d, lag %q", w.Code, w.Header().Get(headerLag))
	}
	quiet := func(d time.Duration) {
		f.progress.mu.Lock()
		defer f.progress.mu.Unlock()
		for i := range f.progress.lastResponse {
			f.progress.lastResponse[i] = time.Now().Add(-d)
		}
		f.progress.last.began = time.Now().Add(-d)
	}
	quiet(10 * time.Second)
	f.progress.poll(t.Context(), mute{})
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != 200 || w.Header().Get(headerLag) < "10" ||
		w.Header().Get(headerLag) > "11" {
		t.Errorf("%d, lag %q after 10 s", w.Code, w.Header().Get(headerLag))
	}
	if err := f.Ready(); err != nil {
		t.Errorf("not ready with an answer of allowed age: %v", err)
	}
	quiet(2 * time.Minute)
	if w := f.get("/v1/workspaces/ws/files/a"); code(t, w) != codeStale || w.Header().Get("Retry-After") == "" ||
		w.Header().Get(headerLag) < "120" {
		t.Errorf("past the allowed age: %d, lag %q", w.Code, w.Header().Get(headerLag))
	}
	if f.Ready() == nil {
		t.Error("ready past the allowed age")
	}
}

// The workspaces table holds an event only when the whole chain has let it through.
func TestWorkspaceChain(t *testing.T) {
	f := newFixture(t)
	const p = 1
	at := func(step string, want int64) {
		t.Helper()
		f.poll()
		if got := nextEvent(f.workspaces.frontiers[p]); got != want {
			t.Errorf("%s: bound %d, want %d", step, got, want)
		}
	}
	at("nothing", 0)
	f.now.eventsEnd[p] = 10
	at("events", 0)
	f.now.filesCommit[p], f.now.notifyEnd[p] = 10, 7
	at("folded, not counted", 0)
	f.now.notifyCommit[p], f.now.workspacesEnd[p] = 6, 3
	at("one notice not counted", 0)
	f.now.notifyEnd[p], f.now.eventsEnd[p] = 9, 12
	f.now.notifyCommit[p] = 7
	at("counted, rows not read", 0)
	if err := f.workspaces.update(p, 2, "none/of ours", []byte("x")); err != nil {
		t.Fatal(err)
	}
	at("rows read", 10)
}

func TestCountedNoticesMoveTheFrontier(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	f.putWorkspace(&tidemarkv1.WorkspaceState{
		WorkspaceId: "ws", Version: 1, LogId: testLog,
		Applied: []byte{0, 1, 1, 2},
	})
	if got := nextEvent(f.workspaces.frontiers[p]); got != 3 {
		t.Errorf("bound %d, want 3: notices 0 to 2 are counted, 3 is not", got)
	}
	f.putWorkspace(&tidemarkv1.WorkspaceState{
		WorkspaceId: "ws", Version: 2, LogId: "another log", Applied: []byte{0},
		AppliedFrom: 3,
	})
	if got := nextEvent(f.workspaces.frontiers[p]); got != 3 {
		t.Errorf("bound %d: an offset of another log was counted", got)
	}
}

// marked is a cluster in which each partition ends with a transaction marker, which no consumer sees.
type marked struct{ *fixture }

func (m marked) read(ctx context.Context) (snapshot, error) {
	r, err := m.fixture.read(ctx)
	for i := range r.eventsVisible {
		r.eventsVisible[i] = max(0, r.eventsEnd[i]-1)
	}
	return r, err
}

func TestATransactionsMarkerIsNoLag(t *testing.T) {
	f := newFixture(t)
	f.now.eventsEnd[1], f.now.filesCommit[1] = 11, 10
	f.progress.poll(t.Context(), marked{f})
	if l, known := f.progress.lag(&f.Server.files.coverage, 1, time.Now().Add(time.Second)); !known || l.records != 0 ||
		l.age != 0 {
		t.Errorf("all is folded, and the lag is %+v, known %v", l, known)
	}
	if err := f.progress.waitForEvent(t.Context(), nil, 1, 10); err != nil { // the end itself is still the log's
		t.Error(err)
	}
}

func TestStalledViewIsReplaced(t *testing.T) {
	f := newFixture(t)
	begin := time.Now()
	f.Server.files.observe(1, 5, begin)
	f.Server.files.observe(1, 5, begin.Add(stallAfter-time.Second))
	select {
	case <-f.Server.files.restart:
		t.Fatal("given up too early")
	default:
	}
	f.Server.files.observe(1, 5, begin.Add(stallAfter))
	select {
	case <-f.Server.files.restart:
	default:
		t.Error("a copy that does not move is left alone")
	}
}

// Blocks of the local store that went bad end the view, and the copy is rebuilt.
func TestACorruptCopyIsRebuilt(t *testing.T) {
	f := newFixture(t)
	for i := range 200 {
		f.put(fileRow("ws", fmt.Sprintf("file%04d", i), strings.Repeat("p", 200), isActive, 1))
	}
	if err := f.Server.files.close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(f.conf.Dir, "files", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no table to damage: %v", err)
	}
	for _, name := range tables {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range len(b) / 4 {
			b[i] ^= 0x55
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f.Server.files.store, err = localstore.Open(filepath.Join(f.conf.Dir, "files"), "cluster/topic",
		f.conf.Log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Server.files.close() }) // which fails, as what it closes is damaged
	f.get("/v1/workspaces/ws/files/file0000")
	if !f.Server.files.corrupt() {
		t.Fatal("the damage was not noticed")
	}
	f.poll()
	select {
	case <-f.Server.files.restart:
	default:
		t.Error("the view goes on")
	}
	f.Server.files.discard(t.Context()) // as run does once the view has ended
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/file0001"); w.Code != http.StatusServiceUnavailable || f.Ready() == nil {
		t.Errorf("before it is complete again: %d, ready %v", w.Code, f.Ready())
	}
	f.open(f.Server.files)
	f.now.filesEnd[kafka.Partition("ws", 4)] = 1
	f.poll()
	if f.Ready() == nil {
		t.Error("ready with nothing read")
	}
	f.files = make([]int64, 4)
	f.put(fileRow("ws", "again", "/again", isActive, 1))
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/again"); w.Code != http.StatusOK || f.Ready() != nil {
		t.Errorf("complete again: %d, ready %v", w.Code, f.Ready())
	}
}

// A partition that its store has wiped, while the process ran, is answered from when it is complete again.
func TestAWipedPartitionIsNotAnsweredFrom(t *testing.T) {
	f := newFixture(t)
	p := kafka.Partition("ws", 4)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.now.filesEnd[p] = 1
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != http.StatusOK || f.Ready() != nil {
		t.Fatalf("%d, ready %v", w.Code, f.Ready())
	}
	empty, err := localstore.Open(t.TempDir(), "cluster/topic", f.conf.Log)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Server.files.close(); err != nil {
		t.Fatal(err)
	}
	f.Server.files.store = empty
	if _, err := f.Server.files.openPartition(p); err != nil {
		t.Fatal(err)
	}
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != http.StatusServiceUnavailable || f.Ready() == nil {
		t.Errorf("with nothing read: %d, ready %v", w.Code, f.Ready())
	}
	f.files[p] = 0
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.poll()
	if w := f.get("/v1/workspaces/ws/files/a"); w.Code != http.StatusOK || f.Ready() != nil {
		t.Errorf("complete again: %d, ready %v", w.Code, f.Ready())
	}
}

// One leader that does not answer neither hides what was missing before nor stops the others.
func TestLagOfALeaderlessPartition(t *testing.T) {
	f := newFixture(t)
	const p = 2
	f.begin()
	f.now.eventsEnd[p] = 2
	f.progress.timesDue = time.Time{}
	f.progress.poll(t.Context(), at{f, map[int64]time.Time{0: time.Now().Add(-time.Hour)}})
	f.now.eventsEnd[p], f.now.eventsEnd[0] = unknown, 1
	f.poll()
	if l, _ := f.progress.lag(&f.Server.files.coverage, p, time.Now()); l.records != 2 || l.age < time.Hour {
		t.Errorf("%d records, %s old", l.records, l.age)
	}
	if l, _ := f.progress.lag(&f.Server.files.coverage, 0, time.Now()); l.records != 1 {
		t.Errorf("%d records in the next partition", l.records)
	}
	if l, _ := f.progress.lag(&f.Server.files.coverage, p, time.Now().Add(2*time.Hour)); l.age < 3*time.Hour {
		t.Errorf("%s old two hours later", l.age)
	}
}

// A producer's clock that is ahead hides no lag: an event is at least as old as the first poll that found it.
func TestLagOfRecordsStampedAhead(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxStaleness = time.Minute })
	p := kafka.Partition("ws", 4)
	f.put(fileRow("ws", "a", "/a", isActive, 1))
	f.now.filesEnd[p] = 1
	begin := time.Now()
	ahead := at{f, map[int64]time.Time{}}
	for offset := range int64(4) {
		ahead.when[offset] = begin.Add(time.Hour)
	}
	f.now.eventsEnd[p] = 4
	f.progress.timesDue = time.Time{}
	f.progress.poll(t.Context(), ahead)
	for _, after := range []time.Duration{0, time.Second, 30 * time.Minute} {
		l, _ := f.progress.lag(&f.Server.files.coverage, p, begin.Add(after))
		if l.records != 4 || l.age > after || l.age < after-time.Second {
			t.Errorf("%d records, %s old after %s", l.records, l.age, after)
		}
	}
	f.progress.mu.Lock()
	f.progress.windows[p][0].before = begin.Add(-2 * time.Minute)
	f.progress.mu.Unlock()
	if w := f.get("/v1/workspaces/ws/files/a"); code(t, w) != codeStale {
		t.Errorf("two minutes later: %d, lag %q", w.Code, w.Header().Get(headerLag))
	}
}

// Nor does one that is behind make an event older than the view's last look at a log without it.
func TestLagOfRecordsStampedBehind(t *testing.T) {
	f := newFixture(t)
	time.Sleep(time.Millisecond)
	begin := time.Now()
	f.poll()
	f.now.eventsEnd[0] = 1
	f.progress.timesDue = time.Time{}
	f.progress.poll(t.Context(), at{f, map[int64]time.Time{0: begin.Add(-time.Hour)}})
	if l, _ := f.progress.lag(&f.Server.files.coverage, 0, begin.Add(time.Minute)); l.records != 1 ||
		l.age > time.Minute ||
		l.age < 59*time.Second {
		t.Errorf("%d records, %s old", l.records, l.age)
	}
	f.begin() // a view that starts later believes the record
	f.progress.timesDue = time.Time{}
	f.poll()
	if l, _ := f.progress.lag(&f.Server.files.coverage, 0, begin); l.age < time.Hour {
		t.Errorf("%s old for a view that starts later", l.age)
	}
}

// A group that goes on, slower than events come, is behind by the time since the oldest missing one was seen, not since
// it became that.
func TestLagOfAMovingBacklog(t *testing.T) {
	f := newFixture(t)
	begin := time.Now()
	poll := func(after time.Duration, end, done int64) {
		f.now.eventsEnd[0], f.now.filesCommit[0] = end, done
		r, err := f.read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r.began = begin.Add(after)
		f.progress.mu.Lock()
		f.progress.update(r)
		f.progress.mu.Unlock()
	}
	check := func(after, age, within time.Duration) {
		t.Helper()
		if l, _ := f.progress.lag(&f.Server.files.coverage, 0, begin.Add(after)); l.age < age || l.age > age+within {
			t.Errorf("after %s it is %s old, want %s", after, l.age, age)
		}
	}
	for s := range 1000 { // two events a second, of which one is done
		poll(time.Duration(s)*time.Second, int64(2*s), int64(s))
	}
	check(999*time.Second, 499*time.Second, 16*time.Second)
	poll(1000*time.Second, 1500, 999) // a broker that lags, or another log
	check(1000*time.Second, 500*time.Second, 16*time.Second)
	poll(1001*time.Second, 2000, 999)
	check(1001*time.Second, 501*time.Second, 16*time.Second)
	if n := len(f.progress.windows[0]); n > maxWindows {
		t.Errorf("%d windows are kept", n)
	}
	poll(1002*time.Second, 2000, 2000)
	check(1002*time.Second, 0, 0)
	poll(1003*time.Second, 3, 0) // the log begins again
	check(1004*time.Second, time.Second, 0)
}

// A timestamp that was not found is fetched again.
func TestLagCorrectsAGuess(t *testing.T) {
	f := newFixture(t)
	f.begin()
	f.now.eventsEnd[0] = 1
	f.poll() // the fixture knows no times
	if l, _ := f.progress.lag(&f.Server.files.coverage, 0, time.Now()); l.age > time.Minute {
		t.Errorf("guessed %s", l.age)
	}
	f.progress.timesDue = time.Time{}
	f.progress.poll(t.Context(), at{f, map[int64]time.Time{0: time.Now().Add(-time.Hour)}})
	if l, _ := f.progress.lag(&f.Server.files.coverage, 0, time.Now()); l.age < time.Hour {
		t.Errorf("%s once the time is known", l.age)
	}
}

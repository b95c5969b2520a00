package views_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/devbroker"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
	"tidemark/views"
)

const partitions = 4

// A rig is a cluster with our topics, written to by hand in place of the processors.
type rig struct {
	t       *testing.T
	conf    kafka.Config
	streams topology.Streams
	client  *kgo.Client
	admin   *kadm.Client
	logID   string
	dir     string
}

func newRig(t *testing.T, brokers []string) *rig {
	t.Helper()
	streams, err := topology.New("views-"+strconv.FormatUint(rand.Uint64(), 36),
		topology.Sizing{Partitions: partitions, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, conf: kafka.Config{Brokers: brokers}, streams: streams, dir: t.TempDir()}
	config := streams.Events.Config()
	config[kafka.TimestampType] = "CreateTime" // tests give events their times
	devbroker.CreateTopic(t, brokers, streams.Events.Name, partitions, config)
	if _, err := kafka.ApplyTopics(t.Context(), r.conf, streams.Topics()); err != nil {
		t.Fatal(err)
	}
	if r.logID, err = kafka.TopicID(t.Context(), r.conf, streams.Events.Name); err != nil {
		t.Fatal(err)
	}
	opts, err := r.conf.Franz()
	if err != nil {
		t.Fatal(err)
	}
	if r.client, err = kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.client.Close)
	r.admin = kadm.NewClient(r.client)
	return r
}

func (r *rig) produce(topic, key string, value []byte, at time.Time) *tidemarkv1.Position {
	r.t.Helper()
	record := &kgo.Record{
		Topic: topic, Key: []byte(key), Value: value,
		Partition: kafka.FilePartition([]byte(key), partitions), Timestamp: at,
	}
	if err := r.client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	return &tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}
}

// event writes an event of the workspace.
func (r *rig) event(workspace string) *tidemarkv1.Position {
	r.t.Helper()
	return r.produce(r.streams.Events.Name, workspace, []byte("{}"), time.Time{})
}

// row writes a row of the files table, as folded from an event at p.
func (r *rig) row(workspace, file, path string, version int64, p *tidemarkv1.Position) {
	r.t.Helper()
	value, err := proto.Marshal(&tidemarkv1.FileState{
		WorkspaceId: workspace, FileId: file, Path: path, Version: version,
		Status: tidemarkv1.Status_STATUS_ACTIVE, Position: p, LogId: r.logID,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.produce(r.streams.Files.Name, tidemarkv1.JoinKey(workspace, file), value, time.Time{})
}

// commit is what a group does with the record at p.
func (r *rig) commit(group, topic string, p *tidemarkv1.Position) {
	r.t.Helper()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, p.GetPartition(), p.GetOffset()+1, -1)
	if err := r.admin.CommitAllOffsets(r.t.Context(), group, offsets); err != nil {
		r.t.Fatal(err)
	}
}

// A running is a server that answers.
type running struct {
	r    *rig
	url  string
	stop func()
	s    *views.Server
}

func (r *rig) serve(edit ...func(*views.Config)) *running {
	r.t.Helper()
	conf := views.Config{
		Kafka: r.conf, Streams: r.streams, Dir: r.dir, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	}
	for _, e := range edit {
		e(&conf)
	}
	s, err := views.New(conf)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	server := httptest.NewServer(s.Handler())
	up := &running{r: r, url: server.URL, s: s, stop: func() {
		if ctx.Err() != nil {
			return
		}
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		server.Close()
	}}
	r.t.Cleanup(up.stop)
	r.until("ready", func() bool { return s.Ready() == nil })
	return up
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for begin := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begin) > 60*time.Second {
			r.t.Fatalf("not in time: %s", what)
		}
	}
}

// get returns status, body and lag of an answer.
func (u *running) get(path string) (int, string, float64) {
	u.r.t.Helper()
	response, err := http.Get(u.url + path)
	if err != nil {
		u.r.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		u.r.t.Fatal(err)
	}
	lag, err := strconv.ParseFloat(response.Header.Get("Tidemark-Lag-Seconds"), 64)
	if err != nil {
		u.r.t.Fatalf("%s: Tidemark-Lag-Seconds: %v", path, err)
	}
	return response.StatusCode, string(body), lag
}

// version returns a file's version, 0 if there is no such file.
func (u *running) version(workspace, file string, p *tidemarkv1.Position) int64 {
	u.r.t.Helper()
	query := ""
	if p != nil {
		query = "?wait=20s&at_least=" + p.Text()
	}
	status, body, _ := u.get("/v1/workspaces/" + workspace + "/files/" + file + query)
	if status == http.StatusNotFound {
		return 0
	}
	var f struct{ Version int64 }
	if err := json.Unmarshal([]byte(body), &f); err != nil || status != http.StatusOK {
		u.r.t.Fatalf("%d %s", status, body)
	}
	return f.Version
}

func TestViewFollowsItsTable(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	p := r.event("ws")
	r.row("ws", "a", "/a", 1, p)
	r.row("ws", "b", "/b", 7, p)
	up := r.serve()
	if got := up.version("ws", "a", p); got != 1 {
		t.Errorf("version %d after recovery", got)
	}
	r.row("ws1", "a", "/a", 4, nil)
	r.until("a row of another workspace", func() bool { return up.version("ws1", "a", nil) == 4 })
	if got := up.version("ws", "a", nil); got != 1 {
		t.Errorf("another workspace's row made it version %d", got)
	}
	p = r.event("ws")
	r.row("ws", "a", "/a", 2, p)
	if got := up.version("ws", "a", p); got != 2 {
		t.Errorf("version %d with at_least", got)
	}
	r.row("ws", "b", "/old", 6, p) // from a former owner
	r.row("ws", "c", "/c", 1, p)
	r.until("row c", func() bool { return up.version("ws", "c", nil) == 1 })
	if got := up.version("ws", "b", nil); got != 7 {
		t.Errorf("an older row replaced version 7 by %d", got)
	}
	up.stop()

	// While no view runs: a change, another writer's null, garbage.
	r.row("ws", "a", "/a", 3, p)
	r.produce(r.streams.Files.Name, "ws/b", nil, time.Time{})
	r.produce(r.streams.Files.Name, "ws/c", []byte("not protobuf"), time.Time{})
	for _, state := range []string{"kept", "wiped"} {
		up = r.serve()
		if a, b, c := up.version("ws", "a", nil), up.version("ws", "b", nil), up.version("ws", "c", nil); a != 3 ||
			b != 7 || c != 1 {
			t.Errorf("store %s: versions %d, %d, %d, want 3, 7, 1", state, a, b, c)
		}
		if _, body, _ := up.get("/v1/workspaces/ws/files?path_prefix=/"); body == "" || !json.Valid([]byte(body)) {
			t.Errorf("store %s: listing %s", state, body)
		}
		up.stop()
		r.dir = t.TempDir()
	}
}

func TestAtLeastAndLagOverTheWholeChain(t *testing.T) {
	r := newRig(t, devbroker.ForTest(t))
	up := r.serve()
	if status, _, lag := up.get("/v1/workspaces/ws/files"); status != 404 || lag != 0 {
		t.Errorf("nothing there: %d, lag %g", status, lag)
	}
	up.stop()
	// e.g. a duplicate: leaves no row
	p := r.produce(r.streams.Events.Name, "ws", []byte("{}"), time.Now().Add(-time.Hour))
	// there before it, an event may be as old as it says
	up = r.serve()
	status, body, _ := up.get(fmt.Sprintf("/v1/workspaces/ws/files?wait=200ms&at_least=%s", p.Text()))
	if status != 503 {
		t.Errorf("nothing committed: %d %s", status, body)
	}
	r.until("the dead processor to show", func() bool {
		_, _, lag := up.get("/v1/workspaces/ws")
		return lag > 3599 && lag < 3700
	})
	if _, _, lag := up.get("/v1/workspaces/other" + otherPartition(p)); lag != 0 {
		t.Errorf("lag %g of another partition", lag)
	}
	n := r.produce(r.streams.Notify.Name, "ws", []byte("{}"), time.Time{})
	r.commit(r.streams.FilesGroup, r.streams.Events.Name, p)
	begin := time.Now()
	if status, body, lag := up.get("/v1/workspaces/ws/files/f?wait=20s&at_least=" + p.Text()); status != 404 ||
		lag != 0 {
		t.Errorf("committed: %d %s, lag %g", status, body, lag)
	}
	t.Logf("a record without a row was covered %s after its commit", time.Since(begin))
	if status, _, lag := up.get("/v1/workspaces/ws?wait=200ms&at_least=" + p.Text()); status != 503 || lag < 3599 {
		t.Errorf("not counted yet: %d, lag %g", status, lag)
	}
	// it may be the first event of a workspace, without a file
	if status, body, _ := up.get("/v1/workspaces/ws/files?wait=200ms&at_least=" + p.Text()); status != 503 {
		t.Errorf("whether there is such a workspace is not known yet: %d %s", status, body)
	}
	if status, body, lag := up.get("/v1/workspaces/ws/files"); status != 404 || lag < 3599 {
		t.Errorf("no such workspace, as of an hour ago: %d %s, lag %g", status, body, lag)
	}
	value, err := proto.Marshal(&tidemarkv1.WorkspaceState{WorkspaceId: "ws", Files: 1, Version: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.produce(r.streams.Workspaces.Name, "ws", value, time.Time{})
	r.commit(r.streams.WorkspacesGroup, r.streams.Notify.Name, n)
	if status, body, lag := up.get("/v1/workspaces/ws?wait=20s&at_least=" + p.Text()); status != 200 || lag != 0 {
		t.Errorf("counted: %d %s, lag %g", status, body, lag)
	}
	if status, body, _ := up.get("/v1/status?wait=20s&at_least=" + p.Text()); status != 200 {
		t.Errorf("status: %d %s", status, body)
	}
	beyond := &tidemarkv1.Position{Partition: p.GetPartition(), Offset: p.GetOffset() + 1}
	if status, body, _ := up.get("/v1/workspaces/ws/files?at_least=" + beyond.Text()); status != 400 {
		t.Errorf("beyond the end: %d %s", status, body)
	}
}

// A producer whose clock is an hour ahead hides no lag, and one whose clock is behind makes none.
func TestLagOfASkewedProducer(t *testing.T) {
	t.Parallel()
	brokers := devbroker.ForTest(t)
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		r := newRig(t, brokers)
		up := r.serve()
		begin := time.Now()
		for range 4 {
			r.produce(r.streams.Events.Name, "ws", []byte("{}"), begin.Add(skew))
		}
		r.until("the lag to grow", func() bool {
			_, _, lag := up.get("/v1/workspaces/ws")
			return lag >= 3
		})
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("stamped %s ahead it is 3 s old after %s", skew, took)
		}
	}
}

// otherPartition returns a suffix that takes the workspace "other…" to another partition than p's.
func otherPartition(p *tidemarkv1.Position) string {
	for i := 0; ; i++ {
		if suffix := strconv.Itoa(i); kafka.Partition("other"+suffix, partitions) != p.GetPartition() {
			return suffix
		}
	}
}

func TestBrokerGoneAndBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, err := devbroker.Start(context.Background(), devbroker.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	addr := b.Addr()
	r := newRig(t, []string{addr})
	r.row("ws", "a", "/a", 1, nil)
	up := r.serve()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	closed := time.Now()
	var last float64
	for _, at := range []time.Duration{4 * time.Second, 6 * time.Second} {
		time.Sleep(time.Until(closed.Add(at)))
		status, body, lag := up.get("/v1/workspaces/ws/files/a")
		if status != 200 || lag < at.Seconds()-1 || lag > at.Seconds()+2 || lag <= last {
			t.Errorf("broker gone for %s: %d %s, lag %g after %g", at, status, body, lag, last)
		}
		last = lag
	}
	if b, err = devbroker.Start(context.Background(), devbroker.Config{Dir: dir, Addr: addr}); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	p := r.event("ws")
	r.row("ws", "a", "/a", 2, p)
	r.until("the new row", func() bool { return up.version("ws", "a", nil) == 2 })
	t.Logf("a row written after the broker came back was answered %s after that", time.Since(back))
	r.until("no lag", func() bool {
		_, _, lag := up.get("/v1/workspaces/ws/files/a")
		return lag == 0
	})
	up.stop()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// Stopping a server does not wait for brokers that cannot be reached.
func TestStopWithoutBroker(t *testing.T) {
	t.Parallel()
	b, err := devbroker.Start(context.Background(), devbroker.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, []string{b.Addr()})
	up := r.serve()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second) // into the retries
	begin := time.Now()
	up.stop()
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("leaving took %s", took)
	} else {
		t.Logf("leaving took %s", took)
	}
}

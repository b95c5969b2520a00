package views

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	"tidemark/kafka/localstore"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

const testLog = "log-1"

// A fixture is a server without brokers: tests pass records to its tables and snapshots to its progress.
type fixture struct {
	*Server
	t     testing.TB
	files []int64 // next changelog offset by partition
	works []int64
	now   snapshot
	ids   topicIDs
}

func newFixture(tb testing.TB, edit ...func(*Config)) *fixture {
	tb.Helper()
	streams, err := topology.New("test", topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1})
	if err != nil {
		tb.Fatal(err)
	}
	conf := Config{
		Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Streams: streams, Dir: tb.TempDir(),
		Log: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}
	for _, e := range edit {
		e(&conf)
	}
	s, err := New(conf)
	if err != nil {
		tb.Fatal(err)
	}
	f := &fixture{Server: s, t: tb, files: make([]int64, 4), works: make([]int64, 4), now: zeroReading(4)}
	f.ids = topicIDs{"cluster/topic", "cluster/topic", testLog}
	for _, table := range []*table{s.files, s.workspaces} {
		f.open(table)
	}
	f.poll()
	return f
}

func (f *fixture) open(table *table) {
	f.t.Helper()
	store, err := localstore.Open(filepath.Join(f.conf.Dir, table.name), "cluster/topic", slog.New(slog.DiscardHandler))
	if err != nil {
		f.t.Fatal(err)
	}
	id := testLog
	table.logID.Store(&id)
	topic := "cluster/topic"
	table.topicID.Store(&topic)
	table.store, table.reason = store, nil
	f.t.Cleanup(func() { table.close() })
	for p := range int32(4) {
		if _, err := table.openPartition(p); err != nil {
			f.t.Fatal(err)
		}
	}
}

func zeroReading(n int) snapshot {
	zeros := func() []int64 { return make([]int64, n) }
	return snapshot{
		filesCommit: zeros(), eventsStart: zeros(), eventsEnd: zeros(), eventsVisible: zeros(), filesEnd: zeros(),
		notifyStart: zeros(), notifyEnd: zeros(), notifyCommit: zeros(), workspacesEnd: zeros(),
		indexStart: zeros(), indexEnd: zeros(), searchCommit: zeros(),
	}
}

// read and times implement offsetSource.
func (f *fixture) read(context.Context) (snapshot, error) {
	r := zeroReading(4)
	for _, pair := range [][2][]int64{
		{r.filesCommit, f.now.filesCommit},
		{r.eventsStart, f.now.eventsStart},
		{r.eventsEnd, f.now.eventsEnd},
		{r.eventsVisible, f.now.eventsEnd},
		{r.filesEnd, f.now.filesEnd},
		{r.notifyStart, f.now.notifyStart},
		{r.notifyEnd, f.now.notifyEnd},
		{r.notifyCommit, f.now.notifyCommit},
		{r.workspacesEnd, f.now.workspacesEnd},
		{r.indexStart, f.now.indexStart},
		{r.indexEnd, f.now.indexEnd},
		{r.searchCommit, f.now.searchCommit},
	} {
		copy(pair[0], pair[1])
	}
	return r, nil
}

func (f *fixture) times(context.Context, []eventAt) map[eventAt]time.Time { return nil }

func (f *fixture) topicIDs(context.Context) (topicIDs, error) { return f.ids, nil }

// begin makes the next poll the first: what is there then may be of any age.
func (f *fixture) begin() {
	f.progress.lastResponse, f.progress.windows = make([]time.Time, 4), make([][]appendWindow, 4)
}

func (f *fixture) poll() { f.progress.poll(f.t.Context(), f) }

// put applies a row of the files table as if read from its changelog.
func (f *fixture) put(row *tidemarkv1.FileState) {
	f.t.Helper()
	value, err := proto.Marshal(row)
	if err != nil {
		f.t.Fatal(err)
	}
	f.record(f.Server.files, f.files, tidemarkv1.JoinKey(row.GetWorkspaceId(), row.GetFileId()), value)
}

func (f *fixture) putWorkspace(row *tidemarkv1.WorkspaceState) {
	f.t.Helper()
	value, err := proto.Marshal(row)
	if err != nil {
		f.t.Fatal(err)
	}
	f.record(f.workspaces, f.works, tidemarkv1.JoinKey(row.GetWorkspaceId(), ""), value)
}

func (f *fixture) record(t *table, offsets []int64, key string, value []byte) {
	f.t.Helper()
	p := kafka.FilePartition([]byte(key), len(offsets))
	if err := t.update(p, offsets[p], key, value); err != nil {
		f.t.Fatal(err)
	}
	offsets[p]++
}

// fileRow returns a row; path "" leaves it out.
func fileRow(workspace, id, path string, status tidemarkv1.Status, version int64) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{
		WorkspaceId: workspace, FileId: id, Path: path, Status: status, Version: version,
		LogId: testLog,
	}
}

const (
	isActive  = tidemarkv1.Status_STATUS_ACTIVE
	isTrashed = tidemarkv1.Status_STATUS_TRASHED
	isErased  = tidemarkv1.Status_STATUS_ERASED
)

// skips returns how many records of a table were skipped for a reason.
func (f *fixture) skips(table, reason string) float64 {
	f.t.Helper()
	var m dto.Metric
	if err := f.metrics.skipped.WithLabelValues(table, reason).Write(&m); err != nil {
		f.t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// get sends a GET request.
func (f *fixture) get(target string, header ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	return f.do(http.MethodGet, target, header...)
}

func (f *fixture) do(method, target string, header ...string) *httptest.ResponseRecorder {
	f.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, r)
	return w
}

// code returns what a problem is called, "" for an answer that is none.
func code(tb testing.TB, w *httptest.ResponseRecorder) string {
	tb.Helper()
	if w.Code < 400 {
		return ""
	}
	var p struct {
		Type, Title, Detail, Code string
		Status                    int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		tb.Fatalf("%d with a body that is no JSON: %s", w.Code, w.Body)
	}
	if p.Type != "about:blank" || p.Status != w.Code || p.Title != http.StatusText(w.Code) || p.Detail == "" ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		tb.Errorf("not a whole problem: %s", w.Body)
	}
	return p.Code
}

// ids lists a page's file ids and its cursor.
func ids(tb testing.TB, w *httptest.ResponseRecorder) (list string, cursor string) {
	tb.Helper()
	var p struct {
		Files []struct {
			FileID string `json:"file_id"`
		}
		NextCursor *string `json:"next_cursor"`
	}
	if w.Code != http.StatusOK {
		tb.Fatalf("listing answered %d: %s", w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		tb.Fatal(err)
	}
	all := make([]string, len(p.Files))
	for i := range p.Files {
		all[i] = p.Files[i].FileID
	}
	if p.NextCursor != nil {
		cursor = *p.NextCursor
	}
	return strings.Join(all, " "), cursor
}

// pages reads a listing to its end.
func (f *fixture) pages(target string) string {
	f.t.Helper()
	var all []string
	cursor := ""
	for range 10000 {
		next := target
		if cursor != "" {
			next = fmt.Sprintf("%s&cursor=%s", target, cursor)
		}
		var page string
		page, cursor = ids(f.t, f.get(next))
		if page != "" {
			all = append(all, page)
		}
		if cursor == "" {
			return strings.Join(all, " ")
		}
	}
	f.t.Fatal("the pages do not end")
	return ""
}

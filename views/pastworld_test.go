package views

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	rules "tidemark/file"
	"tidemark/history"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// openHistory gives the fixture the history in a folder, which reads nothing yet.
func (f *fixture) openHistory(dir string) {
	f.t.Helper()
	c, err := history.New(history.Config{
		Streams: f.conf.Streams, Dir: dir, Keep: 24 * time.Hour, Log: slog.New(slog.DiscardHandler),
		Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := c.Open("pin", testLog); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	f.history = c
}

// beginHistory gives the fixture a history of empty topics.
func (f *fixture) beginHistory() {
	f.t.Helper()
	f.openHistory(f.t.TempDir())
	for p := range int32(4) {
		if _, err := f.history.Resume(p, kafka.Span{}, 0, -1, time.UnixMilli(1)); err != nil {
			f.t.Fatal(err)
		}
	}
}

// A pastWorld is one partition: its events, the notices and rows that follow from them, and a server that has read a
// part of them.
type pastWorld struct {
	*fixture
	seed      uint64
	random    *rand.Rand
	id        string // of its workspace
	partition int32
	events    int64
	states    map[string][]*tidemarkv1.FileState // of each file, the oldest first
	notices   []*tidemarkv1.Notice               // of each event that has one, in order
	log       []*tidemarkv1.Notice               // the notify topic
	read      int                                // by the history
	counted   int                                // by the workspaces group
	workspace *tidemarkv1.WorkspaceState
	dir       string
	fault     pastFault

	asked, answered int
}

// A pastFault is what the history of a control does wrong.
type pastFault int

const (
	noFault       pastFault = iota
	loses                   // a notice is not applied
	appliesTwice            // a repeated notice is not recognized
	forgetsBounds           // removes notices and does not say so
)

func newPastWorld(t *testing.T, seed uint64, fault pastFault) *pastWorld {
	t.Helper()
	w := &pastWorld{
		fixture: newFixture(t), seed: seed, random: rand.New(rand.NewPCG(seed, 32)), id: []string{"ws", "ws0"}[seed%2],
		states: map[string][]*tidemarkv1.FileState{}, dir: t.TempDir(), fault: fault,
	}
	w.partition = kafka.Partition(w.id, 4)
	w.eventAfter = func(context.Context, int32, time.Time) (int64, int64, error) { return 0, 0, nil }
	w.openHistory(w.dir)
	w.resume(0)
	return w
}

// resume continues the history at what it has, or else at first.
func (w *pastWorld) resume(first int64) {
	w.t.Helper()
	next, err := w.history.Resume(w.partition, kafka.Span{To: int64(len(w.log))}, first, w.events-1, time.UnixMilli(1))
	if err != nil {
		w.t.Fatal(err)
	}
	w.read = int(next)
}

// event makes one event and its notice; nil if it has none.
func (w *pastWorld) event() *tidemarkv1.Notice {
	at := &tidemarkv1.Position{Partition: w.partition, Offset: w.events}
	n := &tidemarkv1.Notice{
		WorkspaceId: w.id, EventId: fmt.Sprint("e", w.events), Event: "workspace_updated", Position: at,
		At: w.events * 1e6, Payload: []byte(`{"a":1}`),
	}
	w.events++
	switch w.random.IntN(10) {
	case 0:
		return nil // a duplicate
	case 1:
		return n // without a file
	case 2:
		n.FileId = "f01" // changes nothing
		return n
	case 3:
		n.Cause = &tidemarkv1.Cause{Event: "folder_moved", EventId: "e", Position: at}
	}
	n.FileId = fmt.Sprintf("f%02d", w.random.IntN(12))
	row := &tidemarkv1.FileState{WorkspaceId: w.id, FileId: n.FileId}
	if all := w.states[n.FileId]; len(all) > 0 {
		n.Before = all[len(all)-1]
		row = proto.CloneOf(n.Before)
	}
	row.Version, row.Position, row.LogId = row.GetVersion()+1, at, testLog
	row.Path = fmt.Sprintf("/%c/%s", "ab"[w.random.IntN(2)], n.FileId)
	row.Size, row.Mime = new(int64(w.random.IntN(100))), []string{"", "a/b", "Text/Plain; x"}[w.random.IntN(3)]
	row.Status = []tidemarkv1.Status{isActive, isActive, isActive, isTrashed, isErased}[w.random.IntN(5)]
	row.Kind = tidemarkv1.Kind(w.random.IntN(8) / 7)
	n.Event, n.Version, n.After = "workspace_storage_file_updated", &row.Version, row
	w.states[n.FileId] = append(w.states[n.FileId], row)
	return n
}

// epoch publishes some events: outputs, after a failed send again from the first that failed, then rows in any order.
func (w *pastWorld) epoch() {
	var outputs []*tidemarkv1.Notice
	for range 1 + w.random.IntN(6) {
		if n := w.event(); n != nil {
			outputs = append(outputs, n)
		}
	}
	for range w.random.IntN(3) { // attempts that fail
		for _, n := range outputs {
			if w.random.IntN(3) > 0 {
				w.log = append(w.log, n)
			}
		}
	}
	w.log, w.notices = append(w.log, outputs...), append(w.notices, outputs...)
	if w.random.IntN(4) == 0 { // a former owner writes the last that it had
		end := w.random.IntN(len(w.notices) + 1)
		w.log = append(w.log, w.notices[max(0, end-1-w.random.IntN(8)):end]...)
	}
	rows := map[string]*tidemarkv1.FileState{}
	for _, n := range outputs {
		if n.After != nil {
			rows[n.FileId] = n.After
		}
	}
	for _, id := range slices.Sorted(maps.Keys(rows)) {
		w.put(rows[id])
	}
}

// recordTime returns when a record was written. Late notices are those of the hour before.
func recordTime(offset int) time.Time {
	return time.UnixMilli(0).Add(time.Duration(offset) * 5 * time.Minute)
}

// apply lets the history read up to n records.
func (w *pastWorld) apply(n int) {
	w.t.Helper()
	for ; n > 0 && w.read < len(w.log); n-- {
		notice := w.log[w.read]
		switch {
		case w.fault == loses && w.random.IntN(20) == 0:
			notice = &tidemarkv1.Notice{WorkspaceId: w.id, Position: &tidemarkv1.Position{Partition: w.partition}}
		case w.fault == appliesTwice && slices.Contains(w.log[:w.read], notice):
			notice = proto.CloneOf(notice)
			notice.Position.Offset = max(0, notice.Position.Offset-1)
		}
		value, err := codecs.Notice{}.Encode(notice)
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.history.Apply(&kgo.Record{
			Partition: w.partition, Offset: int64(w.read), Value: value, Timestamp: recordTime(w.read),
		}); err != nil {
			w.t.Fatal(err)
		}
		w.read++
	}
}

// count lets the workspaces group and the copy of its table read up to n notices.
func (w *pastWorld) count(n int) {
	for ; n > 0 && w.counted < len(w.log); n-- {
		w.workspace, _ = rules.Count(w.workspace, w.log[w.counted], testLog)
		w.counted++
	}
	if w.workspace != nil {
		w.putWorkspace(w.workspace)
	}
}

func (w *pastWorld) pollAll() {
	p := w.partition
	w.now.filesCommit[p], w.now.eventsEnd[p], w.now.filesEnd[p] = w.events, w.events, w.filesNext(p)
	w.now.notifyEnd[p], w.now.notifyCommit[p] = int64(len(w.log)), int64(w.counted)
	w.now.workspacesEnd[p] = w.works[p]
	w.poll()
}

func (s *Server) filesNext(p int32) int64 {
	next, _ := s.files.frontiers[p].offsets()
	return next
}

// restart closes the history, and continues it, or begins another one somewhere in the log.
func (w *pastWorld) restart() {
	if err := w.history.Close(); err != nil {
		w.t.Fatal(err)
	}
	if w.seed%4 != 1 && w.random.IntN(2) == 0 {
		w.dir = w.t.TempDir()
	}
	w.openHistory(w.dir)
	w.resume(w.random.Int64N(int64(len(w.log) + 1)))
}

// trim removes what is old from the history.
func (w *pastWorld) trim() {
	upTo := recordTime(w.random.IntN(w.read + 1))
	if err := w.history.Trim(upTo.Add(w.history.Keep())); err != nil {
		w.t.Fatal(err)
	}
}

// keptFrom returns the offset before the first event of which the history says that it has all notices.
func (w *pastWorld) keptFrom() (before int64) {
	if err := w.history.Read(w.partition, func(h *history.Snapshot) error {
		before = h.Before()
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
	if w.fault == forgetsBounds {
		return -1
	}
	return before
}

// at returns a file as of an offset, nil if it did not exist.
func (w *pastWorld) at(id string, offset int64) (state *tidemarkv1.FileState) {
	for _, s := range w.states[id] {
		if s.GetPosition().GetOffset() <= offset {
			state = s
		}
	}
	return state
}

// listing returns the ids of a listing with their versions.
func (w *pastWorld) listing(offset int64, status tidemarkv1.Status, prefix string) string {
	var all []string
	for _, id := range slices.Sorted(maps.Keys(w.states)) {
		s := w.at(id, offset)
		if s != nil && s.Status == status && s.Kind == 0 && strings.HasPrefix(s.Path, prefix) {
			all = append(all, fmt.Sprint(id, "@", s.Version))
		}
	}
	return strings.Join(all, " ")
}

// totals returns the counts of the workspace, "" if it did not exist.
func (w *pastWorld) totals(offset int64) string {
	events, any := 0, false
	for _, n := range w.notices {
		if n.Position.Offset > offset {
			continue
		}
		any = true
		if n.Cause == nil {
			events++
		}
	}
	if !any {
		return ""
	}
	files, bytes, trashed, types := 0, int64(0), 0, map[string]int{}
	for id := range w.states {
		switch s := w.at(id, offset); {
		case s == nil || s.Kind != 0:
		case s.Status == isTrashed:
			trashed++
		case s.Status == isActive:
			files, bytes = files+1, bytes+s.GetSize()
			types[map[string]string{"": "unknown", "a/b": "a/b", "Text/Plain; x": "text/plain"}[s.Mime]]++
		}
	}
	byType, _ := json.Marshal(types)
	return fmt.Sprintf(`{"workspace_id":"%s","files":%d,"bytes":%d,"trashed":%d,"by_type":%s,"events":%d}`,
		w.id, files, bytes, trashed, byType, events)
}

// ask sends a request as of an offset. ok is false if the server cannot answer it yet, and that is allowed.
func (w *pastWorld) ask(path string, offset int64, atEnd bool) (status int, body string, ok bool) {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	at := fmt.Sprintf("%d:%d", w.partition, offset)
	if offset < 0 {
		at = "2026-11-29T10:00:00Z" // before the first event
	}
	r := w.get(fmt.Sprintf("/v1/workspaces/%s%s%sas_of=%s&wait=0", w.id, path, separator, at))
	w.asked++
	switch {
	case r.Code == http.StatusServiceUnavailable && !atEnd:
		return 0, "", false
	case r.Code == http.StatusGone && offset < w.keptFrom():
		return 0, "", false
	}
	w.answered++
	return r.Code, r.Body.String(), true
}

// check compares the answers as of an offset with the model, and returns the first difference.
func (w *pastWorld) check(offset int64, atEnd bool) string {
	for id := range w.states {
		status, body, ok := w.ask("/files/"+id, offset, atEnd)
		want := w.at(id, offset)
		switch {
		case !ok:
		case want == nil || want.Status == isErased:
			if status != http.StatusNotFound {
				return fmt.Sprintf("%s as of %d: %d %s, want none", id, offset, status, body)
			}
		case status != http.StatusOK || body != string(codecs.AppendFile(nil, want)):
			return fmt.Sprintf("%s as of %d: %d %s, want %v", id, offset, status, body, want)
		}
	}
	if status, body, ok := w.ask("", offset, atEnd); ok {
		want := w.totals(offset)
		if want == "" && status != http.StatusNotFound || want != "" && (status != http.StatusOK || body != want) {
			return fmt.Sprintf("workspace as of %d: %d %s, want %s", offset, status, body, want)
		}
	}
	return w.checkListing(offset, atEnd)
}

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"

	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"
)

// An application applies a request, and answers it.
type application func(w http.ResponseWriter, r *http.Request, body []byte)

// A hostile is a destination that fails at random: before it has applied a request, or after that.
type hostile struct {
	apply application

	mu      sync.Mutex
	rnd     *rand.Rand
	share   float64 // of requests that fail
	applied int
	faults  map[string]int
}

func newHostile(t *testing.T, seed uint64, share float64, apply application) (*hostile, string) {
	t.Helper()
	h := &hostile{apply: apply, rnd: rand.New(rand.NewPCG(seed, 18)), share: share, faults: map[string]int{}}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, server.URL
}

var hostileFaults = []string{"429", "500", "503", "hang", "refused", "cut"}

func (h *hostile) next() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.rnd.Float64() >= h.share {
		h.applied++
		return ""
	}
	fault := hostileFaults[h.rnd.IntN(len(hostileFaults))]
	h.faults[fault]++
	return fault
}

func (h *hostile) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied
}

// calm ends the faults, and returns those that there were.
func (h *hostile) calm() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.share = 0
	return h.faults
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client was killed
	}
	if r.Method != http.MethodPost || strings.HasSuffix(r.URL.Path, "/_aliases") {
		h.apply(w, r, body)
		return
	}
	switch h.next() {
	case "":
		h.apply(w, r, body)
	case "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "hang":
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second):
		}
		panic(http.ErrAbortHandler)
	case "refused":
		panic(http.ErrAbortHandler)
	case "cut": // applied, and the answer never arrives whole
		h.apply(httptest.NewRecorder(), r, body)
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"took":1,"items":[{"index":{"status":201`))
		panic(http.ErrAbortHandler)
	}
}

// forward applies a request to a server.
func forward(t *testing.T, to string) application {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		request, err := http.NewRequest(r.Method, to+r.URL.RequestURI(), bytes.NewReader(body)) // goes on after a kill
		if err != nil {
			t.Error(err)
			return
		}
		request.Header = r.Header.Clone()
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body) // the client may be gone
	}
}

// A mailbox counts the messages that a webhook's receiver has accepted, by op id.
type mailbox struct {
	mu  sync.Mutex
	got map[string]int
}

func (m *mailbox) accept(w http.ResponseWriter, _ *http.Request, body []byte) {
	var message struct {
		Data struct {
			OpID string `json:"op_id"`
		}
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Data.OpID == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	m.got[message.Data.OpID]++
	m.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// TestSinks sends a history while the sinks are killed and their destinations fail, and compares the destinations with
// the topics, and these with the model. OPENSEARCH_URL names an OpenSearch: `.ci/opensearch` starts one.
func TestSinks(t *testing.T) {
	server := os.Getenv("OPENSEARCH_URL")
	if server == "" {
		t.Skip("OPENSEARCH_URL is not set: .ci/opensearch starts an OpenSearch")
	}
	t.Parallel()
	t.Run("product", func(t *testing.T) {
		t.Parallel()
		conclude(t, runSinks(t, server, build(t)))
	})
	if !*long {
		return
	}
	t.Run("commits early", func(t *testing.T) { // the negative control
		t.Parallel()
		path, err := rig.Mutants["sink-commits-early"].Build(builds.dir)
		if err != nil {
			t.Fatal(err)
		}
		r := runSinks(t, server, path)
		t.Log("\n" + r.String())
		if r.Count("messages lost") == 0 { // a document that was lost is often replaced by its next version
			t.Error("the mutant was not found guilty: the test proves less than it says")
		}
	})
}

// runSinks runs the sinks of a binary.
func runSinks(t *testing.T, server, binary string) *oracle.Report {
	t.Helper()
	events, kills := 4000, 12
	if *long {
		events, kills = 100_000, 60
	}
	if *size > 0 {
		events = *size
	}
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	f := newFixture(t, 0)
	box := &mailbox{got: map[string]int{}}
	index, indexURL := newHostile(t, s, 0.2, forward(t, server))
	hook, hookURL := newHostile(t, s+1, 0.04, box.accept)
	search := f.role("search", "sink", "search", "--instance-id", "e2e", "--search-url", indexURL,
		"--search-index", f.prefix)
	notify := f.role("notify", "sink", "notify", "--instance-id", "e2e", "--notify-allow-cidr", "127.0.0.0/8",
		"--notify-rules", f.rules(hookURL))
	notify.Env = append(notify.Env, "RECEIVER_SECRET=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")
	sinks := []*rig.Program{search, notify}
	folder := filepath.Join(f.dir, "archive")
	archive := f.role("archive", "sink", "archive", "--instance-id", "e2e", "--archive-url", "file://"+folder,
		"--archive-window", "3s").Store()
	sinks = append(sinks, archive)
	for _, p := range sinks {
		p.Path = binary
	}
	f.start(append(sinks, f.ingest, f.process)...)
	f.awaitReady(append(sinks, f.ingest, f.process)...)

	r := &oracle.Report{Title: "sinks"}
	rnd := rand.New(rand.NewPCG(s, 19))
	sent := f.traffic(events, plan{during: func(ctx context.Context, pace *rate.Limiter) error {
		pace.SetLimit(rate.Limit(max(100, events/(4*kills)))) // the history outlasts the kills
		for range kills {
			i := rnd.IntN(len(sinks))
			count := []func() int{index.count, hook.count, func() int { return len(objects(t, folder)) }}[i]
			before := count()
			flows := func() (bool, error) { return count() > before, nil }
			if _, err := rig.Until(ctx, time.Minute, flows); err != nil {
				return fmt.Errorf("%s delivers nothing: %w\n%s", sinks[i].Name, err, sinks[i].Tail())
			}
			sleep(ctx, time.Duration(rnd.IntN(700))*time.Millisecond)
			if err := errors.Join(sinks[i].Kill(), sinks[i].Start()); err != nil {
				return err
			}
		}
		return nil
	}}, r)
	r.Fact("kills of sinks", kills)
	f.drain(2*time.Minute, true)
	r.Fact("faults of search / of the receiver", fmt.Sprint(index.calm(), hook.calm()))
	took, err := rig.Until(t.Context(), 5*time.Minute, func() (bool, error) {
		indexed, err1 := rig.Lag(t.Context(), f.client, f.prefix+"-sink-search", f.topics.Index)
		sent, err2 := rig.Lag(t.Context(), f.client, f.prefix+"-sink-notify-all", f.topics.Notify)
		archived, err3 := rig.Lag(t.Context(), f.client, f.prefix+"-sink-archive", f.topics.Events)
		return indexed+sent+archived == 0, errors.Join(err1, err2, err3)
	})
	if err != nil {
		t.Fatalf("the sinks do not drain: %v\n%s\n%s\n%s", err, search.Tail(), notify.Tail(), archive.Tail())
	}
	r.Fact("sinks drained after the processors, s", seconds(took))
	f.term(append(sinks, f.ingest, f.process)...)
	f.judge(oracle.Judge{Workspaces: true, Sent: sent}, r)
	outputs, err := oracle.ReadOutputs(t.Context(), f.brokers, f.topics, partitions)
	if err != nil {
		t.Fatal(err)
	}
	outputs.JudgeSearch(documents(t, server, f.prefix), r)
	outputs.JudgeMessages(box.got, r)
	outputs.JudgeArchive(archived(t, folder), r)
	return r
}

// rules writes a rules file with one rule that matches every notice.
func (f *fixture) rules(receiver string) string {
	f.t.Helper()
	path := filepath.Join(f.dir, "rules.yml")
	text := fmt.Sprintf(`channels:
  - name: receiver
    webhook: {url: %q, secret_env: RECEIVER_SECRET}
rules:
  - name: all
    channel: receiver
    children: true
`, receiver)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// objects returns the Parquet files below a folder.
func objects(t *testing.T, folder string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".parquet" {
			found = append(found, path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// archived returns the records in all objects.
func archived(t *testing.T, folder string) (records []*kgo.Record) {
	t.Helper()
	type row struct {
		Partition int32   `parquet:"partition"`
		Offset    int64   `parquet:"offset"`
		Value     *string `parquet:"value,optional"`
		Bytes     *[]byte `parquet:"value_bytes,optional"`
	}
	for _, path := range objects(t, folder) {
		rows, err := parquet.ReadFile[row](path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, row := range rows {
			r := &kgo.Record{Partition: row.Partition, Offset: row.Offset}
			if row.Value != nil {
				r.Value = []byte(*row.Value)
			} else if row.Bytes != nil {
				r.Value = *row.Bytes
			}
			records = append(records, r)
		}
	}
	return records
}

// documents returns all documents behind an alias by workspace/file.
func documents(t *testing.T, server, alias string) map[string]oracle.Document {
	t.Helper()
	ask := func(method, path, body string, into any) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, server+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if err := json.NewDecoder(response.Body).Decode(into); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s, %v", method, path, response.Status, err)
		}
	}
	alias = url.PathEscape(alias)
	ask(http.MethodPost, "/"+alias+"/_refresh", "", new(any))
	found, after := map[string]oracle.Document{}, ""
	for {
		var page struct {
			Hits struct {
				Hits []struct {
					Version int64           `json:"_version"`
					Source  json.RawMessage `json:"_source"`
					Sort    json.RawMessage
				}
			}
		}
		ask(http.MethodPost, "/"+alias+"/_search",
			`{"size":5000,"version":true,"sort":["workspace_id","file_id"]`+after+`}`, &page)
		if len(page.Hits.Hits) == 0 {
			return found
		}
		for _, hit := range page.Hits.Hits {
			var ids struct {
				Workspace string `json:"workspace_id"`
				File      string `json:"file_id"`
			}
			if err := json.Unmarshal(hit.Source, &ids); err != nil {
				t.Fatal(err)
			}
			found[oracle.Key(ids.Workspace, ids.File)] = oracle.Document{Version: hit.Version, Source: hit.Source}
			after = `,"search_after":` + string(hit.Sort)
		}
	}
}

package search

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, "--search-url"},
		{Config{URL: "localhost:9200"}, "--search-url"},
		{Config{URL: "ftp://host"}, "--search-url"},
		{Config{URL: "http://host/?token=geheim"}, "--search-url"},
		{Config{URL: "http://user:geheim@host"}, "--search-username"},
		{Config{URL: "http://user:geheim@host:x"}, "--search-url"},
		{Config{URL: "http://host", Username: "u"}, "TIDEMARK_SEARCH_PASSWORD"},
		{Config{URL: "http://host", Password: "geheim"}, "--search-username"},
		{Config{URL: "http://host", Index: "Files"}, "--search-index"},
		{Config{URL: "http://host", Index: "a,b*/_all"}, "--search-index"},
	} {
		if c.config.Log = slog.New(slog.DiscardHandler); c.config.Index == "" {
			c.config.Index = "fastio-files"
		}
		_, err := New(c.config)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%+v: %v, want one with %s", c.config, err, c.want)
		}
	}
}

func TestCheckRefuses(t *testing.T) {
	const opensearch = `{"version":{"distribution":"opensearch","number":"2.19.3"}}`
	alias := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/" {
				answer(200, opensearch)(w, r)
				return
			}
			if r.Method == http.MethodPut && status == http.StatusNotFound {
				answer(400, `{"error":{"type":"resource_already_exists_exception","reason":"exists"}}`)(w, r)
				return
			}
			answer(status, body)(w, r)
		}
	}
	for want, handler := range map[string]http.HandlerFunc{
		"TIDEMARK_SEARCH_PASSWORD":          answer(401, ``),
		"--search-username":                 alias(403, `{"error":{"type":"security_exception","reason":"no permissions"}}`),
		"Elasticsearch 8 or newer":          answer(200, `{"version":{"number":"7.17.1"}}`),
		`its version is ""`:                 answer(200, `{"hello":"world"}`),
		"302":                               answer(302, ``, "Location", "/login"),
		"503":                               answer(503, ``, "Retry-After", "3"),
		"not an alias but an index":         alias(200, `{"fastio-files":{}}`),
		"an alias of a-000001, a-000002":    alias(200, `{"a-000002":{},"a-000001":{}}`),
		"--rebuild":                         alias(200, `{"fastio-files-000001":{"mappings":{"_meta":{"tidemark":2}}}}`),
		"cannot be created (if fastio-file": alias(404, `{}`),
	} {
		if err := serverForTest(t, handler).Check(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one with %q", err, want)
		}
	}
	s := sinkForTest(t, Config{URL: "http://127.0.0.1:1"})
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "--search-url") {
		t.Error(err)
	}
}

// Processes that start together create one index.
func TestCheckCreatesOnce(t *testing.T) {
	s := openSearchForTest(t)
	index := s.index.(*server)
	if err := index.do(t.Context(), "DELETE", "/"+index.numbered(1), nil, nil); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	indexes, err := index.indexes(t.Context(), index.alias)
	if _, first := indexes[index.numbered(1)]; err != nil || !first || len(indexes) != 1 {
		t.Errorf("%v %v", indexes, err)
	}
}

// A document that the mapping refuses is rejected with the server's reason; the others of its batch are applied.
func TestMappingRejects(t *testing.T) {
	s := openSearchForTest(t)
	f := active("ws", "bad", 1, "/a.pdf")
	f.Mime = strings.Repeat("x", 40<<10) // longer than a term can be
	bad, good := record(t, f), record(t, active("ws", "good", 1, "/a.pdf"))
	if rejected := deliverAll(t, s, bad, good); len(rejected) != 1 || rejected[0] != bad {
		t.Errorf("%d rejected", len(rejected))
	}
	if diff := cmp.Diff([]string{"good@1"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
		t.Error(diff)
	}
}

// Without the alias nothing is written, and no index is created in its place.
func TestAliasMissing(t *testing.T) {
	s := openSearchForTest(t)
	index := s.index.(*server)
	path := fmt.Sprintf("/%s/_alias/%s", index.numbered(1), index.alias)
	if err := index.do(t.Context(), "DELETE", path, nil, nil); err != nil {
		t.Fatal(err)
	}
	batch := files(t, 2)
	err := s.Deliver(t.Context(), batch)
	if again := againOf(err); !slices.Equal(again, batch) {
		t.Errorf("%v", err)
	}
	if _, err := index.indexes(context.Background(), index.alias); statusOf(err) != 404 {
		t.Errorf("the alias exists: %v", err)
	}
}

// The embedded index keeps its documents over a restart. One that is damaged is replaced by an empty one, which is
// incomplete until it is rebuilt.
func TestEmbeddedRestart(t *testing.T) {
	for name, damaged := range map[string]string{"undamaged": "", "manifest": "MANIFEST-*", "marked": damagedFile} {
		t.Run(name, func(t *testing.T) {
			config := Config{URL: Embedded, Dir: t.TempDir(), Index: "i", Log: slog.New(slog.DiscardHandler)}
			topic := &log{}
			topic.append(record(t, active("ws", "f", 1, "/a.pdf")))
			s, err := New(config)
			if err != nil {
				t.Fatal(err)
			}
			if !s.Incomplete() {
				t.Error("a new index is complete")
			}
			if err := s.Rebuild(t.Context(), topic.reader(t)); err != nil || s.Incomplete() {
				t.Errorf("after the rebuild: incomplete %v, %v", s.Incomplete(), err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			want := []string{"f@1"}
			if damaged != "" {
				spoil(t, filepath.Join(config.Dir, embeddedFormat), damaged)
				want = []string{}
			}
			s = sinkForTest(t, config)
			if diff := cmp.Diff(want, found(t, s, Query{Workspace: "ws"})); diff != "" {
				t.Error(diff)
			}
			if s.Incomplete() != (damaged != "") {
				t.Errorf("incomplete %v", s.Incomplete())
			}
			if _, err := New(config); err == nil {
				t.Error("a second process opened the index")
			}
			if diff := cmp.Diff(want, found(t, s, Query{Workspace: "ws"})); diff != "" {
				t.Error("the second process damaged the index")
			}
		})
	}
}

// spoil overwrites the files of a pattern, or creates the file.
func spoil(t *testing.T, dir, pattern string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		names = []string{filepath.Join(dir, pattern)}
	}
	for _, name := range names {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

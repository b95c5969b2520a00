package search

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"tidemark/sinks"
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
		"--rebuild":                         alias(200, `{"fastio-files-000001":{"mappings":{"_meta":{"tidemark":1}}}}`),
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
	if _, err := index.indexes(context.Background(), index.alias); !isNotFound(err) {
		t.Errorf("the alias exists: %v", err)
	}
}

// Each process fills its embedded index first. Until that ends a query fails: it does not answer with a part.
func TestEmbeddedIsFilledFirst(t *testing.T) {
	s := sinkForTest(t, Config{URL: Embedded})
	refused := func() {
		t.Helper()
		if page, err := s.Search(t.Context(), Query{Workspace: "ws"}); err == nil || !s.Incomplete() {
			t.Errorf("%v, incomplete %v", page, s.Incomplete())
		}
	}
	topic := &log{}
	topic.append(record(t, active("ws", "f", 1, "/a.pdf")))
	deliverAll(t, s, record(t, active("ws", "g", 2, "/b.pdf")))
	refused()
	broken := errors.New("broken")
	fails := func(context.Context, sinks.Sink) error {
		refused()
		return broken
	}
	if err := s.Rebuild(t.Context(), fails); !errors.Is(err, broken) {
		t.Error(err)
	}
	refused()
	if err := s.Rebuild(t.Context(), topic.reader(t)); err != nil || s.Incomplete() {
		t.Errorf("incomplete %v, %v", s.Incomplete(), err)
	}
	if diff := cmp.Diff([]string{"f@1"}, found(t, s, Query{Workspace: "ws"})); diff != "" {
		t.Error(diff)
	}
}

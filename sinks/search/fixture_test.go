package search

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"tidemark/codecs"
	rules "tidemark/file"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// both are the indexes that a test runs against: the embedded one, and the OpenSearch at OPENSEARCH_URL.
var both = map[string]func(*testing.T) *Sink{"embedded": embeddedForTest, "opensearch": openSearchForTest}

func embeddedForTest(t *testing.T) *Sink {
	t.Helper()
	s := sinkForTest(t, Config{URL: Embedded})
	if err := s.Rebuild(t.Context(), func(context.Context, sinks.Sink) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return s
}

// openSearchForTest returns a sink with an alias of its own in the OpenSearch at OPENSEARCH_URL.
func openSearchForTest(t *testing.T) *Sink {
	t.Helper()
	url := os.Getenv("OPENSEARCH_URL")
	if url == "" {
		t.Skip("OPENSEARCH_URL is not set: run .ci/opensearch go test ./sinks/search")
	}
	s := sinkForTest(t, Config{URL: url, Index: fmt.Sprintf("test-%d-%s", os.Getpid(), strings.ToLower(
		strings.NewReplacer("/", "-", "#", "-").Replace(t.Name())))})
	t.Cleanup(func() {
		index := s.index.(*server)
		for _, path := range []string{"/" + index.alias + "-0*", "/_index_template/" + index.alias} {
			if err := index.do(context.Background(), "DELETE", path, nil, nil); err != nil {
				t.Error(err)
			}
		}
	})
	return s
}

func sinkForTest(t *testing.T, c Config) *Sink {
	t.Helper()
	if c.Index == "" {
		c.Index = "fastio-files"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Predictions = "fastio-predictions"
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if c.URL == Embedded || os.Getenv("OPENSEARCH_URL") == c.URL {
		if err := s.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// active returns an active file.
func active(workspace, id string, version int64, path string) *tidemarkv1.FileState {
	created := int64(1758836411000000)
	return &tidemarkv1.FileState{
		WorkspaceId: workspace, FileId: id, Version: version, Path: path, Name: path[strings.LastIndex(path, "/")+1:],
		Mime: "application/pdf", Status: tidemarkv1.Status_STATUS_ACTIVE, CreatedAt: &created,
		Position: &tidemarkv1.Position{Partition: 7, Offset: 100 + version},
	}
}

func trashed(workspace, id string, version int64) *tidemarkv1.FileState {
	return &tidemarkv1.FileState{
		WorkspaceId: workspace, FileId: id, Version: version, Status: tidemarkv1.Status_STATUS_TRASHED,
		Position: &tidemarkv1.Position{Partition: 7, Offset: 100 + version},
	}
}

// record returns the index record of a file.
func record(t *testing.T, f *tidemarkv1.FileState) *sinks.Record {
	t.Helper()
	return recordOf(t, rules.IndexOf(f))
}

func recordOf(t *testing.T, op *tidemarkv1.IndexOp) *sinks.Record {
	t.Helper()
	value, err := codecs.Index{}.Encode(op)
	if err != nil {
		t.Fatal(err)
	}
	return &sinks.Record{Topic: "fastio-index", Partition: 7, Key: []byte(op.GetId()), Value: value}
}

// deliverAll delivers records, those that were not applied again, and returns the rejected ones.
func deliverAll(t *testing.T, s sinks.Sink, batch ...*sinks.Record) (rejected []*sinks.Record) {
	t.Helper()
	for range 100 {
		err := s.Deliver(t.Context(), batch)
		if err == nil {
			return rejected
		}
		partial, ok := errors.AsType[*sinks.Partial](err)
		if !ok {
			t.Fatal(err)
		}
		for _, r := range batch {
			if partial.Rejected[r] != nil {
				rejected = append(rejected, r)
			}
		}
		if batch = partial.Again; len(batch) == 0 {
			return rejected
		}
	}
	t.Fatalf("%d records are never applied", len(batch))
	return nil
}

// found returns the file ids and versions of all pages of a query, "id@version".
func found(t *testing.T, s *Sink, q Query) []string {
	t.Helper()
	if err := s.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := []string{}
	for {
		page, err := s.Search(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, raw := range page.Files {
			var f struct {
				FileID  string `json:"file_id"`
				Version int64  `json:"version"`
			}
			if err := json.Unmarshal(raw, &f); err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%s@%d", f.FileID, f.Version))
		}
		if page.Next == "" {
			return all
		}
		q.Cursor = page.Next
	}
}

// againOf returns the records that a batch's error asks to deliver again.
func againOf(err error) []*sinks.Record {
	if partial, ok := errors.AsType[*sinks.Partial](err); ok {
		return partial.Again
	}
	return nil
}

package search

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// apply writes documents in one bulk request. The loop bounds their size, and splits what the server answers with 413.
func (s *server) apply(ctx context.Context, documents []document) ([]error, error) {
	body := make([]byte, 0, len(documents)*bodyBytes)
	for _, d := range documents {
		body = d.appendBulk(body)
	}
	var answer struct{ Items []struct{ Index failure } }
	// Without require_alias the server may create an index in place of a missing alias.
	path := "/" + s.alias + "/_bulk?filter_path=items.*.status,items.*.error&require_alias=true"
	if err := s.do(ctx, http.MethodPost, path, body, &answer); err != nil {
		return nil, err
	}
	outcomes := make([]error, len(documents))
	for i := range documents {
		if len(answer.Items) != len(documents) || answer.Items[i].Index.Status == 0 {
			return nil, fmt.Errorf("POST %s: the answer has no status for each of %d documents", path, len(documents))
		}
		outcomes[i] = outcome(&answer.Items[i].Index)
	}
	return outcomes, nil
}

// bodyBytes are in a request for each document, more or less.
const bodyBytes = 1 << 10

// outcome returns the outcome of a document.
func outcome(f *failure) error {
	switch {
	case f.Status/100 == 2, f.Status == http.StatusConflict: // conflict: this version or a newer one is there
		return nil
	case f.Status/100 != 4, f.Status == http.StatusTooManyRequests,
		// Missing rights, an index that is missing or blocked, an alias of several: people fix these.
		f.Status == http.StatusUnauthorized, f.Status == http.StatusForbidden, f.Status == http.StatusNotFound,
		strings.Contains(f.Error(), "no write index"):
		return fmt.Errorf("the search server does not accept documents: %w", f)
	}
	return &sinks.Rejected{Reason: "the search server refuses the document", Answer: f.Error()}
}

// appendBulk appends the two lines of a bulk request for a document. The _id is the key of its record. A prediction may
// be replaced by another one about the same version: the model was asked again.
func (d document) appendBulk(b []byte) []byte {
	if p := d.prediction; p != nil {
		b = appendAction(b, "external_gte", tidemarkv1.JoinKey(p.WorkspaceID, p.FileID)+"/"+p.Rule, p.Version)
		return append(append(b, quoted(p)...), '\n')
	}
	id := tidemarkv1.JoinKey(d.file.GetWorkspaceId(), d.file.GetFileId())
	b = appendAction(b, "external", id, d.file.GetVersion())
	b = codecs.AppendFile(b, d.file)
	tombstone := d.file.GetStatus() == tidemarkv1.Status_STATUS_UNSPECIFIED
	return fmt.Appendf(b[:len(b)-1], `,"deleted":%t,"words":%s}`+"\n", tombstone, quoted(fileWords(d.file)))
}

func appendAction(b []byte, versionType, id string, version int64) []byte {
	if len(id) > 512 { // the most that an _id can have; the prefix has no "/", so no record has this id
		id = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(id)))
	}
	return fmt.Appendf(b, `{"index":{"version_type":%q,"_id":%s,"version":%d}}`+"\n", versionType, quoted(id), version)
}

func quoted(value any) []byte {
	b, _ := json.Marshal(value) // every string has a JSON form, and what was read from JSON
	return b
}

// An object is one of OpenSearch's query language.
type object map[string]any

func (s *server) find(ctx context.Context, f filter) ([]*tidemarkv1.FileState, error) {
	filters := []object{{"term": object{"workspace_id": f.Workspace}}, {"terms": object{"status": f.statuses}}}
	for _, word := range f.words {
		filters = append(filters, object{"prefix": object{"words": word}})
	}
	if f.PathPrefix != "" {
		filters = append(filters, object{"prefix": object{"path.prefix": f.PathPrefix}})
	}
	if f.MIME != "" {
		filters = append(filters, object{"term": object{"mime": f.MIME}})
	}
	found, err := s.search(ctx, object{
		"query": object{"bool": object{"filter": filters}}, "sort": []string{"file_id"}, "size": f.Limit,
		"search_after": []string{f.after}, // every file id is after ""
		"_source":      object{"excludes": []string{"words"}},
	})
	files := make([]*tidemarkv1.FileState, len(found))
	for i, source := range found {
		message, err := codecs.Index{}.Decode(fmt.Appendf(nil, `{"file":%s}`, source)) // no codec reads a file alone
		if err != nil {
			return nil, fmt.Errorf("a document of the search index cannot be read: %w", err)
		}
		files[i] = message.(*tidemarkv1.IndexOp).GetFile()
	}
	return files, err
}

// maxHits is the index's index.max_result_window. A file has at most maxHits/filesAtOnce predictions.
const (
	maxHits     = 10_000
	filesAtOnce = 100
)

func (s *server) predicted(ctx context.Context, workspace string, fileIDs []string) (all []*prediction, err error) {
	for ids := range slices.Chunk(fileIDs, filesAtOnce) {
		found, err := s.search(ctx, object{"size": maxHits, "query": object{"bool": object{"filter": []object{
			{"term": object{"workspace_id": workspace}},
			{"terms": object{"file_id": ids}},
			{"exists": object{"field": "rule"}},
		}}}})
		if err != nil {
			return nil, err
		}
		for _, source := range found {
			p := new(prediction)
			if err := json.Unmarshal(source, p); err != nil {
				return nil, fmt.Errorf("a prediction of the search index cannot be read: %w", err)
			}
			all = append(all, p)
		}
	}
	return all, nil
}

// search returns the documents of a query.
func (s *server) search(ctx context.Context, query object) ([]json.RawMessage, error) {
	query["track_total_hits"] = false
	var answer struct {
		TimedOut bool `json:"timed_out"`
		Hits     *struct {
			Hits []struct {
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	path := "/" + s.alias + "/_search?allow_partial_search_results=false"
	if err := s.do(ctx, http.MethodPost, path, quoted(query), &answer); err != nil {
		return nil, err
	} else if answer.Hits == nil || answer.TimedOut {
		return nil, errors.New("the search server's answer is not complete")
	}
	sources := make([]json.RawMessage, len(answer.Hits.Hits))
	for i, hit := range answer.Hits.Hits {
		sources[i] = hit.Source
	}
	return sources, nil
}

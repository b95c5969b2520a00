package search

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// apply writes documents in one bulk request. The loop bounds their size, and splits what the server answers with 413.
func (s *server) apply(ctx context.Context, files []*tidemarkv1.FileState) ([]error, error) {
	var body []byte
	for _, file := range files {
		body = appendBulk(body, file)
	}
	var answer struct{ Items []struct{ Index failure } }
	// Without require_alias the server may create an index in place of a missing alias.
	path := "/" + s.alias + "/_bulk?filter_path=items.*.status,items.*.error&require_alias=true"
	if err := s.do(ctx, http.MethodPost, path, body, &answer); err != nil {
		return nil, err
	}
	outcomes := make([]error, len(files))
	for i := range files {
		if len(answer.Items) != len(files) || answer.Items[i].Index.Status == 0 {
			return nil, fmt.Errorf("POST %s: the answer has no status for each of %d documents", path, len(files))
		}
		outcomes[i] = outcome(&answer.Items[i].Index)
	}
	return outcomes, nil
}

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

// appendBulk appends the two lines of a bulk request for a document.
func appendBulk(b []byte, file *tidemarkv1.FileState) []byte {
	id := tidemarkv1.JoinKey(file.GetWorkspaceId(), file.GetFileId())
	if len(id) > 512 { // the most that an _id can have; the prefix has no "/", so no record has this id
		id = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(id)))
	}
	b = fmt.Appendf(b, `{"index":{"version_type":"external","_id":%s,"version":%d}}`+"\n", quoted(id), file.GetVersion())
	b = codecs.AppendFile(b, file)
	tombstone := file.GetStatus() == tidemarkv1.Status_STATUS_UNSPECIFIED
	return fmt.Appendf(b[:len(b)-1], `,"deleted":%t,"words":%s}`+"\n", tombstone, quoted(fileWords(file)))
}

func quoted(text string) []byte {
	b, _ := json.Marshal(text) // every string has a JSON form
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
	body, err := json.Marshal(object{
		"query": object{"bool": object{"filter": filters}}, "sort": []string{"file_id"}, "size": f.Limit,
		"search_after":     []string{f.after}, // every file id is after ""
		"track_total_hits": false, "_source": object{"excludes": []string{"words"}},
	})
	if err != nil {
		return nil, err
	}
	var answer struct {
		TimedOut bool `json:"timed_out"`
		Hits     *struct {
			Hits []struct {
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	path := "/" + s.alias + "/_search?allow_partial_search_results=false"
	if err := s.do(ctx, http.MethodPost, path, body, &answer); err != nil {
		return nil, err
	} else if answer.Hits == nil || answer.TimedOut {
		return nil, errors.New("the search server's answer is not complete")
	}
	files := make([]*tidemarkv1.FileState, len(answer.Hits.Hits))
	for i, hit := range answer.Hits.Hits {
		message, err := codecs.Index{}.Decode(fmt.Appendf(nil, `{"file":%s}`, hit.Source)) // no codec reads a file alone
		if err != nil {
			return nil, fmt.Errorf("a document of the search index cannot be read: %w", err)
		}
		files[i] = message.(*tidemarkv1.IndexOp).GetFile()
	}
	return files, nil
}

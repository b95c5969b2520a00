package search

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// apply writes documents to an alias, in as many bulk requests as their size needs.
func (s *server) apply(ctx context.Context, to string, ops []*tidemarkv1.IndexOp) ([]error, error) {
	if to == serving {
		to = s.alias
	}
	// Without require_alias the server may create an index in place of a missing alias.
	path := "/" + to + "/_bulk?filter_path=items.*.status,items.*.error&require_alias=true"
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var outcomes []error
	var body, next []byte
	count := 0
	flush := func() error {
		if count == 0 {
			return nil
		}
		got, err := s.bulk(ctx, path, body, count)
		outcomes, body, count = append(outcomes, got...), body[:0], 0
		return err
	}
	for _, op := range ops {
		if next = appendBulk(next[:0], op); len(body)+len(next) > maxBulk {
			if err := flush(); err != nil {
				return outcomes, err
			}
		}
		body = append(body, next...)
		count++
	}
	err := flush()
	return outcomes, err
}

// bulk sends a bulk request for count documents and returns their outcomes.
func (s *server) bulk(ctx context.Context, path string, body []byte, count int) ([]error, error) {
	var answer struct {
		Items []struct {
			Index struct {
				Status int
				Error  *failure
			}
		}
	}
	if err := s.do(ctx, http.MethodPost, path, body, &answer); err != nil {
		return nil, err
	}
	outcomes := make([]error, len(answer.Items))
	for i, item := range answer.Items {
		if item.Index.Status == 0 {
			return nil, fmt.Errorf("POST %s: item %d of the answer has no status", path, i)
		}
		outcomes[i] = outcome(item.Index.Status, item.Index.Error)
	}
	if len(outcomes) != count {
		return nil, fmt.Errorf("POST %s: the answer has %d items for %d documents", path, len(outcomes), count)
	}
	return outcomes, nil
}

// outcome returns the outcome of an item of a bulk request.
func outcome(status int, f *failure) error {
	if f == nil {
		f = &failure{Type: http.StatusText(status), Reason: "the server gives no reason"}
	}
	switch {
	case status/100 == 2, status == http.StatusConflict: // conflict: this version or a newer one is there
		return nil
	case status/100 != 4, status == http.StatusTooManyRequests,
		// Missing rights, an index that is missing or blocked, an alias of several: people mend these.
		status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusNotFound,
		strings.Contains(f.Reason, "no write index"):
		return fmt.Errorf("the search server does not accept documents: %d %s", status, f)
	}
	return &sinks.Rejected{Reason: "the search server refuses the document", Answer: fmt.Sprintf("%d %s", status, f)}
}

// appendBulk appends the two lines of a bulk request for a document.
func appendBulk(b []byte, op *tidemarkv1.IndexOp) []byte {
	id := op.GetId()
	if len(id) > 512 { // the most that an _id can have; the prefix has no "/", so no record has this id
		sum := sha256.Sum256([]byte(id))
		id = "sha256:" + hex.EncodeToString(sum[:])
	}
	b = appendText(append(b, `{"index":{"version_type":"external","_id":`...), id)
	b = strconv.AppendInt(append(b, `,"version":`...), op.GetVersion(), 10)
	b = append(b, "}}\n"...)
	if op.GetFile() == nil {
		b = appendText(append(b, `{"workspace_id":`...), op.GetWorkspaceId())
		b = appendText(append(b, `,"file_id":`...), op.GetFileId())
		b = strconv.AppendInt(append(b, `,"version":`...), op.GetVersion(), 10)
		return append(b, `,"deleted":true}`+"\n"...)
	}
	b = codecs.AppendFile(b, op.GetFile())
	b = appendText(append(b[:len(b)-1], `,"deleted":false,"words":`...), fileWords(op))
	return append(b, "}\n"...)
}

func appendText(b []byte, text string) []byte {
	quoted, _ := json.Marshal(text) // every string has a JSON form
	return append(b, quoted...)
}

// An object is one of OpenSearch's query language.
type object map[string]any

func (s *server) find(ctx context.Context, f filter) ([]hit, error) {
	names := make([]string, len(f.statuses)) // as codecs writes them
	for i, status := range f.statuses {
		names[i] = strings.ToLower(strings.TrimPrefix(status.String(), "STATUS_"))
	}
	filters := []object{
		{"term": object{"workspace_id": f.workspace}},
		{"term": object{"deleted": false}},
		{"terms": object{"status": names}},
	}
	for _, word := range f.words {
		filters = append(filters, object{"prefix": object{"words": word}})
	}
	if f.pathPrefix != "" {
		filters = append(filters, object{"prefix": object{"path.prefix": f.pathPrefix}})
	}
	if f.mime != "" {
		filters = append(filters, object{"term": object{"mime": f.mime}})
	}
	query := object{
		"query": object{"bool": object{"filter": filters}}, "sort": []string{"file_id"}, "size": f.limit,
		"track_total_hits": false, "_source": object{"excludes": []string{"words"}},
	}
	if f.after != "" {
		query["search_after"] = []string{f.after}
	}
	body, err := json.Marshal(query)
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
	hits := make([]hit, len(answer.Hits.Hits))
	for i, h := range answer.Hits.Hits {
		// Decoded as the file of an index record, and encoded again: members that a file has not are left out.
		message, err := codecs.Index{}.Decode(append(append([]byte(`{"file":`), h.Source...), '}'))
		if err != nil {
			return nil, fmt.Errorf("a document of the search index cannot be read: %w", err)
		}
		file := message.(*tidemarkv1.IndexOp).GetFile()
		hits[i] = hit{file.GetWorkspaceId(), file.GetFileId(), codecs.AppendFile(nil, file)}
	}
	return hits, nil
}

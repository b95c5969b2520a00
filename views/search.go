package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tidemark/problem"
)

// searchSink is the name of the sink that writes the search index.
const searchSink = "search"

// searchTimeout limits how long the index may take to answer.
const searchTimeout = 10 * time.Second

// maxQueryText is the longest q in bytes: an index may refuse one of many words.
const maxQueryText = 1024

// A SearchQuery selects files of one workspace.
type SearchQuery struct {
	Workspace, Q, PathPrefix, MIME, Status string // "" is no condition; Status is active, trashed or all
	Limit                                  int
	Cursor                                 string // Next of the page before, "" for the first page
}

// A SearchPage is a page of files, as JSON objects. Next is "" on the last page.
type SearchPage struct {
	Files []json.RawMessage
	Next  string
}

// Search reads the index that the search sink writes. The query API does not know which kind of index it is.
type Search struct {
	// Query returns files of the workspace of q, and of no other one.
	Query func(ctx context.Context, q SearchQuery) (SearchPage, error)
	// Refresh makes all that the sink has delivered visible to queries.
	Refresh func(ctx context.Context) error
	// VisibleAfter is how long a delivered file may be missing in results without Refresh.
	VisibleAfter time.Duration
}

// ErrSearchCursor is what Query returns for a cursor that is not from a page of the same query.
var ErrSearchCursor = errors.New("not a cursor of this query")

// searchFiles answers from the index. With at_least it answers once the search sink has committed that position, and
// has the index make visible what was delivered.
func (s *Server) searchFiles(c *call) (*answer, error) {
	if s.conf.Search == nil {
		return nil, problem.New(http.StatusNotImplemented, codeNoSearch,
			"this server has no search index: start it with --search-url")
	}
	q, err := parseSearch(c)
	if err != nil {
		return nil, err
	}
	c.coverage = &s.search.visible
	if c.barrier.position != nil {
		c.coverage = &s.search.indexed
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	p, err := s.queryIndex(c, q)
	if err != nil {
		return nil, err
	}
	if len(p.Files) == 0 {
		if err := s.checkExists(c, s.partition(c.workspace)); err != nil {
			return nil, err
		}
	}
	var files []byte
	for i, f := range p.Files {
		if i > 0 {
			files = append(files, ',')
		}
		files = append(files, f...)
	}
	return withTag(pageOf(files, p.Next, nil).body), nil
}

func parseSearch(c *call) (q SearchQuery, err error) {
	q = SearchQuery{
		Workspace: c.workspace, Q: c.query.Get("q"), PathPrefix: c.query.Get("path_prefix"),
		MIME: c.query.Get("mime"), Cursor: c.query.Get("cursor"),
	}
	if len(q.Q) > maxQueryText {
		return q, badField("q", fmt.Sprintf("q must have at most %d bytes", maxQueryText))
	}
	q.Status, q.Limit, err = parsePage(c)
	return q, err
}

// queryIndex queries the index, and turns its errors into problems.
func (s *Server) queryIndex(c *call, q SearchQuery) (p SearchPage, err error) {
	ctx, cancel := context.WithTimeout(c.request.Context(), searchTimeout)
	defer cancel()
	if c.barrier.position != nil {
		err = s.conf.Search.Refresh(ctx)
	}
	if err == nil {
		p, err = s.conf.Search.Query(ctx, q)
	}
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, ErrSearchCursor):
		return p, badCursor("q, path_prefix, mime and status")
	case c.request.Context().Err() != nil:
		return p, c.request.Context().Err()
	}
	s.conf.Log.WarnContext(ctx, "search failed", "error", err)
	detail := "the search index cannot be reached, or refused the query: try again later, the server's log says more"
	if errors.Is(err, context.DeadlineExceeded) {
		detail = "the search index did not answer in time: try again later, or narrow the query"
	}
	return p, problem.New(http.StatusServiceUnavailable, codeSearchUnavailable, detail).Retry(5 * time.Second)
}

// A searchCoverage tracks which events are in the search index.
type searchCoverage struct {
	indexed coverage // in results after a Refresh
	visible coverage // in results without one

	visibleAfter time.Duration
	started      time.Time
}

func newSearchCoverage(partitions int, visibleAfter time.Duration) *searchCoverage {
	return &searchCoverage{
		indexed: newCoverage("search", partitions), visible: newCoverage("search", partitions),
		visibleAfter: visibleAfter, started: time.Now(),
	}
}

// addCheckpoints adds the checkpoints of partition i. The files group writes the index records of an event before it
// commits the event. So once the search sink has committed the index topic up to its end in the snapshot, the index has
// all events before nextEvent: the sink's group takes the place of a copy, and its commit that of the offset read next.
// They are visible to queries visibleAfter later: there, offsets are times. It reports whether the commit went back.
func (c *searchCoverage) addCheckpoints(s snapshot, i int, nextEvent int64) (reset bool) {
	if s.indexStart[i] == unknown || s.indexEnd[i] == unknown {
		return false
	}
	indexed, visible := c.indexed.frontiers[i], c.visible.frontiers[i]
	indexed.open(max(s.searchCommit[i], s.indexStart[i]))
	indexed.add(checkpoint{nextEvent: nextEvent, end: s.indexEnd[i]})
	_, next := indexed.offsets()
	if _, before := visible.offsets(); next < before {
		visible.reset()
		reset = true
	}
	now := time.Since(c.started)
	visible.add(checkpoint{nextEvent: next, end: int64(now)})
	visible.apply(int64(now-c.visibleAfter), nil)
	return reset
}

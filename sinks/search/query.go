package search

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Query selects files of a workspace. An empty field does not restrict.
type Query struct {
	Workspace  string // required
	Q          string // words of name and path; see Search
	PathPrefix string // in bytes, as in a listing
	MIME       string // the whole type
	Status     string // active, trashed or all; empty: active
	Limit      int    // 1 to 1000; 0: 100
	Cursor     string // Next of the page before
}

// A Page is the result of a query.
type Page struct {
	Files []json.RawMessage // as in the query API
	Next  string            // cursor of the next page; empty at the end
}

// Errors of a query that its sender must mend.
var (
	ErrCursor = errors.New("not a cursor of a search")
	ErrQuery  = errors.New("not a valid search")
)

const (
	maxLimit = 1000
	maxWords = 32       // of a query; those after it are ignored
	maxWord  = 64       // characters; the rest of a word is ignored
	maxExact = 32 << 10 // bytes of a path prefix and type; OpenSearch has no longer terms, so no file matches
)

// A filter is a query as an index executes it. Only Search makes one, and it always has a workspace.
type filter struct {
	workspace  string
	words      []string // each begins a word of the file
	pathPrefix string
	mime       string
	statuses   []tidemarkv1.Status
	after      string // file id
	limit      int
}

// A hit is a document that matches.
type hit struct {
	workspace, file string
	json            json.RawMessage
}

// statuses are those of files, by Query.Status. Erased files are in none.
var statuses = map[string][]tidemarkv1.Status{
	"": {isActive}, "active": {isActive}, "trashed": {isTrashed}, "all": {isActive, isTrashed},
}

const (
	isActive  = tidemarkv1.Status_STATUS_ACTIVE
	isTrashed = tidemarkv1.Status_STATUS_TRASHED
)

// Search returns a page of files, ordered by file id: a file that changes between two pages is neither missed nor
// repeated. Every word of Q must begin a word of the name or path. Words are letters, digits, marks and pictures;
// everything else separates them, and case does not matter: "rep q3" finds /reports/q3.pdf. No character of Q has a
// meaning of its own. A Q without any word finds nothing, an empty Q everything.
func (s *Sink) Search(ctx context.Context, q Query) (Page, error) {
	page := Page{Files: []json.RawMessage{}}
	if q.Limit == 0 {
		q.Limit = 100
	}
	after, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	f := filter{q.Workspace, words(q.Q), q.PathPrefix, q.MIME, statuses[q.Status], "", q.Limit + 1}
	switch {
	case q.Workspace == "", f.statuses == nil, q.Limit < 1, q.Limit > maxLimit:
		return page, fmt.Errorf("%w: want a workspace, a status active, trashed or all, a limit from 1 to %d",
			ErrQuery, maxLimit)
	case q.Cursor != "" && (err != nil || len(after) < 2 || after[0] != cursorVersion):
		return page, ErrCursor
	case q.Cursor != "":
		f.after = string(after[1:])
	}
	f.words = f.words[:min(len(f.words), maxWords)]
	if q.Q != "" && len(f.words) == 0 || max(len(q.PathPrefix), len(q.MIME)) > maxExact {
		return page, nil
	}
	hits, err := s.index.find(ctx, f)
	if err != nil {
		return page, fmt.Errorf("search: %w", err)
	}
	for i, h := range hits {
		if h.workspace != q.Workspace {
			return Page{}, errors.New("search: the index answered with a file of another workspace")
		}
		if i == q.Limit {
			page.Next = base64.RawURLEncoding.EncodeToString(append([]byte{cursorVersion}, hits[i-1].file...))
			break
		}
		page.Files = append(page.Files, h.json)
	}
	return page, nil
}

// cursorVersion is the first byte of a cursor. The file id after which the page begins follows.
const cursorVersion = 1

// words returns the different words of texts, in order: lower-case, in Unicode's compatibility form, so that names
// from macOS (decomposed) and others (composed) are equal. No index splits texts by itself.
func words(texts ...string) []string {
	var all []string
	seen := map[string]bool{}
	for _, text := range texts {
		text = norm.NFKC.String(strings.ToLower(norm.NFKC.String(text)))
		for word := range strings.FieldsFuncSeq(text, func(r rune) bool {
			return !unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.So)
		}) {
			if r := []rune(word); len(r) > maxWord {
				word = string(r[:maxWord])
			}
			if !seen[word] {
				seen[word] = true
				all = append(all, word)
			}
		}
	}
	return all
}

// fileWords returns the words under which a file is found, separated by spaces.
func fileWords(op *tidemarkv1.IndexOp) string {
	return strings.Join(words(op.GetFile().GetName(), op.GetFile().GetPath()), " ")
}

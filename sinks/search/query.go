package search

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"tidemark/codecs"
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

// ErrCursor is the error of a query whose cursor is not the Next of a page.
var ErrCursor = errors.New("not a cursor of a search")

const (
	maxLimit = 1000
	maxWords = 32       // of a query; those after it are ignored
	maxWord  = 64       // characters; the rest of a word is ignored
	maxExact = 32 << 10 // bytes of a path prefix and type; OpenSearch has no longer terms, so no file matches
)

// A filter is a query as an index executes it. Only Search makes one, and it always has a workspace.
type filter struct {
	Query
	words    []string // each begins a word of the file
	statuses []string
	after    string // file id
}

// statuses are those of files, by Query.Status. Erased files and tombstones are in none.
var statuses = map[string][]string{
	"": {"active"}, "active": {"active"}, "trashed": {"trashed"}, "all": {"active", "trashed"},
}

// cursorVersion begins a cursor. The file id after which the page begins follows.
const cursorVersion = "\x01"

// Search returns a page of files, ordered by file id: a file that changes between two pages is neither missed nor
// repeated. Every word of Q must begin a word of the name or path. Words are letters, digits, marks and pictures;
// everything else separates them, and case does not matter: "rep q3" finds /reports/q3.pdf. No character of Q has a
// meaning of its own. A Q without any word finds nothing, an empty Q everything.
func (s *Sink) Search(ctx context.Context, q Query) (Page, error) {
	page := Page{Files: []json.RawMessage{}}
	q.Limit = cmp.Or(q.Limit, 100)
	cursor, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	after, valid := strings.CutPrefix(string(cursor), cursorVersion)
	f := filter{Query: q, words: words(q.Q), statuses: statuses[q.Status], after: after}
	if q.Workspace == "" || f.statuses == nil || q.Limit < 1 || q.Limit > maxLimit {
		return page, fmt.Errorf("want a workspace, a status active, trashed or all, a limit from 1 to %d", maxLimit)
	}
	if q.Cursor != "" && (err != nil || !valid || after == "") {
		return page, ErrCursor
	}
	f.words = f.words[:min(len(f.words), maxWords)]
	if q.Q != "" && len(f.words) == 0 || max(len(q.PathPrefix), len(q.MIME)) > maxExact {
		return page, nil
	}
	f.Limit++ // one more shows whether there is a next page
	files, err := s.find(ctx, f)
	if err != nil {
		return page, fmt.Errorf("search: %w", err)
	}
	if len(files) > q.Limit {
		files = files[:q.Limit]
		page.Next = base64.RawURLEncoding.EncodeToString([]byte(cursorVersion + files[q.Limit-1].GetFileId()))
	}
	answers, err := s.answers(ctx, q.Workspace, files)
	if err != nil {
		return Page{}, fmt.Errorf("search: %w", err)
	}
	for _, file := range files {
		if file.GetWorkspaceId() != q.Workspace {
			return Page{}, errors.New("search: the index answered with a file of another workspace")
		}
		shown := codecs.AppendFile(nil, file)
		if rules := answers[file.GetFileId()]; rules != nil {
			shown = fmt.Appendf(shown[:len(shown)-1], `,"predictions":%s}`, quoted(rules))
		}
		page.Files = append(page.Files, shown)
	}
	return page, nil
}

// answers returns the predictions about the versions of files, by file id and rule.
func (s *Sink) answers(
	ctx context.Context, workspace string, files []*tidemarkv1.FileState,
) (map[string]map[string]modelAnswer, error) {
	ids, versions := make([]string, len(files)), map[string]int64{}
	for i, file := range files {
		ids[i], versions[file.GetFileId()] = file.GetFileId(), file.GetVersion()
	}
	predictions, err := s.predicted(ctx, workspace, ids)
	answers := map[string]map[string]modelAnswer{}
	for _, p := range predictions {
		if p.WorkspaceID != workspace || p.Version != versions[p.FileID] || p.Outputs == nil {
			continue
		}
		if answers[p.FileID] == nil {
			answers[p.FileID] = map[string]modelAnswer{}
		}
		answers[p.FileID][p.Rule] = p.modelAnswer
	}
	return answers, err
}

// words returns the different words of a text, in order: lower-case, in Unicode's compatibility form, so that names
// from macOS (decomposed) and others (composed) are equal. No index splits texts by itself.
func words(text string) []string {
	var all []string
	seen := map[string]bool{}
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
	return all
}

// fileWords returns the words under which a file is found, separated by spaces.
func fileWords(file *tidemarkv1.FileState) string {
	return strings.Join(words(file.GetName()+" "+file.GetPath()), " ")
}

package search

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"tidemark/sinks"
)

// format is the mapping's version, in its _meta. An index of another format is refused; a rebuild makes a new one.
const format = 2

//go:embed template.json
var template string

const maxAnswer = 32 << 20 // bytes in memory; a page of the largest files is smaller

// validAlias excludes what OpenSearch refuses, and what would have a meaning in a URL.
var validAlias = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,200}$`).MatchString

// A server is an alias in OpenSearch or Elasticsearch, for a concrete index whose name is the alias and a number.
type server struct {
	base, alias        string
	username, password string
	client             *http.Client
	log                *slog.Logger
}

func newServer(c Config, u *url.URL) *server {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost, transport.MaxIdleConnsPerHost = maxBatches, maxBatches
	transport.TLSClientConfig = c.TLS
	// A redirect could send documents and the password to another host.
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{
		base: strings.TrimSuffix(u.String(), "/"), alias: c.Index, username: c.Username, password: c.Password,
		client: &http.Client{Transport: transport, CheckRedirect: noRedirect}, log: c.Log,
	}
}

// A failure is the answer to a request, or to a document of a bulk request, with a status other than success.
type failure struct {
	Status int
	Cause  *cause `json:"error"`
}

type cause struct {
	Type, Reason string
	CausedBy     *cause `json:"caused_by"`
}

func (f *failure) Error() string {
	var reasons []string
	for c := f.Cause; c != nil && c.Type != ""; c = c.CausedBy {
		reasons = append(reasons, c.Type+": "+c.Reason)
	}
	text := fmt.Sprintf("%d %s", f.Status, cmp.Or(strings.Join(reasons, ": "), http.StatusText(f.Status)))
	return strings.ToValidUTF8(text[:min(len(text), 1024)], "")
}

func isNotFound(err error) bool {
	f, ok := errors.AsType[*failure](err)
	return ok && f.Status == http.StatusNotFound
}

// do sends a request with a JSON body, and decodes the answer into the value that answer points to, unless it is nil.
func (s *server) do(ctx context.Context, method, path string, body []byte, answer any) error {
	r, err := http.NewRequestWithContext(ctx, method, s.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json") // also of _bulk
	if s.username != "" {
		r.SetBasicAuth(s.username, s.password)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return fmt.Errorf("--search-url: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode/100 != 2 {
		err = s.refusal(response, data)
	} else if err == nil && answer != nil {
		err = json.Unmarshal(data, answer)
	}
	if err != nil {
		return fmt.Errorf("%s %s of --search-url %s: %w", method, path, s.base, err)
	}
	return nil
}

// refusal returns the error for a status other than success.
func (s *server) refusal(response *http.Response, body []byte) error {
	f := new(failure)
	_ = json.Unmarshal(body, f) // the answer of a proxy has no cause
	f.Status = response.StatusCode
	switch f.Status {
	case http.StatusBadRequest:
		return &sinks.Rejected{Reason: "the search server refuses the request", Answer: f.Error()}
	case http.StatusRequestEntityTooLarge:
		return &sinks.Rejected{
			Reason: "larger than the search server accepts: raise its http.max_content_length, or a proxy's limit",
			Answer: f.Error(),
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: fix --search-username and TIDEMARK_SEARCH_PASSWORD, or give the user the rights "+
			"cluster:monitor/main and to manage index templates, and to manage, read and write %s and %[2]s-*",
			f, s.alias)
	}
	return sinks.LaterOf(response.StatusCode, sinks.RetryAfter(response.Header, time.Hour), f)
}

// Check verifies the server, and that the alias names one index of this format. It creates the first one.
func (s *server) Check(ctx context.Context) error {
	var info struct {
		Version struct{ Number, Distribution string }
	}
	if err := s.do(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return err
	}
	major, _ := strconv.Atoi(strings.Split(info.Version.Number, ".")[0])
	if major == 0 || info.Version.Distribution != "opensearch" && major < 8 {
		return fmt.Errorf("--search-url %s must be OpenSearch, or Elasticsearch 8 or newer: its version is %q",
			s.base, info.Version.Number)
	}
	indexes, err := s.indexes(ctx, s.alias)
	if isNotFound(err) {
		created := s.create(ctx, 1, s.alias)
		if created == nil {
			s.log.WarnContext(ctx, "the search index did not exist, and was created empty: if this sink has run "+
				"before, fill it with --rebuild", "index", s.numbered(1))
		}
		// An error may be that another process created it just now.
		if indexes, err = s.indexes(ctx, s.alias); err != nil {
			return fmt.Errorf("--search-index %s does not exist and cannot be created (if %s exists, run with "+
				"--rebuild): %w", s.alias, s.numbered(1), cmp.Or(created, err))
		}
	} else if err != nil {
		return err
	}
	names := slices.Sorted(maps.Keys(indexes))
	switch _, concrete := indexes[s.alias]; {
	case concrete:
		return fmt.Errorf("--search-index %s is not an alias but an index: choose another name, or delete it", s.alias)
	case len(names) != 1:
		return fmt.Errorf("--search-index %s is an alias of %s: remove it from all but one",
			s.alias, strings.Join(names, ", "))
	case indexes[names[0]].Mappings.Meta.Tidemark != format:
		return fmt.Errorf("index %s has another format than this release: run tidemark sink search --rebuild", names[0])
	}
	return nil
}

type indexInfo struct {
	Mappings struct {
		Meta struct{ Tidemark int } `json:"_meta"`
	}
}

// indexes returns the indexes that a name, alias or pattern matches.
func (s *server) indexes(ctx context.Context, name string) (found map[string]indexInfo, err error) {
	err = s.do(ctx, http.MethodGet, "/"+name, nil, &found)
	return found, err
}

func (s *server) numbered(n int) string { return fmt.Sprintf("%s-%06d", s.alias, n) }

// create creates the index of a number, with an alias.
func (s *server) create(ctx context.Context, n int, alias string) error {
	pattern := []byte(strings.ReplaceAll(template, "ALIAS", s.alias))
	if err := s.do(ctx, http.MethodPut, "/_index_template/"+s.alias, pattern, nil); err != nil {
		return err
	}
	body := fmt.Appendf(nil, `{"aliases":{%q:{"is_write_index":true}}}`, alias)
	return s.do(ctx, http.MethodPut, "/"+s.numbered(n), body, nil)
}

// rebuild calls deliverNew twice. The first call fills the new index. After the replacement every other sink writes to
// it too, because all of them write to the alias. What one of them wrote to the old index had been read from the topic
// before, so it is below the topic's end after the replacement: the second call delivers it.
// The old index is kept, so that the alias can be moved back. A rebuild that is interrupted leaves its index unused.
func (s *server) rebuild(ctx context.Context, deliverNew func(context.Context, index) error) error {
	all, err := s.indexes(ctx, s.alias+"-0*")
	number := 1
	for name := range all {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, s.alias+"-")); err == nil {
			number = max(number, n+1)
		}
	}
	next := *s
	next.alias = s.numbered(number) + "-building"
	if err == nil {
		err = s.create(ctx, number, next.alias)
	}
	if err == nil {
		err = deliverNew(ctx, &next)
	}
	if err == nil {
		err = s.replace(ctx, s.numbered(number), next.alias)
	}
	if err != nil {
		return fmt.Errorf("build a new search index: %w", err)
	}
	if err := deliverNew(ctx, s); err != nil {
		return fmt.Errorf("complete the new search index, which serves already (rebuild again): %w", err)
	}
	return nil
}

// replace moves the alias to an index, and removes the index's other alias, in one step.
func (s *server) replace(ctx context.Context, index, building string) error {
	if err := s.do(ctx, http.MethodPost, "/"+building+"/_refresh", nil, nil); err != nil {
		return err
	}
	old, err := s.indexes(ctx, s.alias)
	if err != nil && !isNotFound(err) {
		return err
	}
	actions := []object{
		{"remove": object{"index": index, "alias": building}},
		{"add": object{"index": index, "alias": s.alias, "is_write_index": true}},
	}
	for name := range old {
		actions = append(actions, object{"remove": object{"index": name, "alias": s.alias}})
	}
	body, err := json.Marshal(object{"actions": actions})
	if err != nil {
		return err
	}
	var answer struct{ Acknowledged bool }
	// After 90 s the cluster removes a node that is behind.
	if err := s.do(ctx, http.MethodPost, "/_aliases?timeout=120s", body, &answer); err != nil {
		return err
	} else if !answer.Acknowledged {
		return errors.New("not all nodes applied the new alias within 120 s: rebuild again")
	}
	s.log.InfoContext(ctx, "the new search index serves; the old one is kept: delete it once it is not needed",
		"index", index, "old", slices.Sorted(maps.Keys(old)))
	return nil
}

func (s *server) Refresh(ctx context.Context) error {
	return s.do(ctx, http.MethodPost, "/"+s.alias+"/_refresh", nil, nil)
}

func (s *server) Incomplete() bool { return false }

package search

import (
	"bytes"
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
const format = 1

//go:embed template.json
var template string

const (
	maxAnswer = 32 << 20 // bytes in memory; a page of the largest files is smaller
	maxBulk   = 5 << 20  // bytes of a bulk request; a larger document is sent alone
	inFlight  = 6        // bulk requests of a process, to bound their memory
)

// validAlias excludes what OpenSearch refuses, and what would have a meaning in a URL.
var validAlias = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,200}$`).MatchString

// A server is an alias in OpenSearch or Elasticsearch, for a concrete index whose name is the alias and a number.
type server struct {
	base, alias        string
	username, password string
	client             *http.Client
	slots              chan struct{} // one for each bulk request in flight
	log                *slog.Logger
}

func newServer(c Config, u *url.URL) *server {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.TLSClientConfig = inFlight, c.TLS
	return &server{
		base: strings.TrimSuffix(u.String(), "/"), alias: c.Index, username: c.Username, password: c.Password,
		// A redirect could send documents and the password to another host.
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
		slots: make(chan struct{}, inFlight), log: c.Log,
	}
}

// A failure is the error of a request or of an item in it.
type failure struct {
	Type     string
	Reason   string
	CausedBy *failure `json:"caused_by"`
}

func (f *failure) String() string {
	text := f.Type + ": " + f.Reason
	if f.CausedBy != nil {
		text += ": " + f.CausedBy.String()
	}
	return strings.ToValidUTF8(text[:min(len(text), 1024)], "")
}

// A statusError is an answer other than success.
type statusError struct {
	status  int
	failure *failure // nil if the answer has none
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("answered %d %s", e.status, http.StatusText(e.status))
	if e.failure != nil {
		text += ": " + e.failure.String()
	}
	return text
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
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
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case response.StatusCode/100 != 2:
		err = refusal(response, data)
	case err != nil:
		err = fmt.Errorf("the answer is not complete: %w", err)
	case len(data) > maxAnswer:
		err = fmt.Errorf("the answer is larger than %d bytes", maxAnswer)
	case answer != nil:
		if err = json.Unmarshal(data, answer); err != nil {
			err = fmt.Errorf("the answer is not that of OpenSearch: %w", err)
		}
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// refusal returns the error for a status other than success.
func refusal(response *http.Response, body []byte) error {
	refused := &statusError{status: response.StatusCode}
	var answer struct{ Error *failure }
	if json.Unmarshal(body, &answer) == nil {
		refused.failure = answer.Error
	}
	switch refused.status {
	case http.StatusRequestEntityTooLarge:
		return &sinks.Rejected{
			Reason: "larger than the search server accepts: raise its http.max_content_length, or a proxy's limit",
			Answer: refused.Error(),
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		after := response.Header.Get("Retry-After")
		seconds, err := strconv.Atoi(after)
		pause := time.Duration(min(seconds, 3600)) * time.Second
		if at, notDate := http.ParseTime(after); err != nil && notDate == nil {
			pause = min(time.Until(at), time.Hour)
		}
		if pause > 0 {
			return &sinks.Later{Pause: pause, Err: refused}
		}
	}
	return refused
}

// check verifies the server, and that the alias names one index of this format. It creates the first one.
func (s *server) check(ctx context.Context) error {
	var info struct {
		Version struct{ Number, Distribution string }
	}
	if err := s.do(ctx, http.MethodGet, "/", nil, &info); err != nil {
		return s.explain(err)
	}
	major, _ := strconv.Atoi(strings.Split(info.Version.Number, ".")[0])
	if major == 0 || info.Version.Distribution != "opensearch" && major < 8 {
		return fmt.Errorf("--search-url %s must be OpenSearch, or Elasticsearch 8 or newer: its version is %q",
			s.base, info.Version.Number)
	}
	current, err := s.indexes(ctx, s.alias)
	if err == nil {
		return s.fits(current)
	} else if statusOf(err) != http.StatusNotFound {
		return s.explain(err)
	}
	if err = s.create(ctx, 1, s.alias); err == nil {
		s.log.WarnContext(ctx, "the search index did not exist, and was created empty: if this sink has run before, "+
			"fill it with --rebuild", "index", s.numbered(1))
	} else if statusOf(err) != http.StatusBadRequest { // which it also is if another process created it just now
		return s.explain(err)
	}
	if current, missing := s.indexes(ctx, s.alias); missing == nil {
		return s.fits(current)
	}
	return fmt.Errorf("--search-index %s does not exist and cannot be created (if %s exists, run with --rebuild): %w",
		s.alias, s.numbered(1), err)
}

// explain names the setting to mend.
func (s *server) explain(err error) error {
	switch statusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("mend --search-username and TIDEMARK_SEARCH_PASSWORD, or give the user the rights "+
			"cluster:monitor/main and to manage index templates, and to manage, read and write %s and %[1]s-*: %w",
			s.alias, err)
	}
	return fmt.Errorf("use --search-url %s: %w", s.base, err)
}

// An indexInfo is what the server says of an index.
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

func (s *server) fits(indexes map[string]indexInfo) error {
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

func (s *server) numbered(n int) string { return fmt.Sprintf("%s-%06d", s.alias, n) }

// create creates the index of a number, with an alias.
func (s *server) create(ctx context.Context, n int, alias string) error {
	pattern := []byte(strings.ReplaceAll(template, "ALIAS", s.alias))
	if err := s.do(ctx, http.MethodPut, "/_index_template/"+s.alias, pattern, nil); err != nil {
		return err
	}
	body := `{"aliases":{"` + alias + `":{"is_write_index":true}}}`
	return s.do(ctx, http.MethodPut, "/"+s.numbered(n), []byte(body), nil)
}

// building is what the name of an index has at its end as the alias by which a rebuild writes to it.
const building = "-building"

func (s *server) build(ctx context.Context) (string, error) {
	found, err := s.indexes(ctx, s.alias+"-0*")
	last := 0
	for name := range found {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, s.alias+"-")); err == nil {
			last = max(last, n)
		}
	}
	if err == nil {
		err = s.create(ctx, last+1, s.numbered(last+1)+building)
	}
	return s.numbered(last+1) + building, err
}

// nodeLag is longer than a node of the cluster can be behind without being removed from it.
const nodeLag = "120s"

func (s *server) serve(ctx context.Context, name string) error {
	if err := s.do(ctx, http.MethodPost, "/"+name+"/_refresh", nil, nil); err != nil {
		return err
	}
	old, err := s.indexes(ctx, s.alias)
	if err != nil && statusOf(err) != http.StatusNotFound {
		return err
	}
	index := strings.TrimSuffix(name, building)
	actions := []object{
		{"remove": object{"index": index, "alias": name}},
		{"add": object{"index": index, "alias": s.alias, "is_write_index": true}},
	}
	for other := range old {
		actions = append(actions, object{"remove": object{"index": other, "alias": s.alias}})
	}
	body, err := json.Marshal(object{"actions": actions})
	if err != nil {
		return err
	}
	var answer struct{ Acknowledged bool }
	if err := s.do(ctx, http.MethodPost, "/_aliases?timeout="+nodeLag, body, &answer); err != nil {
		return err
	} else if !answer.Acknowledged {
		return fmt.Errorf("not all nodes applied the new alias within %s: rebuild again", nodeLag)
	}
	s.log.InfoContext(ctx, "the new search index serves; the old one is kept: delete it once it is not needed",
		"index", index, "old", slices.Sorted(maps.Keys(old)))
	return nil
}

func (s *server) refresh(ctx context.Context) error {
	return s.do(ctx, http.MethodPost, "/"+s.alias+"/_refresh", nil, nil)
}

func (s *server) finish(context.Context) error { return nil }
func (s *server) incomplete() bool             { return false }

func (s *server) close() error {
	s.client.CloseIdleConnections()
	return nil
}

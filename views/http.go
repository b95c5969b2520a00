package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"tidemark/kafka"
)

// headerLag is on every answer of which the age is known.
const headerLag = "Tidemark-Lag-Seconds"

// writeSlack is what an answer may take to write, once any waiting is over.
const writeSlack = 30 * time.Second

// methods is all that any resource here allows.
const methods = "GET, HEAD"

// noResource is the template of a request that asks for none, in metrics and messages.
const noResource = "none"

// An answer is what a handler returns.
type answer struct {
	status      int // 0 is 200
	contentType string
	etag        string
	body        []byte
}

// A call is one request on its way to an answer.
type call struct {
	ctx    context.Context
	header http.Header
	query  url.Values

	workspace, file string
	table           *table // that it is answered from
	lag             time.Duration
	lagKnown        bool
	until           time.Time // it waits, at most
}

// A route is one resource. Its parameters are all that it takes: a misspelt one would silently ask for something else.
type route struct {
	template   string
	table      *table
	parameters []string
	handle     func(c *call) (*answer, error)
}

func (s *Server) routeList() []route {
	return []route{
		{"/v1/workspaces/{workspace}", s.workspaces, []string{"at_least", "wait"}, s.getWorkspace},
		{"/v1/workspaces/{workspace}/files", s.files, []string{"path_prefix", "status", "kind", "limit", "cursor", "at_least", "wait"}, s.listFiles},
		{"/v1/workspaces/{workspace}/files/{file}", s.files, []string{"at_least", "wait"}, s.getFile},
		{"/v1/status", s.workspaces, []string{"at_least", "wait"}, s.getStatus},
		{"/openapi.json", s.files, nil, s.getOpenAPI},
	}
}

// routes returns the handler of all resources. Ids are escaped once in a path, and may hold "/", "%" and "..".
func (s *Server) routes() http.Handler {
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, r := range s.routeList() {
		router.Handle(r.template, s.serve(r)).Methods(http.MethodGet, http.MethodHead)
	}
	router.NotFoundHandler = s.serve(route{template: noResource, table: s.files, handle: func(*call) (*answer, error) {
		return nil, &problem{
			status: http.StatusNotFound, code: codeUnknownPath,
			detail: "there is no such resource: see /openapi.json, and escape '/' in an id as %2F",
		}
	}})
	refuse := s.serve(route{template: noResource, table: s.files, handle: func(*call) (*answer, error) {
		return nil, &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "use GET: this API only reads"}
	}})
	router.MethodNotAllowedHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", methods)
		refuse.ServeHTTP(w, r)
	})
	return router
}

// serve is the one place that writes answers, counts them and logs what went wrong.
func (s *Server) serve(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		begin := time.Now()
		c := &call{ctx: request.Context(), header: request.Header, table: r.table}
		var a *answer
		err := prepare(c, r, request)
		allowTime(w, c)
		if err == nil {
			a, err = r.handle(c)
		}
		if err != nil {
			a = s.explain(w.Header(), r, err)
		}
		if a.status == 0 {
			a.status = http.StatusOK
		}
		if !c.lagKnown {
			c.lag, c.lagKnown = s.lagFor(c)
		}
		s.write(w, c, a)
		s.metrics.request(r.template, a.status, time.Since(begin))
	})
}

// prepare reads what all routes read: ids and parameters.
func prepare(c *call, r route, request *http.Request) error {
	for name, target := range map[string]*string{"workspace": &c.workspace, "file": &c.file} {
		var err error
		if *target, err = url.PathUnescape(mux.Vars(request)[name]); err != nil {
			return &problem{status: http.StatusNotFound, code: codeUnknownPath, detail: "the path holds a broken escape"}
		}
	}
	if r.template == noResource {
		return nil
	}
	var err error
	if c.query, err = url.ParseQuery(request.URL.RawQuery); err != nil {
		return &problem{status: http.StatusBadRequest, code: codeBadField, detail: "the query string cannot be read: " + err.Error()}
	}
	known := map[string]bool{}
	for _, name := range r.parameters {
		known[name] = true
	}
	for name, values := range c.query {
		if !known[name] {
			detail := fmt.Sprintf("there is no parameter %q here; there are: %s", name, strings.Join(r.parameters, ", "))
			if len(r.parameters) == 0 {
				detail = "there are no parameters here: leave them out"
			}
			return &problem{status: http.StatusBadRequest, code: codeBadField, field: name, detail: detail}
		}
		if len(values) > 1 {
			return &problem{status: http.StatusBadRequest, code: codeBadField, field: name, detail: "give " + name + " once"}
		}
	}
	return nil
}

// allowTime bounds what a slow reader may take, and lets a request that waits outlive a server's own write timeout.
func allowTime(w http.ResponseWriter, c *call) {
	limit := writeSlack
	if b, err := parseBarrier(c.query); err == nil && b.position != nil {
		limit += b.wait
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit)) // a writer without deadlines, as in tests, needs none
}

// explain turns an error into an answer.
func (s *Server) explain(header http.Header, r route, err error) *answer {
	var p *problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, context.Canceled):
		return &answer{status: statusGone} // nobody reads it
	case errors.Is(err, errClosed):
		p = &problem{status: http.StatusServiceUnavailable, code: codeRecovering, detail: "the server is stopping: try another", retryAfter: 1}
	default:
		s.conf.Log.Error("request failed", "route", r.template, "error", err)
		p = &problem{status: http.StatusInternalServerError, code: codeInternal, detail: "this is a fault of the server: its log says more"}
	}
	if p.retryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	return &answer{status: p.status, contentType: "application/problem+json", body: p.body()}
}

// statusGone is how a client that did not wait is counted.
const statusGone = 499

func (s *Server) write(w http.ResponseWriter, c *call, a *answer) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if c.lagKnown {
		h.Set(headerLag, seconds(c.lag))
	}
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	if a.status != http.StatusNotModified {
		if a.contentType == "" {
			a.contentType = "application/json"
		}
		h.Set("Content-Type", a.contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	w.Write(a.body)
}

// seconds returns a duration as clients see it: seconds, to the millisecond.
func seconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d.Milliseconds())/1000, 'f', -1, 64)
}

// partition returns where a workspace's records lie.
func (s *Server) partition(workspace string) int32 {
	return kafka.Partition(workspace, s.conf.Streams.Events.Partitions)
}

// lagFor returns the age of what the call is answered from: that of its workspace's partition, or the greatest of all.
func (s *Server) lagFor(c *call) (age time.Duration, known bool) {
	now := time.Now()
	if c.workspace != "" {
		l, known := s.progress.lag(c.table, s.partition(c.workspace), now)
		return l.age, known
	}
	for i := range c.table.frontiers {
		l, ok := s.progress.lag(c.table, int32(i), now)
		age, known = max(age, l.age), known || ok
	}
	return age, known
}

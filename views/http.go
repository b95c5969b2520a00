package views

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"

	"tidemark/kafka"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// headerLag is on every answer whose age is known.
const headerLag = "Tidemark-Lag-Seconds"

// writeTimeout is how long writing an answer may take, after any waiting.
const writeTimeout = 30 * time.Second

// noResource is the template of a request for no resource, in metrics and messages.
const noResource = "none"

// The codes of problems. Clients branch on them, so they do not change.
const (
	codeBadField          = "bad_field"
	codeBadCursor         = "bad_cursor"
	codeCursorExpired     = "cursor_expired"
	codeTooLarge          = "too_large"
	codeTooManyDiffs      = "too_many_diffs"
	codeSlowUpload        = "slow_upload"
	codeUnknownWorkspace  = "unknown_workspace"
	codeUnknownFile       = "unknown_file"
	codeUnknownPath       = "unknown_path"
	codeMethod            = "method_not_allowed"
	codeRecovering        = "recovering"
	codeStale             = "stale"
	codeNotReached        = "position_not_reached"
	codeNoSearch          = "search_not_configured"
	codeSearchUnavailable = "search_unavailable"
	codeNoHistory         = "history_not_configured"
	codeAsOfExpired       = "as_of_expired"
	codeAsOfTooFar        = "as_of_too_far"
	codeTooManyScans      = "too_many_scans"
	codeTooManyTraces     = "too_many_traces"
	codeUnknownEvent      = "unknown_event"
	codeEventExpired      = "event_expired"
	codeBrokersAway       = "brokers_away"
	codeNoDeadLetters     = "dead_letters_not_configured"
	codeInternal          = "internal"
)

// badField is a problem of one parameter.
func badField(name, detail string) *problem.Problem {
	return problem.New(http.StatusBadRequest, codeBadField, detail).On(name)
}

// An answer is what a handler returns: a body, a function that streams one, or a handler that writes the whole answer.
type answer struct {
	status      int    // 0 is 200
	contentType string // "" is application/json
	etag        string
	header      http.Header // further headers
	body        []byte
	stream      func(*stream) error
	handler     http.Handler
	plain       bool // it is not compressed
	form        form
	partitions  []int32                                            // that a part of another one's answer is from
	forward     func(w http.ResponseWriter, request *http.Request) // passes the request on; it counts the answer
}

// A call is one request to a resource.
type call struct {
	request         *http.Request
	control         *http.ResponseController
	workspace, file string
	position        string // in the path
	query           url.Values
	barrier         barrier

	coverage *coverage // of what it is answered from
	lag      time.Duration
	lagKnown bool
	asOf     *tidemarkv1.Position // that the answer is about; nil: the present state
	reached  bool                 // the barrier's position is in a row that the handler has read
	noStore  bool                 // nobody may keep the answer
	until    time.Time            // the end of any waiting

	term      context.Context // ends when the server stops, or gives up the workspace's partition
	forwarded bool            // by another instance, so not again
	held      *heldPartitions // that a call about all workspaces is answered from

	release func() // called after the answer was written; nil: nothing to release
}

// serve is the one place that writes answers, counts them and logs errors.
func (s *Server) serve(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		begin := time.Now()
		c := &call{
			request: request, control: http.NewResponseController(w), coverage: &r.table.coverage, term: s.running,
		}
		defer func() {
			if c.release != nil {
				c.release()
			}
		}()
		var a *answer
		err := s.prepare(c, r)
		setWriteDeadline(w, writeTimeout+c.barrier.wait)
		if err == nil {
			a, err = s.answer(c, r)
		}
		if err == nil && c.query.Has("wait") { // the token may have expired, or been revoked, while it waited
			err = s.authorize(c, r)
		}
		if err != nil {
			a = s.explain(w.Header(), r, err)
		}
		if a.status == http.StatusServiceUnavailable && RetryEventStream(w, request) {
			s.metrics.request(r.template, a.status, time.Since(begin))
			return
		}
		if a.status == 0 {
			a.status = http.StatusOK
		}
		if a.handler != nil || a.stream != nil || a.forward != nil {
			allowed, release := s.whileAllowed(c, r)
			defer release()
			request = allowed
		}
		if a.forward != nil {
			a.forward(w, request)
			return
		}
		if a.handler != nil && request.Method != http.MethodHead {
			s.metrics.request(r.template, s.mount(w, request, a.handler), time.Since(begin))
			return
		}
		if !c.lagKnown && a.status != http.StatusUnauthorized && a.status != http.StatusForbidden {
			c.lag, c.lagKnown = s.lagFor(c)
		}
		a.encode(w.Header(), request)
		s.writeHead(w, c, a)
		if a.stream == nil || request.Method == http.MethodHead {
			w.Write(a.body)
			err = nil
		} else if err = s.stream(c.term, w, request, a); err != nil {
			if a.status = statusGone; !errors.Is(err, context.Canceled) {
				a.status = http.StatusInternalServerError
				s.conf.Log.ErrorContext(request.Context(), "stream failed", "route", r.template, "error", err)
			}
		}
		s.metrics.request(r.template, a.status, time.Since(begin))
		if err != nil {
			panic(http.ErrAbortHandler) // cuts the connection, so that the client sees that the stream is incomplete
		}
	})
}

// prepare reads what all routes have in common, ids and parameters, and authorizes the request.
func (s *Server) prepare(c *call, r route) (err error) {
	if r.template == noResource {
		return s.authorize(c, r)
	}
	vars := mux.Vars(c.request)
	for _, v := range []struct {
		name   string
		target *string
	}{{"workspace", &c.workspace}, {"file", &c.file}, {"position", &c.position}} {
		if *v.target, err = url.PathUnescape(vars[v.name]); err != nil {
			return problem.New(http.StatusNotFound, codeUnknownPath, "the path holds a broken escape")
		}
	}
	if err = s.authorize(c, r); err != nil {
		return err
	}
	if c.query, err = url.ParseQuery(c.request.URL.RawQuery); err != nil {
		return problem.New(http.StatusBadRequest, codeBadField, "the query string cannot be read: "+err.Error())
	}
	if len(c.query) == 0 {
		c.barrier.wait = defaultWait
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(c.query)) {
		if !slices.Contains(r.parameters, name) {
			detail := fmt.Sprintf("there is no parameter %q here; there are: %s",
				name, strings.Join(r.parameters, ", "))
			if len(r.parameters) == 0 {
				detail = "there are no parameters here: leave them out"
			}
			return badField(name, detail)
		}
		if len(c.query[name]) > 1 && !slices.Contains(listParameters, name) {
			return badField(name, "give "+name+" once")
		}
	}
	c.barrier, err = parseBarrier(c.query)
	return err
}

// setWriteDeadline limits how long a slow client may take. It replaces a server's own write timeout, which a request
// that waits may outlive.
func setWriteDeadline(w http.ResponseWriter, limit time.Duration) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit)) // not supported by the writers of tests
}

// explain turns an error into an answer.
func (s *Server) explain(header http.Header, r route, err error) *answer {
	var p *problem.Problem
	switch {
	case errors.As(err, &p):
	case errors.Is(err, context.Canceled):
		return &answer{status: statusGone}
	case errors.Is(err, errStoreNotReady):
		p = recovering(s.files)
	case errors.Is(err, errClosed):
		p = problem.New(http.StatusServiceUnavailable, codeRecovering,
			"the server is stopping: try another").Retry(time.Second)
	default:
		s.conf.Log.Error("request failed", "route", r.template, "error", err)
		p = problem.New(http.StatusInternalServerError, codeInternal,
			"this is a fault of the server: its log says more")
	}
	maps.Copy(header, p.Header())
	return &answer{status: p.Status, contentType: problem.ContentType, body: p.Body()}
}

// statusGone is the status in metrics of a request whose client left.
const statusGone = 499

// writeHead writes status and headers.
func (s *Server) writeHead(w http.ResponseWriter, c *call, a *answer) {
	h := w.Header()
	maps.Copy(h, a.header)
	h.Set("Cache-Control", "no-cache")
	if c.noStore || a.status >= http.StatusBadRequest {
		h.Set("Cache-Control", "no-store")
	}
	if c.lagKnown {
		h.Set(headerLag, seconds(c.lag))
	}
	if c.asOf != nil {
		h.Set(headerAsOf, c.asOf.Text())
	}
	if a.etag != "" {
		h.Set("ETag", a.etag)
	}
	if a.partitions != nil {
		h.Set(headerPartitions, strings.Trim(strings.ReplaceAll(fmt.Sprint(a.partitions), " ", ","), "[]"))
	}
	if a.status != http.StatusNotModified && a.status != http.StatusNoContent {
		if a.contentType == "" {
			a.contentType = jsonType
		}
		h.Set("Content-Type", a.contentType)
		h.Set("X-Content-Type-Options", "nosniff")
		if a.stream == nil {
			h.Set("Content-Length", strconv.Itoa(len(a.body)))
		}
	}
	w.WriteHeader(a.status)
}

// partition returns the partition of a workspace's records.
func (s *Server) partition(workspace string) int32 {
	return kafka.Partition(workspace, s.conf.Streams.Events.Partitions)
}

package deadletters

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/problem"
)

// A Handler serves the dead letters over HTTP: under /dlq on a private address, and as QueryAPI.
//
//	GET    /dlq             entries by reason; with ?each=true one by one, in pages of limit
//	GET    /dlq/{entry}     one entry, with its record
//	POST   /dlq/replay      a dry run unless the body says "dry_run": false
//	POST   /dlq/drop        the same
//	POST   /dlq/jobs        the same without waiting for the end; answers 202 with Location
//	GET    /dlq/jobs        the last jobs
//	GET    /dlq/jobs/{job}  one job, with its results
//	DELETE /dlq/jobs/{job}  cancels it
type Handler struct {
	queue  *Queue
	record func(*kgo.Record) any
	log    *slog.Logger
	router http.Handler
	calls  chan struct{} // limits the calls in progress: each reads the whole topic and keeps its entries
	jobs   *jobs
}

const maxCalls = 4

// The codes of problems. Clients branch on them, so they do not change.
const (
	codeBadField   = "bad_field"
	codeBadCursor  = "bad_cursor"
	codeNotFound   = "not_found"
	codeMethod     = "method_not_allowed"
	codeMediaType  = "unsupported_media_type"
	codeBodyLarge  = "body_too_large"
	codeJobRunning = "job_running"
	codeUnknownJob = "unknown_job"
	codeBusy       = "busy"
	codeStopping   = "stopping"
	codeNoBrokers  = "brokers_away"
	codeInternal   = "internal"
)

// NewHandler returns the handler. record converts a record to what is encoded as JSON.
func NewHandler(queue *Queue, record func(*kgo.Record) any, log *slog.Logger) *Handler {
	h := &Handler{
		queue: queue, record: record, log: log, calls: make(chan struct{}, maxCalls), jobs: newJobs(queue, log),
	}
	h.router = h.routes("/dlq",
		endpoint{"/replay", map[string]call{http.MethodPost: h.bounded(h.replay)}},
		endpoint{"/drop", map[string]call{http.MethodPost: h.bounded(h.drop)}})
	return h
}

// Run lets jobs be started until ctx ends, and ends them.
func (h *Handler) Run(ctx context.Context) error { return h.jobs.run(ctx) }

// ServeHTTP answers one request on a private address.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.router.ServeHTTP(w, r) }

// QueryAPI returns the handler for /v1/dlq. It has jobs, and no calls that replay and drop while their client waits.
func (h *Handler) QueryAPI() http.Handler { return h.routes("/v1/dlq") }

// A call answers one request. Its result is written as JSON, unless it is a *reply.
type call func(*http.Request) (any, error)

// A reply is an answer with another status than 200.
type reply struct {
	status   int
	location string
	body     any // nil: none
}

// An endpoint is one path with its methods. GET includes HEAD.
type endpoint struct {
	path    string
	methods map[string]call
}

// routes returns the router of the endpoints under a prefix. It cleans no paths: a redirect would leave the prefix.
func (h *Handler) routes(prefix string, more ...endpoint) http.Handler {
	post := func(r *http.Request) (any, error) { return h.startJob(r, prefix) }
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	for _, e := range append(more,
		endpoint{"", map[string]call{http.MethodGet: h.bounded(h.list)}},
		endpoint{"/jobs", map[string]call{http.MethodGet: h.listJobs, http.MethodPost: post}},
		endpoint{"/jobs/{job}", map[string]call{http.MethodGet: h.showJob, http.MethodDelete: h.cancelJob}},
		endpoint{"/{entry:.+}", map[string]call{http.MethodGet: h.bounded(h.show)}},
	) {
		var allow []string
		for _, method := range slices.Sorted(maps.Keys(e.methods)) {
			methods := []string{method}
			if method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
			allow = append(allow, methods...)
			router.Handle(prefix+e.path, h.answer(e.methods[method])).Methods(methods...)
		}
		router.Handle(prefix+e.path, h.answer(refuse(http.StatusMethodNotAllowed, codeMethod,
			"use "+strings.Join(allow, " or "), strings.Join(allow, ", "))))
	}
	router.NotFoundHandler = h.answer(refuse(http.StatusNotFound, codeNotFound, "there is no such path", ""))
	return router
}

// refuse returns a call that answers a problem.
func refuse(status int, code, detail, allow string) call {
	return func(*http.Request) (any, error) {
		p := problem.New(status, code, detail)
		if allow != "" {
			p = p.With("Allow", allow)
		}
		return nil, p
	}
}

func bad(field, format string, args ...any) *problem.Problem {
	return problem.New(http.StatusBadRequest, codeBadField, fmt.Sprintf(format, args...)).On(field)
}

// answer writes all answers of the handler.
func (h *Handler) answer(call call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		body, err := call(r)
		if err != nil {
			h.problemOf(r, err).Partial(body).Write(w)
			return
		}
		status := http.StatusOK
		if given, ok := body.(*reply); ok {
			if status, body = given.status, given.body; given.location != "" {
				w.Header().Set("Location", given.location)
			}
		}
		if body == nil {
			w.WriteHeader(status)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(body); err != nil {
			h.log.DebugContext(r.Context(), "a client closed its connection before its answer", "error", err)
		}
	}
}

// bounded limits how many of the calls are in progress.
func (h *Handler) bounded(next call) call {
	return func(r *http.Request) (any, error) {
		select {
		case h.calls <- struct{}{}:
			defer func() { <-h.calls }()
			return next(r)
		default:
			return nil, unavailable(codeBusy,
				fmt.Sprintf("%d requests about the dead letters are in progress: retry later", maxCalls))
		}
	}
}

func unavailable(code, detail string) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, code, detail).Retry(2 * time.Second)
}

func stopping() *problem.Problem {
	return unavailable(codeStopping, "the process is starting or stopping: try another")
}

func (h *Handler) problemOf(r *http.Request, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, ErrNoEntry):
		return problem.New(http.StatusNotFound, codeNotFound, err.Error())
	case errors.Is(err, errBadCursor):
		return problem.New(http.StatusBadRequest, codeBadCursor, err.Error()).On("cursor")
	case r.Context().Err() != nil: // the client has left, or the server ends its requests
		return stopping()
	case kafka.Unreachable(err):
		return unavailable(codeNoBrokers, err.Error())
	}
	h.log.ErrorContext(r.Context(), "a request about the dead letters failed", "path", r.URL.Path, "error", err)
	return problem.New(http.StatusInternalServerError, codeInternal, err.Error())
}

func (h *Handler) list(r *http.Request) (any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("", "the query string cannot be read: %v", err)
	}
	var ask request
	each, limit, cursor := false, 100, ""
	for name, values := range query {
		value := values[len(values)-1]
		switch name {
		case "reason":
			ask.Reasons = values
		case "sink":
			ask.Sinks = values
		case "entry":
			ask.Entries = values
		case "workspace_id":
			ask.WorkspaceID = &value
		case "event_id":
			ask.EventID = &value
		case "since":
			ask.Since = &value
		case "each":
			each, err = parseBool(value)
		case "resolved":
			ask.all, err = parseBool(value)
		case "cursor":
			cursor = value
		case "limit":
			if limit, err = strconv.Atoi(value); err == nil && (limit < 1 || limit > 1000) {
				err = errors.New("want 1 to 1000")
			}
		default:
			return nil, bad(name, "there is no parameter %q", name)
		}
		if err != nil {
			return nil, bad(name, "%s=%q: %v", name, value, err)
		}
	}
	for _, name := range []string{"limit", "cursor"} {
		if query.Has(name) && !each {
			return nil, bad(name, "%s needs each=true: reasons are not paged", name)
		}
	}
	filter, err := ask.filter(h.queue.Events())
	if err != nil {
		return nil, err
	}
	if !each {
		entries, err := h.queue.Entries(r.Context(), filter)
		if err != nil {
			return nil, err
		}
		return map[string]any{"entries": len(entries), "reasons": Groups(entries)}, nil
	}
	page, err := h.queue.page(r.Context(), filter, cursor, limit)
	if err != nil {
		return nil, err // not page: a nil pointer would be encoded as a result
	}
	return page, nil
}

func parseBool(text string) (bool, error) {
	if text != "true" && text != "false" {
		return false, errors.New("want true or false")
	}
	return text == "true", nil
}

func (h *Handler) show(r *http.Request) (any, error) {
	id, err := url.PathUnescape(mux.Vars(r)["entry"])
	if err != nil {
		return nil, bad("entry", "%v", err)
	}
	source, err := ParseSource(id, h.queue.Events())
	if err != nil {
		return nil, bad("entry", "%v", err)
	}
	entry, record, err := h.queue.Find(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return map[string]any{"entry": entry, "record": h.record(record)}, nil
}

func (h *Handler) replay(r *http.Request) (any, error) {
	var q request
	if err := read(r, &q); err != nil {
		return nil, err
	}
	filter, options, err := q.selection(actionReplay, h.queue.Events())
	if err != nil {
		return nil, err
	}
	return h.result(h.queue.Replay(r.Context(), filter, options))
}

func (h *Handler) drop(r *http.Request) (any, error) {
	var q request
	if err := read(r, &q); err != nil {
		return nil, err
	}
	filter, options, err := q.selection(actionDrop, h.queue.Events())
	if err != nil {
		return nil, err
	}
	return h.result(h.queue.Drop(r.Context(), filter, options))
}

func (h *Handler) result(result *Result, err error) (any, error) {
	if result == nil {
		return nil, err
	}
	return result, errors.Join(err, result.Err())
}

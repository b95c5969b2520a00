package deadletters

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	strict "github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/problem"
)

// A Handler serves the dead letters over HTTP, on a private address:
//
//	GET  /dlq           entries by reason; with ?each=true one by one, in pages of limit
//	GET  /dlq/{entry}   one entry, with its record
//	POST /dlq/replay    a dry run unless the body says "dry_run": false
//	POST /dlq/drop      the same
type Handler struct {
	queue  *Queue
	record func(*kgo.Record) any
	log    *slog.Logger
	mux    *http.ServeMux
	calls  chan struct{} // limits the calls in progress: each reads the whole topic and keeps its entries
}

const maxCalls = 4

// NewHandler returns the handler. record converts a record to what is encoded as JSON.
func NewHandler(queue *Queue, record func(*kgo.Record) any, log *slog.Logger) *Handler {
	h := &Handler{queue: queue, record: record, log: log, mux: http.NewServeMux(), calls: make(chan struct{}, maxCalls)}
	h.mux.HandleFunc("GET /dlq", h.answer(h.list))
	h.mux.HandleFunc("GET /dlq/{entry...}", h.answer(h.show))
	h.mux.HandleFunc("POST /dlq/replay", h.answer(h.replay))
	h.mux.HandleFunc("POST /dlq/drop", h.answer(h.drop))
	h.mux.HandleFunc("GET /dlq/replay", h.answer(notAllowed)) // else they would match {entry...}
	h.mux.HandleFunc("GET /dlq/drop", h.answer(notAllowed))
	h.mux.HandleFunc("/", h.answer(notAllowed))
	return h
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func bad(field, format string, args ...any) *problem.Problem {
	return problem.New(http.StatusBadRequest, "bad_field", fmt.Sprintf(format, args...)).On(field)
}

func notAllowed(r *http.Request) (any, error) {
	allow := "GET, HEAD"
	if r.URL.Path == "/dlq/replay" || r.URL.Path == "/dlq/drop" {
		allow = "POST"
	}
	return nil, problem.New(http.StatusMethodNotAllowed, "method_not_allowed",
		"want GET /dlq, GET /dlq/P:OFFSET, POST /dlq/replay or POST /dlq/drop").With("Allow", allow)
}

// answer writes all answers of the handler.
func (h *Handler) answer(call func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		body, err := h.bounded(call, r)
		if err != nil {
			h.problemOf(r, err).Partial(body).Write(w)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(body); err != nil {
			h.log.DebugContext(r.Context(), "a client closed its connection before its answer", "error", err)
		}
	}
}

func (h *Handler) bounded(call func(*http.Request) (any, error), r *http.Request) (any, error) {
	select {
	case h.calls <- struct{}{}:
		defer func() { <-h.calls }()
		return call(r)
	default:
		return nil, unavailable("busy",
			fmt.Sprintf("%d requests about the dead letters are in progress: retry later", maxCalls))
	}
}

func unavailable(code, detail string) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, code, detail).Retry(2 * time.Second)
}

func (h *Handler) problemOf(r *http.Request, err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok {
		return p
	}
	switch {
	case errors.Is(err, ErrNoEntry):
		return problem.New(http.StatusNotFound, "not_found", err.Error())
	case errors.Is(err, errBadCursor):
		return problem.New(http.StatusBadRequest, "bad_cursor", err.Error()).On("cursor")
	case kafka.Unreachable(err):
		return unavailable("brokers_away", err.Error())
	}
	h.log.ErrorContext(r.Context(), "a request about the dead letters failed", "path", r.URL.Path, "error", err)
	return problem.New(http.StatusInternalServerError, "internal", err.Error())
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
			each, err = strconv.ParseBool(value)
		case "resolved":
			ask.all, err = strconv.ParseBool(value)
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

func (h *Handler) show(r *http.Request) (any, error) {
	source, err := ParseSource(r.PathValue("entry"), h.queue.Events())
	if err != nil {
		return nil, bad("entry", "%v", err)
	}
	entry, record, err := h.queue.Find(r.Context(), source)
	if err != nil {
		return nil, err
	}
	return map[string]any{"entry": entry, "record": h.record(record)}, nil
}

// A request is the body of a POST.
type request struct {
	Reasons     []string `json:"reasons"`
	Sinks       []string `json:"sinks"`
	WorkspaceID *string  `json:"workspace_id"`
	EventID     *string  `json:"event_id"`
	Entries     []string `json:"entries"`
	Since       *string  `json:"since"`
	DryRun      *bool    `json:"dry_run"` // absent is true
	Rate        float64  `json:"rate"`    // replay only
	Force       bool     `json:"force"`   // replay only

	all bool
}

func (q *request) filter(events string) (Filter, error) {
	f := Filter{Reasons: q.Reasons, Sinks: q.Sinks, All: q.all}
	for _, list := range []struct {
		name   string
		values []string
	}{{"reasons", q.Reasons}, {"sinks", q.Sinks}, {"entries", q.Entries}} {
		if list.values != nil && (len(list.values) == 0 || slices.Contains(list.values, "")) {
			return f, empty(list.name)
		}
	}
	since := ""
	for _, text := range []struct {
		name  string
		value *string
		to    *string
	}{{"workspace_id", q.WorkspaceID, &f.WorkspaceID}, {"event_id", q.EventID, &f.EventID}, {
		"since", q.Since,
		&since,
	}} {
		switch {
		case text.value == nil:
		case *text.value == "":
			return f, empty(text.name)
		default:
			*text.to = *text.value
		}
	}
	for _, text := range q.Entries {
		source, err := ParseSource(text, events)
		if err != nil {
			return f, bad("entries", "%v", err)
		}
		f.Sources = append(f.Sources, source)
	}
	if since != "" {
		at, err := time.Parse(time.RFC3339, since)
		if err != nil {
			return f, bad("since", "since %q: want a time like 2026-11-24T12:00:00Z", since)
		}
		f.Since = at
	}
	return f, nil
}

// empty refuses an empty selector: a client's empty list must not select everything.
func empty(name string) *problem.Problem {
	return bad(name, "%s is empty: leave it out to mean all", name)
}

const maxRequest = 1 << 20

// read reads the body of a POST. Its Content-Type must be JSON: a foreign page in a browser cannot send that without a
// preflight.
func (h *Handler) read(r *http.Request) (q request, f Filter, err error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return q, f, problem.New(http.StatusUnsupportedMediaType, "unsupported_media_type",
			"send JSON with Content-Type: application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return q, f, problem.New(http.StatusRequestEntityTooLarge, "body_too_large",
			fmt.Sprintf("the body has more than %d bytes", maxRequest))
	}
	if err != nil {
		return q, f, bad("", "the body cannot be read: %v", err)
	}
	// Strict: with a member in another case, or twice, it is not clear what the client wants.
	if err := strict.Unmarshal(body, &q, strict.RejectUnknownMembers(true)); err != nil {
		return q, f, bad("", "the body is not a request: %v", err)
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(body, &given); err != nil {
		return q, f, bad("", "the body is not a request: %v", err)
	}
	if given == nil {
		return q, f, bad("", "the body is null: want an object, {} for all")
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if string(given[name]) == "null" { // some clients encode an empty list so
			return q, f, bad(name, "%s is null: leave it out", name)
		}
	}
	if q.Rate < 0 {
		return q, f, bad("rate", "rate %v: want records a second, 0 for no limit", q.Rate)
	}
	f, err = q.filter(h.queue.Events())
	return q, f, err
}

func (q *request) options() Options {
	return Options{Yes: q.DryRun != nil && !*q.DryRun, Rate: q.Rate, Force: q.Force}
}

func (h *Handler) replay(r *http.Request) (any, error) {
	q, filter, err := h.read(r)
	if err != nil {
		return nil, err
	}
	return h.result(h.queue.Replay(r.Context(), filter, q.options()))
}

func (h *Handler) drop(r *http.Request) (any, error) {
	q, filter, err := h.read(r)
	if err != nil {
		return nil, err
	}
	if q.Rate != 0 || q.Force {
		return nil, bad("rate", "rate and force are options of a replay")
	}
	return h.result(h.queue.Drop(r.Context(), filter, q.options()))
}

func (h *Handler) result(result *Result, err error) (any, error) {
	if result == nil {
		return nil, err
	}
	return result, errors.Join(err, result.Err())
}

package deadletters

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"time"

	strict "github.com/go-json-experiment/json"

	"tidemark/problem"
)

// The selectors of a request, as they were posted.
type selectors struct {
	Reasons     []string `json:"reasons,omitempty"`
	Sinks       []string `json:"sinks,omitempty"`
	WorkspaceID *string  `json:"workspace_id,omitempty"`
	EventID     *string  `json:"event_id,omitempty"`
	Entries     []string `json:"entries,omitempty"`
	Since       *string  `json:"since,omitempty"`
}

// A request is the body of a POST.
type request struct {
	selectors
	DryRun *bool   `json:"dry_run"` // absent is true
	Rate   float64 `json:"rate"`    // replay only
	Force  bool    `json:"force"`   // replay only

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

// read decodes the body of a POST into q, a pointer to a struct. Its Content-Type must be JSON: a foreign page in a
// browser cannot send that without a preflight.
func read(r *http.Request, q any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problem.New(http.StatusUnsupportedMediaType, codeMediaType,
			"send JSON with Content-Type: application/json")
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxRequest))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return problem.New(http.StatusRequestEntityTooLarge, codeBodyLarge,
			fmt.Sprintf("the body has more than %d bytes", maxRequest))
	}
	if err != nil {
		return bad("", "the body cannot be read: %v", err)
	}
	// Strict: with a member in another case, or twice, it is not clear what the client wants.
	if err := strict.Unmarshal(body, q, strict.RejectUnknownMembers(true)); err != nil {
		return bad("", "the body is not a request: %v", err)
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(body, &given); err != nil {
		return bad("", "the body is not a request: %v", err)
	}
	if given == nil {
		return bad("", "the body is null: want an object, {} for all")
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if string(given[name]) == "null" { // some clients encode an empty list so
			return bad(name, "%s is null: leave it out", name)
		}
	}
	return nil
}

// selection returns what a request selects, and how.
func (q *request) selection(action, events string) (f Filter, o Options, err error) {
	switch {
	case q.Rate < 0:
		return f, o, bad("rate", "rate %v: want records a second, 0 for no limit", q.Rate)
	case action == actionDrop && (q.Rate != 0 || q.Force):
		return f, o, bad("rate", "rate and force are options of a replay")
	}
	f, err = q.filter(events)
	return f, Options{Yes: q.DryRun != nil && !*q.DryRun, Rate: q.Rate, Force: q.Force}, err
}

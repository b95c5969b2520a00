// Package problem writes HTTP errors in the form of RFC 9457, "Problem Details for HTTP APIs".
//
// Every answer that is an error is one JSON object with type, title, status, detail and code. It may also have the
// field or header at fault, what the request did before it failed, and where a client gets a new cursor. Clients branch
// on the code, so codes do not change. The package decides no status and logs nothing.
package problem

import (
	"bytes"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"strconv"
	"time"
)

// ContentType is the media type of a problem.
const ContentType = "application/problem+json"

// A Problem is one HTTP error. It is an error, so handlers may return it as one.
type Problem struct {
	Type   string `json:"type"` // always about:blank: the code says more than a URL could
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`            // one of a fixed set of words, also usable as a metric label
	Field  string `json:"field,omitempty"` // parameter, header or JSON field at fault
	Result any    `json:"result,omitempty"`
	// ResyncURLs are where a client whose cursor has expired gets a new one.
	ResyncURLs map[string]string `json:"resync,omitempty"`

	header http.Header
}

// New returns a problem. The detail says what the client can do about it.
func New(status int, code, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

// On names the parameter, header or JSON field at fault.
func (p *Problem) On(field string) *Problem {
	p.Field = field
	return p
}

// With sets a header of the answer.
func (p *Problem) With(name, value string) *Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// Retry sets Retry-After, rounded up to whole seconds and at least one.
func (p *Problem) Retry(after time.Duration) *Problem {
	return p.With("Retry-After", strconv.Itoa(max(1, int(math.Ceil(after.Seconds())))))
}

// Partial adds what a request did before it failed.
func (p *Problem) Partial(result any) *Problem {
	p.Result = result
	return p
}

// Resync adds the URLs at which a client gets a new cursor.
func (p *Problem) Resync(urls map[string]string) *Problem {
	p.ResyncURLs = urls
	return p
}

// Header returns the headers that With and Retry have set.
func (p *Problem) Header() http.Header { return p.header }

// Error returns the status, code and detail.
func (p *Problem) Error() string { return strconv.Itoa(p.Status) + " " + p.Code + ": " + p.Detail }

// Body returns the problem as JSON, with a line feed.
func (p *Problem) Body() []byte {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(p); err != nil { // only a Result can fail to encode
		body.Reset()
		p.Detail += " (its result cannot be shown: " + err.Error() + ")"
		_ = encoder.Encode(p.Partial(nil)) // strings and a number
	}
	return body.Bytes()
}

// Write writes the whole answer, which nobody may keep. Other headers that are set on w before stay.
func (p *Problem) Write(w http.ResponseWriter) {
	body := p.Body()
	h := w.Header()
	maps.Copy(h, p.header)
	h.Set("Content-Type", ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	w.Write(body)
}

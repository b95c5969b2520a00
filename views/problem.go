package views

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// The codes of problems. Clients branch on them, so they do not change.
const (
	codeBadField         = "bad_field"
	codeBadCursor        = "bad_cursor"
	codeUnknownWorkspace = "unknown_workspace"
	codeUnknownFile      = "unknown_file"
	codeUnknownPath      = "unknown_path"
	codeMethod           = "method_not_allowed"
	codeRecovering       = "recovering"
	codeStale            = "stale"
	codeNotReached       = "position_not_reached"
	codeInternal         = "internal"
)

// A problem is an error as a client is told it, in the form of RFC 9457.
type problem struct {
	status     int
	code       string
	field      string // the parameter at fault, if one is
	detail     string // what to do
	retryAfter int    // seconds; 0: not told
}

func (p *problem) Error() string { return fmt.Sprintf("%d %s: %s", p.status, p.code, p.detail) }

// body returns the problem as JSON.
func (p *problem) body() []byte {
	b, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Field  string `json:"field,omitempty"`
	}{"about:blank", http.StatusText(p.status), p.status, p.detail, p.code, p.field})
	if err != nil {
		panic(err) // strings and a number can always be encoded
	}
	return b
}

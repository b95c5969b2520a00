package ingress

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// A problem is one refusal: the answer's body (RFC 9457) and the headers that go with it. Its code is also the label that
// the refusal is counted under, so codes are a fixed set of words.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"`

	header     [2]string     // one further header of the answer
	retryAfter time.Duration // of a 429 or 503
}

// refuse makes a problem. The detail says what the sender can do about it and never repeats what was sent.
func refuse(status int, code, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code, Detail: detail}
}

func (p *problem) on(field string) *problem {
	p.Field = field
	return p
}

func (p *problem) with(name, value string) *problem {
	p.header = [2]string{name, value}
	return p
}

func (p *problem) retry(after time.Duration) *problem {
	p.retryAfter = after
	return p
}

func (p *problem) write(w http.ResponseWriter, log *slog.Logger) {
	body, err := json.Marshal(p)
	if err != nil { // strings and an int: cannot fail, and must not turn into an empty answer if it does
		log.Error("encode a problem", "code", p.Code, "error", err)
		http.Error(w, p.Code, p.Status)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	if p.header[0] != "" {
		h.Set(p.header[0], p.header[1])
	}
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(wholeSeconds(p.retryAfter)))
	}
	w.WriteHeader(p.Status)
	w.Write(append(body, '\n'))
}

package notify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"tidemark/sinks"
)

// A Sender sends messages to one destination. It does not retry.
type Sender interface {
	// Send returns nil when the destination has accepted the message. A *sinks.Rejected says that it never will, a
	// *sinks.Later when to try again.
	Send(ctx context.Context, m *Message) error
	// Check finds wrong settings, as far as that is possible without a message.
	Check(ctx context.Context) error
}

// refused is the error of a destination that works and has refused this message.
type refused struct {
	error
	content bool // because of its content
}

func (r *refused) Unwrap() error { return r.error }

var errGone = errors.New("the endpoint answered 410 Gone: it wants no more messages")

const (
	sendTimeout = 20 * time.Second // Standard Webhooks asks for 15 to 30 s
	maxAnswer   = 64 << 10         // bytes that are read of an answer
	maxPause    = 24 * time.Hour   // the longest Retry-After that is honoured
)

// An answer is what an HTTP destination answered. Of a body that is cut or slow it has what came in time: the status
// counts.
type answer struct {
	status int
	body   []byte
	pause  time.Duration // Retry-After
}

// failed returns an error with the answer's text, and the pause if it has one.
func (a answer) failed(who string) error {
	text := strings.ToValidUTF8(string(a.body[:min(len(a.body), 500)]), "")
	err := fmt.Errorf("%s answered %d %s: %q", who, a.status, http.StatusText(a.status), text)
	if a.pause > 0 {
		return &sinks.Later{Pause: a.pause, Err: err}
	}
	return err
}

// post sends JSON. Errors do not name the URL, which may have a secret.
func post(ctx context.Context, client *http.Client, to *url.URL, body []byte, headers ...string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, errors.New("the URL cannot be used")
	}
	for i, name := range headers {
		if i%2 == 0 {
			request.Header.Set(name, headers[i+1])
		}
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("User-Agent", "tidemark")
	response, err := client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return answer{}, failed.Err
	} else if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // see answer
	return answer{response.StatusCode, text, retryAfter(response.Header.Get("Retry-After"), time.Now())}, nil
}

// retryAfter reads both forms of the header. One that cannot be read is 0.
func retryAfter(value string, now time.Time) (pause time.Duration) {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		pause = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		pause = at.Sub(now)
	}
	return min(max(pause, 0), maxPause)
}

// hashOf returns an id for destinations. An op id may be long and have any character.
func hashOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tidemark/views"
)

// apiFlags are the settings of clients of the query API.
type apiFlags struct {
	APIURL    string `help:"URL of the query API." name:"api-url" default:"http://127.0.0.1:8080" placeholder:"URL" address:"url"`
	TokenFile string `help:"File with the token for the query API; or set TIDEMARK_TOKEN." placeholder:"FILE"`
}

const tokenVariable = "TIDEMARK_TOKEN"

// readFlags are the settings of queries.
type readFlags struct {
	apiFlags
	AtLeast string        `help:"Wait until the answer includes the event at this position, which send prints." placeholder:"P:OFFSET" env:"-"`
	Wait    time.Duration `help:"Longest wait for --at-least." default:"5s" placeholder:"TIME" env:"-"`
}

// values returns the query parameters.
func (f readFlags) values() url.Values {
	if f.AtLeast == "" {
		return url.Values{}
	}
	return atLeast(f.AtLeast, f.Wait)
}

func atLeast(position string, wait time.Duration) url.Values {
	return url.Values{"at_least": {position}, "wait": {fmt.Sprintf("%dms", wait.Milliseconds())}}
}

// query requests a path of the API. Each segment is escaped.
func (f apiFlags) query(ctx context.Context, values url.Values, segments ...string) ([]byte, error) {
	path := make([]string, len(segments))
	for i, s := range segments {
		path[i] = escapeSegment(s)
	}
	address := strings.TrimRight(f.APIURL, "/") + "/v1/" + strings.Join(path, "/")
	if len(values) > 0 {
		address += "?" + values.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, views.MaxWait+15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, usagef("--api-url: %w", err)
	}
	token, err := secret(tokenVariable, "--token-file", f.TokenFile)
	if err != nil {
		return nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(token))
	}
	return do(request)
}

// escapeSegment escapes an id, also "." and "..", which would change the path.
func escapeSegment(s string) string {
	if s == "." || s == ".." {
		return strings.ReplaceAll(s, ".", "%2E")
	}
	return url.PathEscape(s)
}

// maxAnswer is the longest answer that is read: larger than a page of 1,000 files with the longest fields.
const maxAnswer = 64 << 20

// do sends the request and returns the body of a 200. Any other answer is an error.
func do(request *http.Request) (body []byte, err error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if broken, ok := errors.AsType[*url.Error](err); ok {
			err = broken.Err // the URL is added below
		}
		return nil, &unavailableError{fmt.Errorf("%s %s: %w", request.Method, request.URL.Redacted(), err)}
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, &unavailableError{fmt.Errorf("read the answer of %s: %w", request.URL.Redacted(), err)}
	}
	if response.StatusCode != http.StatusOK {
		err = refusal(response, body)
		if response.StatusCode == http.StatusServiceUnavailable {
			err = &unavailableError{err}
		}
		return nil, err
	}
	return body, nil
}

// An unavailableError is one after which the same request may succeed: no connection, or 503.
type unavailableError struct{ error }

func (e *unavailableError) Unwrap() error { return e.error }

// refusal returns the error of an answer: its problem document, or the beginning of its body.
func refusal(response *http.Response, body []byte) error {
	var problem struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Field  string `json:"field"`
	}
	if err := json.Unmarshal(body, &problem); err != nil || problem.Title == "" {
		return fmt.Errorf("%s: %s", response.Status, cell(strings.TrimSpace(string(body[:min(len(body), 500)]))))
	}
	parts := []string{response.Status}
	for _, part := range []string{problem.Code, problem.Field} {
		if part != "" {
			parts = append(parts, cell(part))
		}
	}
	if problem.Detail == "" {
		problem.Detail = problem.Title
	}
	text := strings.Join(parts, ", ") + ": " + cell(problem.Detail)
	if response.StatusCode == http.StatusUnauthorized {
		text += " (set " + tokenVariable + " or --token-file)"
	}
	if after := response.Header.Get("Retry-After"); after != "" {
		text += " (try again in " + cell(after) + " s)"
	}
	return errors.New(text)
}

package ingress

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"tidemark/problem"
)

// maxBody is the largest webhook body taken.
const maxBody = 512 << 10

// freeBody is the largest body that is read without the semaphore for large ones. So large bodies, sent slowly by a
// client without a secret, cannot keep ordinary events out.
const freeBody = 16 << 10

// readBody reads the whole body. Content-Length only serves to refuse early: the body is measured as it is read, and
// memory is allocated as it arrives. The caller calls release when it is done with the body.
func readBody(w http.ResponseWriter, r *http.Request, large *semaphore) (body []byte, release func(),
	p *problem.Problem,
) {
	release = func() {}
	if r.ContentLength > maxBody {
		return nil, release, tooLarge()
	}
	if r.ContentLength > freeBody && large.full(maxBody) {
		return nil, release, crowded()
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody) // also makes the server close the connection if more is sent
	body = make([]byte, 0, min(max(r.ContentLength+1, 512), freeBody))
	acquired := false
	for {
		if len(body) == cap(body) {
			if len(body) >= freeBody && !acquired {
				if err := large.acquire(maxBody); err != nil {
					return nil, release, crowded()
				}
				acquired, release = true, func() { large.release(maxBody) }
			}
			body = slices.Grow(body, min(len(body), maxBody))
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, release, nil
		}
		if err != nil {
			return nil, release, unread(err)
		}
	}
}

func crowded() *problem.Problem {
	return busy("too many large bodies are being read: send it again after Retry-After")
}

func unread(err error) *problem.Problem {
	var tooBig *http.MaxBytesError
	var timeout net.Error
	switch {
	case errors.As(err, &tooBig):
		return tooLarge()
	case errors.As(err, &timeout) && timeout.Timeout():
		return problem.New(http.StatusRequestTimeout, "body_timeout",
			"the body did not arrive in time: send it in one go")
	}
	return problem.New(http.StatusBadRequest, "body_incomplete",
		"the body ended before its announced length: send all of it")
}

func tooLarge() *problem.Problem {
	return problem.New(http.StatusRequestEntityTooLarge, "body_too_large",
		"the body is over "+strconv.Itoa(maxBody)+" bytes: send one event a request, without file contents")
}

// identity reports whether the body has no content coding. A compressed one would be signed in one form and stored in
// another.
func identity(h http.Header) bool {
	for _, value := range h["Content-Encoding"] {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				return false
			}
		}
	}
	return true
}

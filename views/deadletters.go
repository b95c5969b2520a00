package views

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"time"

	"tidemark/problem"
)

var (
	readAndPost   = []string{http.MethodGet, http.MethodHead, http.MethodPost}
	readAndDelete = []string{http.MethodGet, http.MethodHead, http.MethodDelete}
)

var deadLetterParameters = []string{
	"each", "reason", "sink", "entry", "workspace_id", "event_id", "since", "resolved", "limit", "cursor",
}

// listParameters may be given more than once: any of the values may match.
var listParameters = []string{"reason", "sink", "entry"}

// deadLetters answers with what the handler of the configuration answers. Every instance answers by itself: dead
// letters belong to no partition of the tables.
func (s *Server) deadLetters(c *call) (*answer, error) {
	c.noStore = true
	if s.conf.DeadLetters == nil {
		return nil, problem.New(http.StatusNotImplemented, codeNoDeadLetters,
			"this server does not serve dead letters: start it with --dead-letters, or ask another one")
	}
	ctx, cancel := context.WithCancel(c.request.Context())
	defer cancel()
	defer context.AfterFunc(s.running, cancel)()
	kept := &keptAnswer{header: http.Header{}, status: http.StatusOK}
	s.conf.DeadLetters.ServeHTTP(kept, c.request.WithContext(ctx))
	_ = c.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not supported by the writers of tests
	a := &answer{status: kept.status, contentType: kept.header.Get("Content-Type"), body: kept.body.Bytes()}
	a.header = maps.Clone(kept.header)
	for _, name := range []string{"Content-Type", "Content-Length", "Cache-Control"} { // of writeHead
		a.header.Del(name)
	}
	return a, nil
}

// A keptAnswer keeps what a handler writes.
type keptAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *keptAnswer) Header() http.Header                { return k.header }
func (k *keptAnswer) WriteHeader(status int)             { k.status = status }
func (k *keptAnswer) Write(part []byte) (n int, _ error) { return k.body.Write(part) }

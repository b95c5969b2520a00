package views

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/klauspost/compress/gzip"
)

// streamWriteTimeout is how long a client of a stream may take to accept a write; then its connection is closed. It is
// shorter than the time that a process leaves its requests when it stops.
const streamWriteTimeout = 10 * time.Second

// heartbeatInterval is the time between two heartbeats of a stream.
const heartbeatInterval = 15 * time.Second

// A stream is the body of an answer that is sent in parts. Its context ends when the client leaves or the server stops,
// and the function that writes it returns then.
type stream struct {
	context.Context
	w      http.ResponseWriter
	form   form
	zip    *gzip.Writer // nil: not compressed
	failed bool         // a write: the client has left, or is too slow
}

// Write buffers a part; the stream is not usable after an error.
func (s *stream) Write(b []byte) (int, error) {
	if err := s.Err(); err != nil {
		return 0, err
	}
	setWriteDeadline(s.w, streamWriteTimeout)
	sent, to := b, io.Writer(s.w)
	if s.form.sizesAsText {
		sent = sizesAsText(b)
	}
	if s.zip != nil {
		to = s.zip
	}
	if _, err := to.Write(sent); err != nil {
		s.failed = true
		return 0, err
	}
	return len(b), nil
}

// close ends the compressed data.
func (s *stream) close() error {
	if s.zip == nil {
		return nil
	}
	setWriteDeadline(s.w, streamWriteTimeout)
	err := s.zip.Close()
	s.failed = s.failed || err != nil
	return err
}

// Flush sends what is buffered.
func (s *stream) Flush() error {
	if err := s.Err(); err != nil {
		return err
	}
	setWriteDeadline(s.w, streamWriteTimeout)
	var err error
	if s.zip != nil {
		err = s.zip.Flush()
	}
	if err == nil {
		err = http.NewResponseController(s.w).Flush()
	}
	s.failed = s.failed || err != nil
	return err
}

// stream sends the headers and runs the answer's stream, which also ends with the term. A stream of events may end at
// any time, any other one has a whole body: if its context ends before, that is an error. A failed write is none.
func (*Server) stream(term context.Context, w http.ResponseWriter, request *http.Request, a *answer) error {
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	defer context.AfterFunc(term, cancel)()
	out := &stream{Context: ctx, w: w, form: a.form}
	err := out.Flush() // of the headers
	if a.form.gzip {
		out.zip = newZip(w)
		defer zips.Put(out.zip)
	}
	if err == nil {
		err = a.stream(out)
	}
	if err == nil {
		err = out.close()
	}
	switch {
	case out.failed || ctx.Err() != nil && a.contentType == eventsType:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return err
}

// mount lets a handler write the whole answer, until its client leaves or the server stops. It returns the status.
func (s *Server) mount(w http.ResponseWriter, request *http.Request, handler http.Handler) (status int) {
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	defer context.AfterFunc(s.running, cancel)()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // not supported by the writers of tests
	m := &mountedWriter{ResponseWriter: w, status: http.StatusOK}
	handler.ServeHTTP(m, request.WithContext(ctx))
	return m.status
}

// A mountedWriter keeps the status for the metrics.
type mountedWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap lets a handler take over the connection.
func (w *mountedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *mountedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

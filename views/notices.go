package views

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"time"

	"tidemark/problem"
)

// getNotices leaves the answer to the handler of the configuration. HEAD has the headers of an event stream.
func (s *Server) getNotices(c *call) (*answer, error) {
	if s.conf.Notices == nil {
		return nil, problem.New(http.StatusNotImplemented, codeNoNotices,
			"this server has no live notices: `tidemark serve` and `tidemark dev` have them")
	}
	return &answer{contentType: "text/event-stream", handler: s.conf.Notices(c.workspace)}, nil
}

// mount lets a handler write the answer, until its client leaves or the server stops. It returns the answer's status.
func (s *Server) mount(w http.ResponseWriter, request *http.Request, handler http.Handler) (status int) {
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	defer context.AfterFunc(s.running, cancel)()
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // not supported by the writers of tests
	w.Header().Set("Cache-Control", "no-cache")
	m := &mountedWriter{ResponseWriter: w, status: http.StatusOK}
	handler.ServeHTTP(m, request.WithContext(ctx))
	return m.status
}

// A mountedWriter keeps the status for the metrics.
type mountedWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController flush, and set deadlines.
func (w *mountedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *mountedWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Hijack implements http.Hijacker, for WebSocket libraries that do not know Unwrap.
func (w *mountedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, buffered, err
}

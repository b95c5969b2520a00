package views

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"tidemark/problem"
)

// headerForwarded marks a request that another instance has passed on. It is never passed on again. A client may send
// it too: then it gets only what this instance holds.
const headerForwarded = "Tidemark-Forwarded"

// headerNotOwner is on the answer of an instance that does not hold the partition of a request that was passed on.
const headerNotOwner = "Tidemark-Not-Owner"

// The codes of what happens while a partition has no owner that answers.
const (
	codeNotOwner         = "not_owner"
	codeOwnerUnavailable = "owner_unavailable"
)

// liveNoticesRoute is answered by every instance: each follows the live notices of all partitions, so that a reader
// misses none when a partition moves.
const liveNoticesRoute = "/v1/workspaces/{workspace}/notices"

func notOwner() *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, codeNotOwner, "the partition of this workspace is being moved "+
		"to another instance: try again").Retry(time.Second).With(headerNotOwner, "1")
}

func ownerUnavailable() *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, codeOwnerUnavailable, "the instance that holds the partition of "+
		"this workspace does not answer, or is not known yet: try again").Retry(time.Second)
}

// answer answers the call here, or passes it on to the instance that holds the partition of its workspace. The call has
// been authorized.
func (s *Server) answer(c *call, r route) (*answer, error) {
	c.forwarded = c.request.Header.Get(headerForwarded) != ""
	if s.members == nil || c.workspace == "" || r.template == liveNoticesRoute {
		return r.handle(c)
	}
	partition := s.partition(c.workspace)
	term := s.held.term(partition)
	if term == nil {
		return s.forward(c, r, partition)
	}
	c.term = term
	a, err := r.handle(c)
	if s.held.term(partition) != term { // the copy may have been old already when it was read
		return nil, notOwner()
	}
	return a, err
}

// forward returns an answer that passes the request on.
func (s *Server) forward(c *call, r route, partition int32) (*answer, error) {
	switch {
	case c.forwarded:
		return nil, notOwner()
	case s.members.owner(partition) == "":
		s.members.refresh()
		return nil, ownerUnavailable()
	}
	return &answer{forward: func(w http.ResponseWriter, request *http.Request) {
		begin, out := time.Now(), &forwardWriter{ResponseWriter: w}
		defer func() { s.metrics.request(r.template, out.status, time.Since(begin)) }() // also if the proxy panics
		s.passOn(out, request, c, r, partition)
	}}, nil
}

// forwardTimeout is how long an owner may take to answer, after any waiting.
const forwardTimeout = 7 * time.Second

// passOn passes the request on to the owner of the partition, and its answer back to the client. Streams and requests
// that wait end when this instance stops.
func (s *Server) passOn(w *forwardWriter, request *http.Request, c *call, r route, partition int32) {
	ctx, cancel := context.WithCancel(request.Context())
	defer cancel()
	limit := forwardTimeout + c.barrier.wait
	switch {
	case request.Method == http.MethodPost:
		limit += uploadTime
		request = request.Clone(request.Context())
		request.Body = io.NopCloser(s.upload(c, maxDiffBytes))
	case c.query.Has("as_of") || strings.HasSuffix(r.template, "/usage"):
		limit += writeTimeout
	}
	timeout := time.AfterFunc(limit, cancel)
	defer timeout.Stop()
	atStop := context.AfterFunc(s.running, cancel)
	defer atStop()
	proxy := &httputil.ReverseProxy{
		Transport: &ownerRequest{s.members, partition},
		Rewrite: func(r *httputil.ProxyRequest) { // the URL's host is set for each attempt
			r.Out.Header.Set(headerForwarded, "1")
			r.Out.Host = s.hostFor(r.Out.Host)
		},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(s.conf.Log.Handler(), slog.LevelDebug), // of clients that leave
		ModifyResponse: func(response *http.Response) error {
			timeout.Stop()
			if strings.HasPrefix(response.Header.Get("Content-Type"), eventsType) {
				response.Body = &eventBody{newIdleLimitedBody(response.Body, 2*s.heartbeat, cancel)}
			} else {
				atStop() // what is being sent is sent to its end
				response.Body = newIdleLimitedBody(response.Body, streamWriteTimeout, cancel)
			}
			for name := range response.Header { // not twice
				w.Header().Del(name)
			}
			s.metrics.forwards.WithLabelValues(resultOf(response)).Inc()
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			s.forwardFailed(w, request, partition, err)
		},
	}
	proxy.ServeHTTP(w, request.WithContext(ctx))
}

// forwardFailed answers a request that the owner did not answer.
func (s *Server) forwardFailed(w *forwardWriter, request *http.Request, partition int32, err error) {
	if request.Context().Err() != nil { // the client has left, or its token has expired
		w.status = statusGone
		panic(http.ErrAbortHandler) // else net/http would send 200
	}
	s.metrics.forwards.WithLabelValues("failed").Inc()
	s.members.refresh()
	s.conf.Log.DebugContext(request.Context(), "the owner of a partition does not answer", "partition", partition,
		"owner", s.members.owner(partition), "error", err)
	if RetryEventStream(w, request) {
		return
	}
	ownerUnavailable().Write(w)
}

// hostFor returns the header Host of a request that is passed on. With tokens it is the client's, which is compared
// with Origin where the token is a cookie. Without tokens the owner answers only for its own names: "" is that of its
// URL.
func (s *Server) hostFor(client string) string {
	if s.conf.Authorize == nil {
		return ""
	}
	return client
}

func resultOf(response *http.Response) string {
	if isNotOwner(response) {
		return codeNotOwner
	}
	return "answered"
}

// isNotOwner reports whether an instance answered that it does not hold the partition.
func isNotOwner(response *http.Response) bool { return response.Header.Get(headerNotOwner) != "" }

// A forwardWriter passes an answer on to the client, which may take streamWriteTimeout to accept each part.
type forwardWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap lets the proxy flush, and take over the connection.
func (w *forwardWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the status.
func (w *forwardWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *forwardWriter) Write(b []byte) (int, error) {
	setWriteDeadline(w.ResponseWriter, streamWriteTimeout)
	return w.ResponseWriter.Write(b)
}

// An idleLimitedBody is an owner's answer. The request is canceled when none of it has arrived for a while: an owner
// that hangs does not close its connections.
type idleLimitedBody struct {
	io.ReadCloser
	limit time.Duration
	timer *time.Timer
}

func newIdleLimitedBody(body io.ReadCloser, limit time.Duration, cancel func()) *idleLimitedBody {
	return &idleLimitedBody{body, limit, time.AfterFunc(limit, cancel)}
}

func (b *idleLimitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.timer.Reset(b.limit)
	return n, err
}

// Close implements io.Closer.
func (b *idleLimitedBody) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}

// An eventBody is a stream of server-sent events. However it ends, its reader connects again and continues after the
// last whole event; a cut connection would look like a fault of this instance.
type eventBody struct{ io.ReadCloser }

func (b *eventBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

// An ownerRequest sends a request to the owner of a partition. A read is sent once more if the partition has another
// owner than was known.
type ownerRequest struct {
	members   *membership
	partition int32
}

var errNoOwner = errors.New("the partition has no owner")

// RoundTrip implements http.RoundTripper.
func (o *ownerRequest) RoundTrip(request *http.Request) (*http.Response, error) {
	owner := o.members.owner(o.partition)
	response, err := o.send(request, owner)
	if err == nil && !isNotOwner(response) {
		return response, nil
	}
	read := request.Method == http.MethodGet || request.Method == http.MethodHead
	if !read || request.Body != nil || request.Context().Err() != nil {
		return response, err
	}
	o.members.awaitOwners(request.Context())
	next := o.members.owner(o.partition)
	if next == "" || next == owner {
		return response, err
	}
	if response != nil {
		_ = response.Body.Close() // a problem, which nobody reads
	}
	return o.send(request, next)
}

func (o *ownerRequest) send(request *http.Request, owner string) (*http.Response, error) {
	to, err := url.Parse(owner)
	if err != nil || to.Host == "" {
		return nil, errNoOwner
	}
	request = request.Clone(request.Context())
	request.URL.Scheme, request.URL.Host = to.Scheme, to.Host
	return o.members.transport.RoundTrip(request)
}

// ownerTransport connects to the other instances.
func ownerTransport() http.RoundTripper {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: ownerDialTimeout}).DialContext,
		TLSHandshakeTimeout: ownerDialTimeout,
		MaxIdleConnsPerHost: ownerIdleConns,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // the client decides
	}
}

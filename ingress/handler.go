package ingress

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"tidemark/problem"

	"tidemark/codecs"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/mux"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Path is where webhooks are posted.
const Path = "/webhook/fastio"

// An appender writes events to the log. The handler needs no more of Kafka than this.
type appender interface {
	// Append must not block. It calls done exactly once, before it returns or long after: with the record's position,
	// or with the reason why the record may not have been written.
	Append(key string, value []byte, headers map[string][]byte, done func(at *tidemarkv1.Position, err error))
}

func (s *Server) routes() http.Handler {
	router := mux.NewRouter().SkipClean(true) // a redirect would lose the body
	router.HandleFunc(Path, s.answer(s.receive)).Methods(http.MethodPost)
	router.MethodNotAllowedHandler = s.answer(func(http.ResponseWriter, *http.Request) ([]byte, *problem.Problem) {
		return nil, problem.New(http.StatusMethodNotAllowed, "method_not_allowed",
			"webhooks are sent with POST").With("Allow", http.MethodPost)
	})
	router.NotFoundHandler = s.answer(func(http.ResponseWriter, *http.Request) ([]byte, *problem.Problem) {
		return nil, problem.New(http.StatusNotFound, "not_found", "nothing is here: webhooks are posted to "+Path)
	})
	return router
}

// answer counts, logs and writes what handle returns.
func (s *Server) answer(handle func(http.ResponseWriter, *http.Request) ([]byte, *problem.Problem)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, refused := handle(w, r)
		if refused != nil {
			s.metrics.requests.WithLabelValues(refused.Code).Inc()
			s.log.DebugContext(r.Context(), "webhook refused", "status", refused.Status, "code", refused.Code, "field",
				refused.Field)
			refused.Write(w)
			return
		}
		s.metrics.requests.WithLabelValues(accepted).Inc()
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	}
}

// receive checks a webhook, in the order that docs/design.md fixes, and appends it.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) ([]byte, *problem.Problem) {
	body, release, refused := readBody(w, r, s.large)
	defer release()
	if refused != nil {
		return nil, refused
	}
	s.metrics.bytes.Add(float64(len(body)))
	if !identity(r.Header) {
		return nil, problem.New(http.StatusUnsupportedMediaType, "content_encoding",
			"the body is encoded: send it as it is, without Content-Encoding").With("Accept-Encoding", "identity")
	}
	now := s.now()
	signer, refused := verify(s.scheme, s.secrets, r.Header, body, now)
	if refused != nil {
		return nil, refused
	}
	event, err := codecs.ParseEvent(body)
	if err != nil {
		return nil, s.invalid(err)
	}
	s.aliases.apply(event)
	if !signer.covers(event.GetWorkspaceId()) {
		return nil, problem.New(http.StatusForbidden, "workspace_not_allowed",
			"the secret that signed this is bound to another workspace: sign with one of this workspace").On(
			"workspace_id")
	}
	quota := s.limiter.take(event.GetWorkspaceId(), now)
	s.limiter.setHeaders(w.Header(), quota)
	if quota.wait > 0 {
		return nil, problem.New(http.StatusTooManyRequests, "rate_limited",
			"this workspace sends faster than is allowed: send it again after Retry-After").Retry(quota.wait)
	}
	value, err := codecs.WithEnvelope(body, event, now)
	if err != nil {
		return nil, s.invalid(err)
	}
	at, refused := s.append(event, value, r.Header)
	if refused != nil {
		return nil, refused
	}
	return receipt(event.GetEventId(), at)
}

// invalid turns an error of the codecs into a problem: a 400 if the event is at fault, else a 500.
func (s *Server) invalid(err error) *problem.Problem {
	if fault, ok := errors.AsType[*codecs.EventError](err); ok {
		return problem.New(http.StatusBadRequest, fault.Reason, fault.Error()).On(fault.Field)
	}
	s.log.Error("read a webhook", "error", err)
	return internal()
}

func internal() *problem.Problem {
	return problem.New(http.StatusInternalServerError, "internal",
		"the event could not be handled; the log of this server says why")
}

func busy(detail string) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, "busy", detail).Retry(retryBusy)
}

// How long a refused sender is asked to wait.
const (
	retryBusy  = time.Second
	retryNoAck = 5 * time.Second
)

// The state of one append: whichever comes first, its acknowledgement or the timeout, sets it.
const (
	waiting int32 = iota
	answered
	abandoned
)

// append writes the event to the log and waits for its acknowledgement. The event counts as in flight until it is
// acknowledged or failed, even after its sender was answered 503.
func (s *Server) append(e *tidemarkv1.Event, value []byte, request http.Header) (*tidemarkv1.Position,
	*problem.Problem,
) {
	release, err := s.inFlight.acquire(e.GetWorkspaceId(), len(value))
	switch {
	case errors.Is(err, errClosed):
		return nil, problem.New(http.StatusServiceUnavailable, "draining",
			"this server is shutting down: send it again after Retry-After").
			With("Connection", "close").Retry(retryBusy)
	case errors.Is(err, errPartitionFull):
		return nil, busy("too many events wait for the log's partition of this workspace: send it again after " +
			"Retry-After")
	case err != nil:
		return nil, busy("too many events wait for the log: send it again after Retry-After")
	}
	type ack struct {
		at  *tidemarkv1.Position
		err error
	}
	var state atomic.Int32
	acks := make(chan ack, 1)
	start := time.Now()
	s.events.Append(e.GetWorkspaceId(), value, recordHeaders(e, request), func(at *tidemarkv1.Position, err error) {
		release()
		s.settle(start, err, !state.CompareAndSwap(waiting, answered))
		acks <- ack{at, err}
	})
	timeout := time.NewTimer(s.ackTimeout)
	defer timeout.Stop()
	var a ack
	select {
	case a = <-acks:
	case <-timeout.C:
		if state.CompareAndSwap(waiting, abandoned) {
			s.health.appended(s.noAck)
			return nil, unacknowledged("no_ack", "the event is not acknowledged yet and may still land: send it "+
				"again after Retry-After, a file's event has its effect once")
		}
		a = <-acks // acknowledged at the same moment
	}
	if a.err != nil {
		return nil, unacknowledged("log_unavailable",
			"the event could not be written: send it again after Retry-After, a file's event has its effect once")
	}
	return a.at, nil
}

func unacknowledged(code, detail string) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, code, detail).Retry(retryNoAck)
}

// settle records the result of one append. A late one does not change readiness: its timeout already has.
func (s *Server) settle(start time.Time, err error, late bool) {
	outcome := failed
	if err == nil {
		s.metrics.ackSeconds.Observe(time.Since(start).Seconds())
		outcome = landed
	}
	if late {
		s.metrics.late.WithLabelValues(outcome).Inc()
		return
	}
	s.health.appended(err)
}

// receipt is the answer to an accepted event.
func receipt(eventID string, at *tidemarkv1.Position) ([]byte, *problem.Problem) {
	b := make([]byte, 0, 64+len(eventID))
	b = append(b, `{"event_id":`...)
	b, err := jsontext.AppendQuote(b, eventID)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "bad_field", "the event id is not valid UTF-8").On("event_id")
	}
	b = append(b, `,"position":"`...)
	b = at.AppendText(b)
	return append(b, "\"}\n"...), nil
}

package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Path is where webhooks are posted.
const Path = "/webhook/fastio"

func (s *Server) routes() http.Handler {
	receive := s.answer(s.receive)
	wrongMethod := s.answer(func(http.ResponseWriter, *http.Request) ([]byte, *problem.Problem) {
		return nil, problem.New(http.StatusMethodNotAllowed, "method_not_allowed",
			"webhooks are sent with POST").With("Allow", http.MethodPost)
	})
	notFound := s.answer(func(http.ResponseWriter, *http.Request) ([]byte, *problem.Problem) {
		return nil, problem.New(http.StatusNotFound, "not_found", "nothing is here: webhooks are posted to "+Path)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != Path:
			notFound(w, r)
		case r.Method != http.MethodPost:
			wrongMethod(w, r)
		default:
			receive(w, r)
		}
	})
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
		s.metrics.accepted.Inc()
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
	record := &kgo.Record{
		Topic: s.topic, Partition: kafka.Partition(event.GetWorkspaceId(), len(s.inFlight.partitions)),
		Key: []byte(event.GetWorkspaceId()), Value: value, Headers: recordHeaders(event, r.Header),
	}
	if refused := s.append(record); refused != nil {
		return nil, refused
	}
	return receipt(event.GetEventId(), record)
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

// append writes the record to the log and waits for its acknowledgement, which sets the record's offset. The record
// counts as in flight until it is acknowledged or failed, even after its sender was answered 503.
func (s *Server) append(record *kgo.Record) *problem.Problem {
	partition, size := record.Partition, len(record.Value) // the producer owns the record until it is acknowledged
	switch err := s.inFlight.acquire(partition, size); {
	case errors.Is(err, errClosed):
		return problem.New(http.StatusServiceUnavailable, "draining",
			"this server is shutting down: send it again after Retry-After").
			With("Connection", "close").Retry(retryBusy)
	case errors.Is(err, errPartitionFull):
		return busy("too many events wait for the log's partition of this workspace: send it again after " +
			"Retry-After")
	case err != nil:
		return busy("too many events wait for the log: send it again after Retry-After")
	}
	start := time.Now()
	var decided atomic.Bool // by the acknowledgement or the timeout, whichever comes first
	outcome := make(chan error, 1)
	timeout := time.AfterFunc(s.ackTimeout, func() {
		if decided.CompareAndSwap(false, true) {
			s.health.appended(s.noAck)
			outcome <- s.noAck
		}
	})
	s.producer.TryProduce(context.Background(), record, func(_ *kgo.Record, err error) {
		s.inFlight.release(partition, size)
		inTime := decided.CompareAndSwap(false, true)
		s.settle(start, err, inTime)
		if inTime {
			outcome <- err
		}
	})
	err := <-outcome
	timeout.Stop()
	switch {
	case err == nil:
		return nil
	case errors.Is(err, s.noAck):
		return unacknowledged("no_ack", "the event is not acknowledged yet and may still land: send it "+
			"again after Retry-After, a file's event has its effect once")
	}
	return unacknowledged("log_unavailable",
		"the event could not be written: send it again after Retry-After, a file's event has its effect once")
}

func unacknowledged(code, detail string) *problem.Problem {
	return problem.New(http.StatusServiceUnavailable, code, detail).Retry(retryNoAck)
}

// settle records the result of one append. A late one does not change readiness: its timeout already has.
func (s *Server) settle(start time.Time, err error, inTime bool) {
	outcome := landed
	if err == nil {
		s.metrics.ackSeconds.Observe(time.Since(start).Seconds())
	} else {
		outcome, err = failed, fmt.Errorf("append to %s: %w", s.topic, err)
	}
	if inTime {
		s.health.appended(err)
		return
	}
	s.metrics.late.WithLabelValues(outcome).Inc()
}

// receipt is the answer to an accepted event.
func receipt(eventID string, record *kgo.Record) ([]byte, *problem.Problem) {
	b := make([]byte, 0, 64+len(eventID))
	b = append(b, `{"event_id":`...)
	b, err := jsontext.AppendQuote(b, eventID)
	if err != nil {
		return nil, problem.New(http.StatusBadRequest, "bad_field", "the event id is not valid UTF-8").On("event_id")
	}
	b = append(b, `,"position":"`...)
	at := tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}
	b = at.AppendText(b)
	return append(b, "\"}\n"...), nil
}

package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/codecs"
	"tidemark/history"
	"tidemark/kafka"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/why"
)

const (
	maxTraces    = 4                // in progress: each reads up to some 100,000 records
	traceTimeout = 20 * time.Second // of the requests to the brokers
)

// An eventTrace is the JSON of what was done with an event.
type eventTrace struct {
	Position    string            `json:"position"`
	WorkspaceID string            `json:"workspace_id"`
	EventID     string            `json:"event_id,omitempty"`
	Event       string            `json:"event,omitempty"`
	SentEvent   string            `json:"sent_event,omitempty"` // the sender's type, if the ingress mapped it to Event
	FileID      string            `json:"file_id,omitempty"`
	SentAt      *time.Time        `json:"sent_at"` // null: the event has no time that can be read
	ReceivedAt  time.Time         `json:"received_at"`
	Payload     json.RawMessage   `json:"payload,omitempty"` // as it is in the events topic; absent if it is no event
	Verdict     why.Verdict       `json:"verdict"`
	Reason      string            `json:"reason,omitempty"`
	Detail      string            `json:"detail,omitempty"`
	Unreadable  []string          `json:"unreadable,omitempty"`
	Version     *int64            `json:"version,omitempty"`
	OpID        string            `json:"op_id,omitempty"`
	DuplicateOf string            `json:"duplicate_of,omitempty"`
	ReplayOf    string            `json:"replay_of,omitempty"`
	Cause       *versionCause     `json:"cause,omitempty"`
	DeadLetter  string            `json:"dead_letter,omitempty"`
	Before      *json.RawMessage  `json:"before,omitempty"` // null: the event created the file
	After       json.RawMessage   `json:"after,omitempty"`
	Changed     map[string]change `json:"changed,omitempty"`
	Sinks       []why.SinkResult  `json:"sinks"`
}

// getEvent answers what was done with one event, from the log to each sink.
func (s *Server) getEvent(c *call) (*answer, error) {
	at, err := tidemarkv1.ParsePosition(c.position)
	if err != nil || int(at.GetPartition()) >= s.conf.Streams.Events.Partitions {
		return nil, badField("position", fmt.Sprintf("a position is partition:offset, as the webhook endpoint "+
			"answered it, for example 7:1234, and partitions are 0 to %d", s.conf.Streams.Events.Partitions-1))
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	cluster, id := s.cluster.Load(), s.files.logID.Load()
	if cluster == nil || id == nil {
		return nil, recovering(s.files)
	}
	select {
	case s.traces <- struct{}{}:
		defer func() { <-s.traces }()
	default:
		return nil, problem.New(http.StatusServiceUnavailable, codeTooManyTraces, fmt.Sprintf(
			"%d requests about events are in progress: try again", maxTraces)).Retry(time.Second)
	}
	ctx, cancel := context.WithTimeout(c.request.Context(), traceTimeout)
	defer cancel()
	tracer := why.NewTracer(cluster.client, s.conf.Streams, *id,
		func(ctx context.Context, file, eventID string) (*tidemarkv1.FileState, string, error) {
			return s.knownOf(ctx, c, at, file, eventID)
		})
	found, err := tracer.Trace(ctx, c.workspace, at)
	if err != nil {
		return nil, s.traceError(c, err)
	}
	body, err := json.Marshal(newEventTrace(c.workspace, found))
	return &answer{body: body}, err
}

func (s *Server) traceError(c *call, err error) error {
	_, refused := errors.AsType[*kerr.Error](err)
	switch {
	case errors.Is(err, why.ErrNoEvent):
		return problem.New(http.StatusNotFound, codeUnknownEvent,
			"there is no event of this workspace at this position: check both")
	case errors.Is(err, why.ErrExpired):
		return problem.New(http.StatusGone, codeEventExpired,
			"the event at this position is older than the retention of the events topic, and has been deleted")
	case c.request.Context().Err() == nil &&
		(refused || kafka.Unreachable(err) || errors.Is(err, context.DeadlineExceeded)):
		return problem.New(http.StatusServiceUnavailable, codeBrokersAway, err.Error()).Retry(2 * time.Second)
	}
	return err
}

// knownOf is the why.Known of a call.
func (s *Server) knownOf(ctx context.Context, c *call, at *tidemarkv1.Position, file, eventID string) (
	row *tidemarkv1.FileState, first string, err error,
) {
	c.file, c.barrier.position, c.barrier.parameter = file, at, "position"
	if row, err = s.readFile(c); err != nil {
		if p, ok := errors.AsType[*problem.Problem](err); !ok || p.Code != codeUnknownFile {
			return nil, "", err
		}
	}
	if s.history == nil {
		return row, "", nil
	}
	err = s.history.Read(at.GetPartition(), func(h *history.Snapshot) error {
		return h.Versions(c.workspace, file, at.GetOffset(), func(n *tidemarkv1.Notice) (bool, error) {
			if n.GetEventId() == eventID {
				first = n.GetPosition().Text()
			}
			return first == "", ctx.Err()
		})
	})
	if errors.Is(err, history.ErrClosed) { // the first one is not known now
		err = nil
	}
	return row, first, err
}

func newEventTrace(workspace string, found *why.Trace) *eventTrace {
	e := &eventTrace{
		Position: found.Position, WorkspaceID: workspace, EventID: found.EventID, Event: found.Event.Event,
		SentEvent: found.SentEvent, FileID: found.FileID, SentAt: found.SentAt, ReceivedAt: found.ReceivedAt,
		Verdict: found.Verdict, Reason: found.Reason, Detail: found.Detail, Unreadable: found.Unreadable,
		Payload: found.Value, Version: found.Version, DuplicateOf: found.DuplicateOf, ReplayOf: found.ReplayOf,
		DeadLetter: found.DeadLetter, Sinks: found.Sinks,
	}
	if found.Cause != "" {
		e.Cause = &versionCause{Position: found.Cause}
	}
	n := found.Notice
	if n == nil {
		return e
	}
	e.OpID = n.GetOpId()
	if n.GetCause() != nil {
		e.Cause = causeOf(n.GetCause())
	}
	if n.GetAfter() != nil {
		before := json.RawMessage("null")
		if n.GetBefore() != nil {
			before = codecs.AppendFile(nil, n.GetBefore())
		}
		e.Before, e.After = &before, codecs.AppendFile(nil, n.GetAfter())
		e.Changed = changesOf(n.GetBefore(), n.GetAfter())
	}
	return e
}

package views

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"tidemark/history"
	"tidemark/problem"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// headerAsOf is on every answer as of an earlier position: that position.
const headerAsOf = "Tidemark-As-Of"

func noHistory() error {
	return problem.New(http.StatusNotImplemented, codeNoHistory, "this server keeps no history: see --history")
}

// checkAsOf reports whether a call is as of an earlier position, and refuses it if that cannot be answered.
func (s *Server) checkAsOf(c *call) (asked bool, err error) {
	switch {
	case !c.query.Has("as_of"):
		return false, nil
	case s.history == nil:
		return false, noHistory()
	case c.query.Has("at_least"):
		return false, badField("as_of", "give as_of or at_least: as_of waits for its position too")
	}
	return true, nil
}

// parseAsOf parses the parameter as_of: a position, or a time. The offset is -1 if no event of the partition is as old.
// It makes the call wait for the position.
func (s *Server) parseAsOf(c *call) (offset int64, err error) {
	text, partition := c.query.Get("as_of"), s.partition(c.workspace)
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		if offset, err = s.lastEventAt(c, partition, at); err != nil {
			return 0, err
		}
	} else {
		p, err := tidemarkv1.ParsePosition(text)
		if err != nil {
			return 0, badField("as_of", "as_of must be a position, such as 7:1234, or a time as in RFC 3339, "+
				"such as 2026-11-29T10:00:00Z")
		}
		if p.GetPartition() != partition {
			return 0, badField("as_of", fmt.Sprintf("the events of this workspace are in partition %d: "+
				"%s is in another one", partition, p.Text()))
		}
		offset = p.GetOffset()
	}
	s.setAsOf(c, offset)
	return offset, nil
}

// setAsOf makes the call wait for the event at an offset, and its answer say that it is as of that event.
func (s *Server) setAsOf(c *call, offset int64) {
	if offset < 0 {
		return
	}
	c.asOf = &tidemarkv1.Position{Partition: s.partition(c.workspace), Offset: offset}
	c.barrier.position, c.barrier.parameter = c.asOf, "as_of"
}

// lastEventAt returns the offset of the last event of a partition that was in the log at a time, by the timestamps of
// its records; -1 if there was none.
func (s *Server) lastEventAt(c *call, partition int32, at time.Time) (int64, error) {
	switch {
	case at.After(time.Now()):
		return 0, badField("as_of", "as_of must not be in the future")
	case at.UnixMilli() < 0:
		return 0, badField("as_of", "as_of must not be before 1970") // Kafka has other meanings for such timestamps
	}
	ctx, cancel := context.WithTimeout(c.request.Context(), pollTimeout)
	defer cancel()
	next, start, err := s.eventTimes.eventAfter(ctx, partition, at, s.eventAfter)
	switch {
	case c.request.Context().Err() != nil:
		return 0, c.request.Context().Err()
	case err != nil:
		s.conf.Log.WarnContext(ctx, "cannot look up the event of a time", "error", err)
		return 0, problem.New(http.StatusServiceUnavailable, codeNotReached, "the brokers did not answer which event "+
			"was the last one at that time: try again, or give a position").On("as_of").Retry(time.Second)
	case start > 0 && next <= start:
		return 0, problem.New(http.StatusGone, codeAsOfExpired, fmt.Sprintf(
			"the first event that is still in the log, %d:%d, is of a later time", partition, start)).On("as_of")
	}
	return s.progress.visible(partition, next) - 1, nil
}

// visible returns an offset of the events topic, or if it is the end of the log and no event is directly before it, the
// end of the last event. Markers of transactions take offsets too.
func (p *progress) visible(partition int32, offset int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.eventsEnd != nil && p.last.eventsEnd[partition] == offset && p.last.eventsVisible[partition] >= 0 {
		return min(offset, p.last.eventsVisible[partition])
	}
	return offset
}

// readHistory calls read with snapshots of the history until it has what it needs. read returns the file that it cannot
// answer yet, because notices have not been read that change it; a workspace is "/".
//
// The notice of a row is in the log before the row is. So once the copy has read up to where the log ends after the row
// was read, it has all changes of that file, and a file that is still not known has a change that is not kept.
func (s *Server) readHistory(c *call, offset int64, read func(h *history.Snapshot) (missing string, err error)) error {
	partition, tried := s.partition(c.workspace), ""
	for {
		missing := ""
		var expired error
		err := s.history.Read(partition, func(h *history.Snapshot) (err error) {
			if id := s.files.logID.Load(); id == nil || *id != h.LogID() {
				return history.ErrClosed
			}
			expired = s.asOfExpired(partition, h)
			if offset < h.Before() {
				return expired
			}
			missing, err = read(h)
			return err
		})
		switch {
		case errors.Is(err, history.ErrClosed):
		case err != nil || missing == "":
			return err
		case missing == tried:
			return expired
		}
		tried = missing
		if err := s.awaitHistory(c, partition, time.Now()); err != nil {
			return err
		}
	}
}

func (s *Server) asOfExpired(partition int32, h *history.Snapshot) error {
	first := &tidemarkv1.Position{Partition: partition, Offset: h.Before() + 1}
	return problem.New(http.StatusGone, codeAsOfExpired, fmt.Sprintf(
		"changes are kept for %s, and here from position %s on: ask about that one or a later one",
		s.history.Keep(), first.Text())).On("as_of")
}

// awaitHistory waits until the copy of the history has read all notices that were in the log at a time.
func (s *Server) awaitHistory(c *call, partition int32, since time.Time) error {
	defer s.progress.pollFaster()()
	ctx, cancel := context.WithDeadline(c.request.Context(), c.until)
	defer cancel()
	for {
		next, changed := s.history.Next(partition)
		end, polled := s.progress.notifyEnd(partition, since)
		if end != unknown && next >= end {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-polled:
			continue
		case <-c.term.Done():
		case <-ctx.Done():
		}
		if err := c.request.Context().Err(); err != nil {
			return err
		}
		return errHistoryBehind()
	}
}

func errHistoryBehind() error {
	return problem.New(http.StatusServiceUnavailable, codeNotReached, "the history of this server has notices to "+
		"read before it can answer: try again, or raise wait (at most 60s)").Retry(time.Second)
}

// notifyEnd returns the end of the notify topic as of a poll that began after a time, else unknown, and a channel that
// is closed after the next poll.
func (p *progress) notifyEnd(partition int32, since time.Time) (end int64, polled <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.began.Before(since) || p.last.notifyEnd == nil {
		return unknown, p.polled
	}
	return p.last.notifyEnd[partition], p.polled
}

// stateAt returns a file as it was at an offset of the events topic; nil if it did not exist. known is false if that
// depends on notices that were not read yet.
func (s *Server) stateAt(h *history.Snapshot, row *tidemarkv1.FileState, offset int64) (
	state *tidemarkv1.FileState, known bool, err error,
) {
	p := row.GetPosition()
	if row.GetLogId() != h.LogID() || p == nil || p.GetOffset() <= offset {
		return row, true, nil // a row of an older log has not changed in this one
	}
	return h.FileAt(row.GetWorkspaceId(), row.GetFileId(), offset)
}

// getFileAsOf answers a file as it was at an earlier position.
func (s *Server) getFileAsOf(c *call) (*answer, error) {
	offset, err := s.parseAsOf(c)
	if err != nil {
		return nil, err
	}
	if err := s.begin(c, "", nil); err != nil {
		return nil, err
	}
	var state *tidemarkv1.FileState
	if err := s.readHistory(c, offset, func(h *history.Snapshot) (string, error) {
		var row tidemarkv1.FileState
		found, err := s.row(s.files, c.workspace, c.file, &row)
		if err != nil || !found {
			return "", err
		}
		known := false
		if state, known, err = s.stateAt(h, &row, offset); err != nil || known {
			return "", err
		}
		return c.file, nil
	}); err != nil {
		return nil, err
	}
	if state == nil || partOf(state) == 0 {
		return nil, problem.New(http.StatusNotFound, codeUnknownFile, "there was no such file at that position")
	}
	return fileAnswer(state), nil
}

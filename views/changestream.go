package views

import (
	"encoding/json"
	"errors"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// streamChanges returns a stream of server-sent events: the changes after a cursor, as they happen, and heartbeats,
// which have a cursor also while nothing changes. The id of each event is the cursor after it. The first heartbeat
// follows the changes there were at first. The stream ends when the client leaves or is too slow, or the server stops
// or discards its copy; a client continues by Last-Event-ID.
func (s *Server) streamChanges(q query, at changesCursor, limit int) *answer {
	partition, workspace := s.partition(q.workspace), tidemarkv1.EscapePart(q.workspace)
	return &answer{contentType: "text/event-stream", stream: func(out *stream) error {
		ticker := time.NewTicker(s.heartbeat)
		defer ticker.Stop()
		beat := true
		for {
			wake := s.files.changes.wait(workspace) // before the read, so that no change is missed
			p, err := s.readSharedPage(partition, q, at, limit)
			if err == nil {
				err = s.writeEvents(out, q, at, p, beat && p.upToDate)
			}
			if err != nil || !p.upToDate {
				wake.cancel()
				if errors.Is(err, errStoreNotReady) || errors.Is(err, errClosed) {
					return nil
				}
				if err != nil {
					return err
				}
				at = p.at
				continue
			}
			at, beat = p.at, false
			select {
			case <-wake.changed:
			case <-ticker.C:
				beat = true
			case <-out.Done():
				err = out.Err()
			}
			wake.cancel()
			if err != nil {
				return err
			}
		}
	}}
}

// writeEvents sends the changes of a page that begins at a cursor, and a heartbeat after them if beat is set.
func (s *Server) writeEvents(out *stream, q query, at changesCursor, p changesPage, beat bool) error {
	if len(p.changes) == 0 && !beat {
		return nil
	}
	b := make([]byte, 0, p.bytes+(len(p.changes)+1)*192)
	at = s.issue(at, unknown)
	for _, change := range p.changes {
		at.next, at.copied = change.next, p.at.copied
		b = appendEvent(b, "change", q.encodeChangesCursor(at), change.json)
	}
	if beat {
		data, _ := json.Marshal(struct { // a text can always be encoded
			CompleteTo string `json:"complete_to,omitempty"`
		}{completeTo(p.at, s.partition(q.workspace))})
		b = appendEvent(b, "heartbeat", q.encodeChangesCursor(p.at), data)
	}
	if _, err := out.Write(b); err != nil {
		return err
	}
	return out.Flush()
}

func appendEvent(b []byte, name, cursor string, data []byte) []byte {
	b = append(append(append(b, "event: "...), name...), "\nid: "...)
	b = append(append(append(b, cursor...), "\ndata: "...), data...)
	return append(b, "\n\n"...)
}

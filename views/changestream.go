package views

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// streamChanges returns a stream of server-sent events: the changes after a cursor, as they happen, and heartbeats,
// which have a cursor also while nothing changes, or nothing that is in the query. The id of each event is the cursor
// after it. A heartbeat follows the changes there were at first. The stream ends when the client leaves or is too slow,
// or the server stops, discards its copy or has one that is too old; a client continues by Last-Event-ID.
func (s *Server) streamChanges(c *call, q query, at changesCursor, limit int) *answer {
	partition, workspace := s.partition(q.workspace), tidemarkv1.EscapePart(q.workspace)
	return &answer{contentType: "text/event-stream", stream: func(out *stream) error {
		ticker := time.NewTicker(s.heartbeat)
		defer ticker.Stop()
		beat, caughtUp := false, false
		for {
			wake := s.files.changes.wait(workspace) // before the read, so that no change is missed
			c.lag, c.lagKnown = s.lagFor(c)
			if s.checkAge(c) != nil {
				wake.cancel()
				return nil
			}
			p, err := s.readSharedPage(partition, q, at, limit)
			select {
			case <-ticker.C:
				beat = true
			default:
			}
			if err == nil {
				err = s.writeEvents(out, q, at, p, beat || p.upToDate && !caughtUp)
			}
			beat, caughtUp = false, caughtUp || p.upToDate
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
			at = p.at
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
			CompleteTo string    `json:"complete_to,omitempty"`
			ExpiresAt  time.Time `json:"expires_at"`
			UpToDate   bool      `json:"up_to_date"`
		}{completeTo(p.at, s.partition(q.workspace)), s.expiresAt(p.at), p.upToDate})
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

// RetryEventStream answers a GET of changes or notices as server-sent events with the time after which to connect
// again, and reports whether the request was one. It is for what would be 503: an EventSource does not connect again
// after any status but 200. Without an id the client continues where it was.
func RetryEventStream(w http.ResponseWriter, request *http.Request) bool {
	path := strings.Split(request.URL.EscapedPath(), "/")
	if request.Method != http.MethodGet || !wantsEvents(request) || len(path) != 5 ||
		path[1] != "v1" || path[2] != "workspaces" || path[4] != "changes" && path[4] != "notices" {
		return false
	}
	h := w.Header()
	h.Del("Retry-After")
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, "retry: 2000\n\n") // the client may have left
	return true
}

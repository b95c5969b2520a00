package views

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// notices sends notices to browsers as they happen. It keeps nothing: a reader that joins gets what comes after that.
// One that is too slow misses notices, and gets an event with their number.
type notices struct {
	log   *slog.Logger
	kafka kafka.Config
	topic string

	mu      sync.Mutex
	readers map[*reader]struct{}
}

// What is buffered for a reader that is too slow.
const (
	readerNotices = 64
	readerBytes   = 1 << 20 // but one notice always
)

type reader struct {
	workspace string
	events    chan liveEvent
	bytes     atomic.Int64 // of the notices in the channel, and of the one that is being written
	skipped   atomic.Int64 // since the last event in the channel
}

// A liveEvent is what a reader is sent. Readers share the notice.
type liveEvent struct {
	Kind    string          `json:"event"` // notice or skipped; empty: a heartbeat
	ID      string          `json:"id,omitempty"`
	Data    json.RawMessage `json:"data"`
	skipped int64           // before it
}

func newNotices(log *slog.Logger, c kafka.Config, topic string) *notices {
	return &notices{log: log, kafka: c, topic: topic, readers: map[*reader]struct{}{}}
}

// run follows the topic from its end until ctx ends.
func (s *notices) run(ctx context.Context) {
	for next := (kafka.Spans{}); ; {
		err := s.follow(ctx, next)
		if ctx.Err() != nil {
			return
		}
		s.log.WarnContext(ctx, "live notices are interrupted", "topic", s.topic, "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

// follow continues at next. At first that is empty.
func (s *notices) follow(ctx context.Context, next kafka.Spans) error {
	if len(next) == 0 {
		found, err := kafka.Extent(ctx, s.kafka, s.topic)
		if err != nil {
			return err
		}
		for partition, span := range found {
			next[partition] = kafka.Span{From: span.To}
		}
	}
	follower, err := kafka.Follow(s.kafka, s.topic, next)
	if err != nil {
		return err
	}
	defer follower.Close()
	for {
		records, err := follower.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			next[r.Partition] = kafka.Span{From: r.Offset + 1}
			if !r.Attrs.IsControl() {
				s.publish(r.Value)
			}
		}
	}
}

// publish gives a notice to the readers of its workspace, and to no others. It never waits.
func (s *notices) publish(value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.readers) == 0 {
		return
	}
	decoded, err := codecs.Notice{}.Decode(value)
	if err != nil {
		s.log.Warn("a notice cannot be read, it is not in the live stream", "topic", s.topic, "error", err)
		return
	}
	n := decoded.(*tidemarkv1.Notice)
	at := n.GetPosition()
	flat := bytes.ReplaceAll(bytes.ReplaceAll(value, []byte("\n"), nil), []byte("\r"), nil) // for SSE
	e := liveEvent{Kind: "notice", ID: fmt.Sprintf("%d:%d", at.GetPartition(), at.GetOffset()), Data: flat}
	for r := range s.readers {
		if r.workspace == n.GetWorkspaceId() {
			r.offer(e)
		}
	}
}

// offer puts an event into the channel, if there is room. It is called by one goroutine at a time.
func (r *reader) offer(e liveEvent) {
	e.skipped = r.skipped.Swap(0)
	size := int64(len(e.Data))
	if buffered := r.bytes.Add(size); buffered == size || buffered <= readerBytes {
		select {
		case r.events <- e:
			return
		default:
		}
	}
	r.bytes.Add(-size)
	r.skipped.Add(e.skipped + 1)
}

func (s *notices) join(workspace string) *reader {
	r := &reader{workspace: workspace, events: make(chan liveEvent, readerNotices)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[r] = struct{}{}
	return r
}

func (s *notices) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

// serve writes the events of a workspace until a write fails or ctx ends.
func (s *notices) serve(ctx context.Context, workspace string, write func(liveEvent) error) error {
	r := s.join(workspace)
	defer s.leave(r)
	return r.serve(ctx, write)
}

func (r *reader) serve(ctx context.Context, write func(liveEvent) error) error {
	beat := time.NewTicker(heartbeatInterval)
	defer beat.Stop()
	for e := (liveEvent{}); ; {
		if e.skipped > 0 {
			if err := write(liveEvent{Kind: "skipped", Data: fmt.Appendf(nil, `{"count":%d}`, e.skipped)}); err != nil {
				return err
			}
		}
		if err := write(e); err != nil {
			return err
		}
		r.bytes.Add(-int64(len(e.Data)))
		select {
		case e = <-r.events:
		case <-beat.C:
			e = liveEvent{skipped: r.skipped.Swap(0)}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// getNotices sends the notices of a workspace: over a WebSocket, of the same origin only, or as SSE.
func (s *Server) getNotices(c *call) (*answer, error) {
	a := &answer{contentType: "text/event-stream"}
	if c.request.Header.Get("Upgrade") == "" {
		a.stream = func(out *stream) error {
			return s.notices.serve(out, c.workspace, func(e liveEvent) error {
				text := ": heartbeat\n\n"
				if e.Kind != "" {
					text = fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", e.Kind, e.ID, e.Data)
				}
				if _, err := out.Write([]byte(text)); err != nil {
					return err
				}
				return out.Flush()
			})
		}
		return a, nil
	}
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		conn, err := websocket.Accept(w, request, nil) // it answers the errors
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		ctx := conn.CloseRead(request.Context())
		_ = s.notices.serve(ctx, c.workspace, func(e liveEvent) error { // the reader has left
			ctx, cancel := context.WithTimeout(ctx, streamWriteTimeout)
			defer cancel()
			if e.Kind == "" {
				return conn.Ping(ctx)
			}
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			return conn.Write(ctx, websocket.MessageText, text)
		})
	})
	return a, nil
}

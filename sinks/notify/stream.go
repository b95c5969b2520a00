package notify

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

// A Stream sends notices to browsers as they happen, by SSE and WebSocket. It keeps nothing: a reader that joins sees
// what comes after that. One that is too slow misses notices, and gets an event with their number.
type Stream struct {
	log   *slog.Logger
	kafka kafka.Config
	topic string
	done  chan struct{}

	mu      sync.Mutex
	readers map[*reader]struct{}
}

const (
	readerBuffer = 64 // notices
	heartbeat    = 15 * time.Second
	writeTimeout = 10 * time.Second
)

type reader struct {
	workspace string
	events    chan event
	skipped   atomic.Int64 // since the last event in the channel
}

// An event is what a reader is sent. Readers share the notice.
type event struct {
	Kind    string          `json:"event"` // notice or skipped; empty: a heartbeat
	ID      string          `json:"id,omitempty"`
	Data    json.RawMessage `json:"data"`
	skipped int64           // before it
}

// NewStream returns a stream of the notices in a topic.
func NewStream(log *slog.Logger, c kafka.Config, topic string) *Stream {
	return &Stream{log: log, kafka: c, topic: topic, done: make(chan struct{}), readers: map[*reader]struct{}{}}
}

// Run follows the topic from its end until ctx ends; then all readers are closed. It can be called once.
func (s *Stream) Run(ctx context.Context) error {
	defer close(s.done)
	next := kafka.Spans{}
	for {
		err := s.follow(ctx, next)
		if ctx.Err() != nil {
			return nil
		}
		s.log.WarnContext(ctx, "live notices are interrupted", "topic", s.topic, "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// follow continues at next. At first that is empty.
func (s *Stream) follow(ctx context.Context, next kafka.Spans) error {
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
func (s *Stream) publish(value []byte) {
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
	e := event{Kind: "notice", ID: fmt.Sprintf("%d:%d", at.GetPartition(), at.GetOffset()), Data: flat}
	for r := range s.readers {
		if r.workspace != n.GetWorkspaceId() {
			continue
		}
		e.skipped = r.skipped.Swap(0)
		select {
		case r.events <- e:
		default:
			r.skipped.Add(e.skipped + 1)
		}
	}
}

// Handler sends the notices of a workspace: over a WebSocket, of the same origin only, or as SSE.
func (s *Stream) Handler(workspace string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r := s.join(workspace)
		defer s.leave(r)
		if request.Header.Get("Upgrade") == "" {
			s.serve(request.Context(), r, sseWriter(w))
			return
		}
		conn, err := websocket.Accept(w, request, nil) // it answers the errors
		if err != nil {
			return
		}
		defer func() { _ = conn.CloseNow() }()
		ctx := conn.CloseRead(request.Context())
		s.serve(ctx, r, webSocketWriter(ctx, conn))
	})
}

func (s *Stream) join(workspace string) *reader {
	r := &reader{workspace: workspace, events: make(chan event, readerBuffer)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[r] = struct{}{}
	return r
}

func (s *Stream) leave(r *reader) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, r)
}

// serve writes until a write fails or the stream ends.
func (s *Stream) serve(ctx context.Context, r *reader, write func(event) error) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for e := (event{}); ; {
		if e.skipped > 0 {
			if write(event{Kind: "skipped", Data: fmt.Appendf(nil, `{"count":%d}`, e.skipped)}) != nil {
				return
			}
		}
		if write(e) != nil {
			return
		}
		select {
		case e = <-r.events:
		case <-beat.C:
			e = event{skipped: r.skipped.Swap(0)}
		case <-ctx.Done():
			return
		case <-s.done:
			return
		}
	}
}

func sseWriter(w http.ResponseWriter) func(event) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	return func(e event) error {
		text := ": heartbeat\n\n"
		if e.Kind != "" {
			text = fmt.Sprintf("event: %s\nid: %s\ndata: %s\n\n", e.Kind, e.ID, e.Data)
		}
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := w.Write([]byte(text)); err != nil {
			return err
		}
		return out.Flush()
	}
}

func webSocketWriter(ctx context.Context, conn *websocket.Conn) func(event) error {
	return func(e event) error {
		ctx, cancel := context.WithTimeout(ctx, writeTimeout)
		defer cancel()
		if e.Kind == "" {
			return conn.Ping(ctx)
		}
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		return conn.Write(ctx, websocket.MessageText, text)
	}
}

package notify

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/devbroker"
	"tidemark/kafka"
)

// An sseReader reads the events of an SSE response.
type sseReader struct{ lines *bufio.Scanner }

func openSSE(t *testing.T, url string) sseReader {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if got := response.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Fatalf("content type %q", got)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	return sseReader{lines}
}

// next returns the next event as "kind id data".
func (r sseReader) next(t *testing.T) string {
	t.Helper()
	var fields []string
	for r.lines.Scan() {
		_, value, isField := strings.Cut(r.lines.Text(), ": ")
		switch {
		case strings.HasPrefix(r.lines.Text(), ":"):
		case isField:
			fields = append(fields, value)
		case len(fields) > 0:
			return strings.Join(fields, " ")
		}
	}
	t.Fatalf("the stream has ended: %v", r.lines.Err())
	return ""
}

func newStream(t *testing.T, conf kafka.Config, topic string) (*Stream, *httptest.Server) {
	t.Helper()
	s := NewStream(slog.New(slog.DiscardHandler), conf, topic)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Handler(r.URL.Query().Get("ws")).ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return s, server
}

func (s *Stream) count(workspace string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for r := range s.readers {
		if r.workspace == workspace {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("not after 10 s: %s", what)
		}
	}
}

func notice(t *testing.T, offset int64, id string) []byte {
	t.Helper()
	return record(t, 0, offset, id).Value
}

// From the topic to both kinds of readers, from the end of the topic on, each of its own workspace only.
func TestStreamFollowsTheTopic(t *testing.T) {
	conf, topic := kafka.Config{Brokers: devbroker.ForTest(t)}, fmt.Sprintf("n%d", time.Now().UnixNano())
	devbroker.CreateTopic(t, conf.Brokers, topic, 1, nil)
	client, err := kafka.NewProducer(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce := func(offset int64, id string) {
		t.Helper()
		err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: notice(t, offset, id)}).FirstErr()
		if err != nil {
			t.Fatal(err)
		}
	}
	produce(0, "a-0.1")
	s, server := newStream(t, conf, topic)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	sse, other := openSSE(t, server.URL+"?ws=a"), openSSE(t, server.URL+"?ws=b")
	socket, _, err := websocket.Dial(t.Context(), server.URL+"?ws=a", nil) //nolint:bodyclose // Dial closes it
	if err != nil {
		t.Fatal(err)
	}
	defer socket.CloseNow()
	// The follower starts at the end that it found: produce until something arrives.
	got := make(chan string)
	go func() { got <- sse.next(t) }()
	first := ""
	for i := int64(1); first == ""; i++ {
		produce(i, fmt.Sprintf("a-%d.1", i))
		select {
		case first = <-got:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if !strings.HasPrefix(first, `notice 0:`) || strings.HasPrefix(first, "notice 0:0 ") {
		t.Errorf("first: %s", first)
	}
	produce(1000, "b-1.1")
	produce(1001, "a-last.1")
	if e := other.next(t); !strings.HasPrefix(e, "notice 0:1000 ") || !strings.Contains(e, `"workspace_id":"b"`) {
		t.Errorf("workspace b got %s", e)
	}
	for {
		_, text, err := socket.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Event, ID string
			Data      struct {
				Workspace string `json:"workspace_id"`
			}
		}
		if err := json.Unmarshal(text, &e); err != nil || e.Event != "notice" || e.Data.Workspace != "a" {
			t.Fatalf("%v: %s", err, text)
		}
		if e.ID == "0:1001" {
			break
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, _, err := socket.Read(t.Context()); err == nil {
		t.Error("the socket is open after the end")
	}
	eventually(t, "the readers have left", func() bool { return s.count("a")+s.count("b") == 0 })
}

// A notice whose payload has line feeds is one event, and a tenant's notice is for that tenant alone.
func TestStreamEvents(t *testing.T) {
	s, server := newStream(t, kafka.Config{}, "notify")
	a, b := openSSE(t, server.URL+"?ws=a"), openSSE(t, server.URL+"?ws=a-1")
	value := `{"op_id":"x","workspace_id":"a","position":"7:9","at":"2026-01-01T00:00:00Z",` +
		"\r\n" + `"payload":{"n":` + "\n\n" + `"event: x"}}`
	s.publish([]byte(value))
	want := `notice 7:9 {"op_id":"x","workspace_id":"a","position":"7:9","at":"2026-01-01T00:00:00Z","payload":{"n":"event: x"}}`
	if diff := cmp.Diff(want, a.next(t)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	s.publish(notice(t, 1, "a.1"))
	s.publish(notice(t, 2, "b.1"))
	s.publish([]byte("not JSON"))
	eventually(t, "the reader of a-1 has its event", func() bool { return s.count("a-1") == 1 })
	s.publish([]byte(strings.Replace(value, `"a"`, `"a-1"`, 1)))
	if got := b.next(t); !strings.Contains(got, `"workspace_id":"a-1"`) {
		t.Errorf("workspace a-1 got %s", got)
	}
}

// A reader that does not read is told how many notices it missed, in their place; the others miss nothing.
func TestSlowReader(t *testing.T) {
	s := NewStream(slog.New(slog.DiscardHandler), kafka.Config{}, "notify")
	slow, fast := s.join("a"), s.join("a")
	var got []string
	for i := range int64(200) {
		s.publish(notice(t, i, "a.1"))
		got = append(got, (<-fast.events).ID)
	}
	if len(got) != 200 || got[199] != "0:199" {
		t.Errorf("the fast reader has %d", len(got))
	}
	var events []string
	first, release := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.serve(ctx, slow, func(e event) error {
			if e.Kind == "" {
				close(first)
				<-release
				return nil
			}
			if events = append(events, fmt.Sprintf("%s %s %.13s", e.Kind, e.ID, e.Data)); e.ID == "0:999" {
				cancel()
			}
			return nil
		})
	}()
	<-first
	close(release)
	eventually(t, "the slow reader has read", func() bool { return len(slow.events) == 0 })
	s.publish(notice(t, 999, "a.1"))
	<-ended
	tail := events[len(events)-3:]
	want := []string{"notice 0:63 {\"op_id\":\"a.1", "skipped  {\"count\":136}", "notice 0:999 {\"op_id\":\"a.1"}
	if diff := cmp.Diff(want, tail); diff != "" {
		t.Errorf("of %d events (-want +got):\n%s", len(events), diff)
	}
}

func TestWebSocketOfAnotherOriginIsRefused(t *testing.T) {
	s, server := newStream(t, kafka.Config{}, "notify")
	for origin, want := range map[string]int{server.URL: 101, "https://evil.example": 403} {
		socket, response, err := websocket.Dial(t.Context(), server.URL+"?ws=a", //nolint:bodyclose // Dial closes it
			&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if response == nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v", origin, response, err)
		}
		if err == nil {
			socket.CloseNow()
		}
	}
	eventually(t, "the readers have left", func() bool { return s.count("a") == 0 })
}

// 1,000 readers cost little, and each gets all.
func TestThousandReaders(t *testing.T) {
	s := NewStream(slog.New(slog.DiscardHandler), kafka.Config{}, "notify")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var received atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 1000 {
		r := s.join("a")
		go s.serve(ctx, r, func(e event) error {
			if e.Kind == "notice" {
				received.Add(1)
			}
			return nil
		})
	}
	value := notice(t, 1, "a.1")
	begun := time.Now()
	for i := range int64(1000) {
		s.publish(value)
		eventually(t, "all have it", func() bool { return received.Load() >= 1000*(i+1)-60 })
	}
	eventually(t, "all have all", func() bool { return received.Load() == 1_000_000 })
	took := time.Since(begun)
	runtime.GC()
	runtime.ReadMemStats(&after)
	used := (int64(after.HeapInuse+after.StackInuse) - int64(before.HeapInuse+before.StackInuse)) >> 20
	t.Logf("1,000 notices to 1,000 readers in %v, %d MiB", took, used)
	if took > 20*time.Second || used > 32 {
		t.Errorf("took %v and %d MiB", took, used)
	}
}

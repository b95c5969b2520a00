package views

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	"tidemark/codecs"
	"tidemark/devbroker"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

const noticesRoute = "/v1/workspaces/{workspace}/notices"

// impatient returns a server whose timeouts a live connection outlives.
func impatient(f *fixture) *httptest.Server {
	server := httptest.NewUnstartedServer(f.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	server.Start()
	f.t.Cleanup(server.Close)
	return server
}

// An sseReader reads the events of an SSE response.
type sseReader struct{ lines *bufio.Scanner }

func openSSE(t *testing.T, server *httptest.Server, workspace string) sseReader {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		server.URL+"/v1/workspaces/"+workspace+"/notices", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if h := response.Header; h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-cache" {
		t.Fatalf("headers %v", h)
	}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	return sseReader{lines}
}

// next returns the next event as "kind id data"; "" at the end.
func (r sseReader) next() string {
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
	return ""
}

func dial(t *testing.T, server *httptest.Server, workspace string) *websocket.Conn {
	t.Helper()
	url := server.URL + "/v1/workspaces/" + workspace + "/notices"
	socket, _, err := websocket.Dial(t.Context(), url, nil) //nolint:bodyclose // Dial closes it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.CloseNow() })
	return socket
}

// readers counts those of a workspace.
func (f *fixture) readers(workspace string) (n int) {
	f.notices.mu.Lock()
	defer f.notices.mu.Unlock()
	for r := range f.notices.readers {
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

func notice(t *testing.T, workspace string, offset int64) []byte {
	t.Helper()
	value, err := codecs.Notice{}.Encode(&tidemarkv1.Notice{
		OpId: fmt.Sprint(workspace, offset), Event: "workspace_storage_file_updated", WorkspaceId: workspace,
		Position: &tidemarkv1.Position{Offset: offset}, At: 1_700_000_000_000_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// From the topic to both kinds of readers, from the end of the topic on, each of its own workspace only. The server's
// timeouts end no reader; Stop does.
func TestNoticesFollowTheTopic(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Kafka.Brokers = devbroker.ForTest(t)
		c.Streams.Notify.Name = fmt.Sprintf("n%d", time.Now().UnixNano())
	})
	topic := f.conf.Streams.Notify.Name
	devbroker.CreateTopic(t, f.conf.Kafka.Brokers, topic, 1, nil)
	client, err := kafka.NewProducer(f.conf.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	produce := func(offset int64, workspace string) {
		t.Helper()
		r := &kgo.Record{Topic: topic, Value: notice(t, workspace, offset)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, "a")
	server := impatient(f)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go f.notices.run(ctx)
	sse, other, socket := openSSE(t, server, "a"), openSSE(t, server, "b%2F"), dial(t, server, "a")
	time.Sleep(200 * time.Millisecond) // longer than the server's timeouts
	// The topic is followed from the end that was found: produce until something arrives.
	got := make(chan string)
	go func() { got <- sse.next() }()
	first := ""
	for i := int64(1); first == ""; i++ {
		produce(i, "a")
		select {
		case first = <-got:
		case <-time.After(50 * time.Millisecond):
		}
	}
	if !strings.HasPrefix(first, `notice 0:`) || strings.HasPrefix(first, "notice 0:0 ") {
		t.Errorf("first: %s", first)
	}
	produce(1000, "b/")
	produce(1001, "a")
	if e := other.next(); !strings.HasPrefix(e, "notice 0:1000 ") || !strings.Contains(e, `"workspace_id":"b/"`) {
		t.Errorf("workspace b/ got %s", e)
	}
	for id := ""; id != "0:1001"; {
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
		id = e.ID
	}
	f.Stop()
	if _, _, err := socket.Read(t.Context()); err == nil {
		t.Error("the socket is open after Stop")
	}
	for other.lines.Scan() { // until its end
	}
	eventually(t, "the readers have left and are counted", func() bool {
		return f.readers("a")+f.readers("b/") == 0 && other.lines.Err() == nil &&
			f.answered(noticesRoute, "101") == 1 && f.answered(noticesRoute, "200") == 2
	})
}

// A notice whose payload has line feeds is one event, and a tenant's notice is for that tenant alone.
func TestNoticesAsEvents(t *testing.T) {
	f := newFixture(t)
	server := impatient(f)
	a, b := openSSE(t, server, "a"), openSSE(t, server, "a-1")
	eventually(t, "both have joined", func() bool { return f.readers("a")+f.readers("a-1") == 2 })
	value := `{"op_id":"x","workspace_id":"a","position":"7:9","at":"2026-01-01T00:00:00Z",` +
		"\r\n" + `"payload":{"n":` + "\n\n" + `"event: x"}}`
	f.notices.publish([]byte(value))
	want := `notice 7:9 {"op_id":"x","workspace_id":"a","position":"7:9","at":"2026-01-01T00:00:00Z","payload":{"n":"event: x"}}`
	if diff := cmp.Diff(want, a.next()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f.notices.publish(notice(t, "a", 1))
	f.notices.publish(notice(t, "b", 2))
	f.notices.publish([]byte("not JSON"))
	f.notices.publish([]byte(strings.Replace(value, `"a"`, `"a-1"`, 1)))
	if got := b.next(); !strings.Contains(got, `"workspace_id":"a-1"`) {
		t.Errorf("workspace a-1 got %s", got)
	}
}

// A slow reader is sent how many notices it missed, in their place; the others miss nothing. What is kept for it is
// bounded in notices and in bytes, but one notice is always kept.
func TestSlowReader(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct{ size, kept int }{{100, 64}, {100 << 10, 10}, {mib/2 + 1, 1}, {3 * mib, 1}} {
		n := newFixture(t).notices
		slow, fast := n.join("a"), n.join("a")
		offer := func(id int) liveEvent {
			e := liveEvent{Kind: "notice", ID: fmt.Sprint(id), Data: make([]byte, c.size)}
			slow.offer(e)
			fast.offer(e)
			e = <-fast.events
			fast.bytes.Add(-int64(len(e.Data)))
			return e
		}
		for i := range 200 {
			if e := offer(i); e.ID != fmt.Sprint(i) || e.skipped > 0 {
				t.Fatalf("the fast reader got %s at %d, skipped %d", e.ID, i, e.skipped)
			}
		}
		if kept := int(slow.bytes.Load()); kept != c.kept*c.size {
			t.Errorf("notices of %d: %d bytes are kept", c.size, kept)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for slow.bytes.Load() > 0 {
				time.Sleep(time.Millisecond)
			}
			offer(998)
		}()
		var got []string
		slow.serve(ctx, func(e liveEvent) error {
			switch e.Kind {
			case "notice":
				got = append(got, e.ID)
			case "skipped":
				got = append(got, string(e.Data))
			}
			if e.ID == "998" {
				cancel()
			}
			return nil
		})
		want := []string{fmt.Sprint(c.kept - 1), fmt.Sprintf(`{"count":%d}`, 200-c.kept), "998"}
		if diff := cmp.Diff(want, got[max(len(got)-3, 0):]); diff != "" {
			t.Errorf("notices of %d: of %d events (-want +got):\n%s", c.size, len(got), diff)
		}
	}
}

func TestWebSocketOfAnotherOriginIsRefused(t *testing.T) {
	f := newFixture(t)
	server := impatient(f)
	for origin, want := range map[string]int{server.URL: 101, "https://evil.example": 403} {
		socket, response, err := websocket.Dial(t.Context(), //nolint:bodyclose // Dial closes it
			server.URL+"/v1/workspaces/a/notices", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}})
		if response == nil || response.StatusCode != want {
			t.Errorf("%s: %v, %v", origin, response, err)
		}
		if err == nil {
			socket.CloseNow()
		}
		eventually(t, "the answer is counted", func() bool { return f.answered(noticesRoute, fmt.Sprint(want)) == 1 })
	}
	eventually(t, "the readers have left", func() bool { return f.readers("a") == 0 })
}

// 1,000 readers cost little, and each gets all.
func TestThousandReaders(t *testing.T) {
	f := newFixture(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var received atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 1000 {
		r := f.notices.join("a")
		go r.serve(ctx, func(e liveEvent) error {
			if e.Kind == "notice" {
				received.Add(1)
			}
			return nil
		})
	}
	value := notice(t, "a", 1)
	begun := time.Now()
	for i := range int64(1000) {
		f.notices.publish(value)
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

// What is refused before the stream is a problem, as everywhere.
func TestNoticesAreRefused(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(_ *http.Request, workspace string) (bool, error) { return workspace == "mine", nil }
	})
	if w := f.get("/v1/workspaces/theirs/notices"); code(t, w) != codeUnknownWorkspace {
		t.Errorf("denied: %d %s", w.Code, w.Body)
	}
	if w := f.get("/v1/workspaces/mine/notices?since=1"); code(t, w) != codeBadField {
		t.Errorf("an unknown parameter: %d %s", w.Code, w.Body)
	}
	if w := f.do("POST", "/v1/workspaces/mine/notices"); code(t, w) != codeMethod {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
	for _, upgrade := range []string{"", "websocket"} {
		w := f.do("HEAD", "/v1/workspaces/mine/notices", "Upgrade", upgrade)
		if body, _ := io.ReadAll(w.Body); w.Code != 200 || len(body) > 0 ||
			w.Header().Get("Content-Type") != "text/event-stream" {
			t.Errorf("HEAD: %d %v", w.Code, w.Header())
		}
	}
}

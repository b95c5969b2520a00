package views

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const notices = "/v1/workspaces/{workspace}/notices"

const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

// live is a handler of notices as the notify sink has one: server-sent events, or a connection of its own.
func live(ended chan<- struct{}) func(workspace string) http.Handler {
	return func(workspace string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			if r.Header.Get("Upgrade") == "" {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "data: %s\n\n", workspace)
				if err := http.NewResponseController(w).Flush(); err != nil {
					panic(err)
				}
				<-r.Context().Done()
				return
			}
			conn, buffered, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprint(buffered, "HTTP/1.1 101 Switching Protocols\r\n"+upgrade)
			buffered.Flush()
			line, err := buffered.ReadString('\n')
			if err != nil {
				panic(err)
			}
			fmt.Fprintf(buffered, "%s got %s", workspace, line)
			buffered.Flush()
			<-r.Context().Done()
		})
	}
}

// impatient returns a server whose timeouts a live connection outlives.
func impatient(f *fixture) *httptest.Server {
	server := httptest.NewUnstartedServer(f.Handler())
	server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
	server.Start()
	f.t.Cleanup(server.Close)
	return server
}

func await(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the handler did not end")
	}
}

func TestNoticesAsAnEventStream(t *testing.T) {
	ended := make(chan struct{})
	f := newFixture(t, func(c *Config) { c.Notices = live(ended) })
	response, err := http.Get(impatient(f).URL + "/v1/workspaces/a%2Fb/notices")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || line != "data: a/b\n" || response.Header.Get("Content-Type") != "text/event-stream" ||
		response.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("%q, %v, %v", line, err, response.Header)
	}
	time.Sleep(200 * time.Millisecond)
	select {
	case <-ended:
		t.Error("ended by the server's timeouts")
	default:
	}
	f.Stop()
	await(t, ended)
	if _, err := io.ReadAll(response.Body); err != nil || f.answered(notices, "200") != 1 {
		t.Errorf("%v, counted %g", err, f.answered(notices, "200"))
	}
}

func TestNoticesOverAHijackedConnection(t *testing.T) {
	ended := make(chan struct{})
	f := newFixture(t, func(c *Config) { c.Notices = live(ended) })
	conn, err := net.Dial("tcp", impatient(f).Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "GET /v1/workspaces/ws/notices HTTP/1.1\r\nHost: x\r\n"+upgrade)
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != 101 {
		t.Fatal(response, err)
	}
	defer response.Body.Close()
	time.Sleep(200 * time.Millisecond)
	fmt.Fprint(conn, "hello\n")
	if line, err := in.ReadString('\n'); err != nil || line != "ws got hello\n" {
		t.Errorf("%q, %v", line, err)
	}
	f.Stop()
	await(t, ended)
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Errorf("the connection ends with %q, %v", rest, err)
	}
	for begin := time.Now(); f.answered(notices, "101") != 1; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 5*time.Second {
			t.Fatal("not counted as 101")
		}
	}
}

// What is refused before the handler is a problem, as everywhere.
func TestNoticesAreRefused(t *testing.T) {
	called := false
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(_ *http.Request, workspace string) (bool, error) { return workspace == "mine", nil }
		c.Notices = func(string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				called = true
				w.WriteHeader(http.StatusTeapot)
			})
		}
	})
	if w := f.get("/v1/workspaces/theirs/notices"); code(t, w) != codeUnknownWorkspace || called {
		t.Errorf("denied: %d %s, called %v", w.Code, w.Body, called)
	}
	if w := f.get("/v1/workspaces/mine/notices?since=1"); code(t, w) != codeBadField || called {
		t.Errorf("an unknown parameter: %d %s", w.Code, w.Body)
	}
	if w := f.do("POST", "/v1/workspaces/mine/notices"); code(t, w) != codeMethod || called {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
	w := f.do("HEAD", "/v1/workspaces/mine/notices")
	if w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "text/event-stream" || called {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
	if w := f.get("/v1/workspaces/mine/notices"); w.Code != http.StatusTeapot || f.answered(notices, "418") != 1 {
		t.Errorf("the handler's own status: %d, counted %g", w.Code, f.answered(notices, "418"))
	}
	w = newFixture(t).get("/v1/workspaces/mine/notices")
	if code(t, w) != codeNoNotices || w.Code != 501 || !strings.Contains(w.Body.String(), "tidemark serve") {
		t.Errorf("without a handler: %d %s", w.Code, w.Body)
	}
}

package views

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"tidemark/problem"
)

// with replaces the fixture's handler by one that has further routes.
func (f *fixture) with(more ...route) {
	f.handler = f.routes(append(f.routeList(), more...))
}

// answered returns how many requests of a route were counted with a status.
func (f *fixture) answered(route, status string) float64 {
	f.t.Helper()
	var m dto.Metric
	if err := f.metrics.requests.WithLabelValues(route, status).Write(&m); err != nil {
		f.t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

const feed = "/v1/workspaces/{workspace}/feed"

// ticks returns a route that streams one line for each receive from next, and closes ended when its handler returns.
func (f *fixture) ticks(next <-chan struct{}, ended chan<- struct{}) route {
	return route{template: feed, methods: readOnly, table: f.Server.files, handle: func(*call) (*answer, error) {
		return &answer{contentType: "text/event-stream", stream: func(out *stream) error {
			defer close(ended)
			for i := 0; ; i++ {
				select {
				case <-next:
				case <-out.Done():
					return out.Err()
				}
				if _, err := fmt.Fprintf(out, "data: %d\n", i); err != nil {
					return err
				}
				if err := out.Flush(); err != nil {
					return err
				}
			}
		}}, nil
	}}
}

// A stream outlives the server's timeouts, sends each part when it is flushed, and ends when its client leaves and on
// Stop.
func TestStream(t *testing.T) {
	for name, leave := range map[string]func(*fixture, context.CancelFunc){
		"client leaves": func(_ *fixture, cancel context.CancelFunc) { cancel() },
		"stop":          func(f *fixture, _ context.CancelFunc) { f.Stop() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			next, ended := make(chan struct{}), make(chan struct{})
			f.with(f.ticks(next, ended))
			before := runtime.NumGoroutine()
			server := httptest.NewUnstartedServer(f.Handler())
			server.Config.ReadTimeout, server.Config.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond
			server.Start()
			defer server.Close()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/v1/workspaces/ws/feed", nil)
			if err != nil {
				t.Fatal(err)
			}
			client := server.Client()
			response, err := client.Do(request) // returns before the first part is written
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			if h := response.Header; response.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" ||
				h.Get(headerLag) != "0" || h.Get("Content-Length") != "" {
				t.Errorf("%d %v", response.StatusCode, h)
			}
			lines := bufio.NewReader(response.Body)
			for i := range 3 {
				time.Sleep(150 * time.Millisecond)
				next <- struct{}{}
				if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("part %d: %q, %v", i, line, err)
				}
			}
			leave(f, cancel)
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Fatal("the handler did not end")
			}
			if rest, err := io.ReadAll(lines); ctx.Err() == nil && (err != nil || len(rest) > 0) {
				t.Errorf("the body ends with %q, %v", rest, err)
			}
			client.CloseIdleConnections()
			server.Close()
			for begin := time.Now(); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
				if time.Since(begin) > 5*time.Second {
					t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
				}
			}
			if n := f.answered(feed, "200"); n != 1 {
				t.Errorf("%g requests are counted, want 1", n)
			}
		})
	}
}

// A stream that fails is logged and counted, and its client sees that it is incomplete.
func TestStreamFails(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	f.with(route{template: feed, methods: readOnly, table: f.Server.files, handle: func(*call) (*answer, error) {
		return &answer{stream: func(out *stream) error {
			if _, err := out.Write([]byte("half of")); err != nil {
				return err
			}
			return errors.New("the store broke")
		}}, nil
	}})
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	response, err := http.Get(server.URL + "/v1/workspaces/ws/feed")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("the client takes %q for the whole answer", body)
	}
	server.Close() // waits for the handler
	if n := f.answered(feed, "500"); n != 1 || !strings.Contains(log.String(), "the store broke") {
		t.Errorf("%g failures are counted, the log is %s", n, log.String())
	}
}

// A slowWriter is a client that accepts the headers and nothing more.
type slowWriter struct {
	*httptest.ResponseRecorder
	deadlines []time.Time
}

func (w *slowWriter) SetWriteDeadline(at time.Time) error {
	w.deadlines = append(w.deadlines, at)
	return nil
}
func (w *slowWriter) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// Each write of a stream has a deadline of its own. A client that misses it has left: that is no fault of the server.
func TestStreamToASlowClient(t *testing.T) {
	var log bytes.Buffer
	f := newFixture(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	next, ended := make(chan struct{}, 1), make(chan struct{})
	next <- struct{}{}
	f.with(f.ticks(next, ended))
	w := &slowWriter{ResponseRecorder: httptest.NewRecorder()}
	begin := time.Now()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/workspaces/ws/feed", nil))
	<-ended
	if len(w.deadlines) != 3 { // of the whole answer, of the headers, of the first part
		t.Fatalf("deadlines %v", w.deadlines)
	}
	for _, at := range w.deadlines[1:] {
		if after := at.Sub(begin); after < streamWriteTimeout || after > streamWriteTimeout+5*time.Second {
			t.Errorf("a write may take %s", after)
		}
	}
	if f.answered(feed, "200") != 1 || strings.Contains(log.String(), "ERROR") {
		t.Errorf("a client that left is counted or logged as a fault: %s", log.String())
	}
}

// HEAD of a stream has its headers, and runs nothing.
func TestHeadOfAStream(t *testing.T) {
	f := newFixture(t)
	f.with(f.ticks(nil, nil))
	w := f.do(http.MethodHead, "/v1/workspaces/ws/feed")
	if w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// Each resource has the methods of its routes, and 405 lists them.
func TestRoutesNameTheirMethods(t *testing.T) {
	f := newFixture(t)
	echo := func(c *call) (*answer, error) {
		body, err := io.ReadAll(c.request.Body)
		all := append([]byte(c.request.Method+" "+c.workspace+" "), body...)
		return &answer{status: http.StatusCreated, body: all}, err
	}
	const echoed = "/v1/workspaces/{workspace}/echo"
	f.with(
		route{echoed, []string{http.MethodPost}, f.Server.files, []string{"limit"}, echo},
		route{"/v1/status", []string{http.MethodDelete}, f.Server.files, nil, echo},
	)
	send := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader("ids")))
		return w
	}
	w := send("POST", "/v1/workspaces/a%2Fb/echo?limit=1")
	if w.Code != 201 || w.Body.String() != "POST a/b ids" {
		t.Errorf("POST: %d %s", w.Code, w.Body)
	}
	if w := send("DELETE", "/v1/status"); w.Code != 201 || w.Body.String() != "DELETE  ids" {
		t.Errorf("DELETE: %d %s", w.Code, w.Body)
	}
	if w := send("GET", "/v1/status"); w.Code != 200 || !strings.HasPrefix(w.Body.String(), "{") {
		t.Errorf("GET beside DELETE: %d %s", w.Code, w.Body)
	}
	if w := send("POST", "/v1/workspaces/ws/echo?order=1"); code(t, w) != codeBadField {
		t.Errorf("an unknown parameter of POST: %d %s", w.Code, w.Body)
	}
	for target, want := range map[string]string{
		"/v1/workspaces/ws/echo": "POST, OPTIONS",
		"/v1/status":             "GET, HEAD, DELETE, OPTIONS",
		"/v1/workspaces/ws":      "GET, HEAD, OPTIONS",
	} {
		if w := send("PUT", target); code(t, w) != codeMethod || w.Header().Get("Allow") != want {
			t.Errorf("PUT %s: %d, Allow %q, want %q", target, w.Code, w.Header().Get("Allow"), want)
		}
		if w := send("OPTIONS", target); w.Code != http.StatusNoContent || w.Header().Get("Allow") != want {
			t.Errorf("OPTIONS %s: %d, Allow %q, want %q", target, w.Code, w.Header().Get("Allow"), want)
		}
	}
	if n := f.answered(echoed, "201"); n != 1 {
		t.Errorf("%g requests with POST are counted, want 1", n)
	}
}

// targetOf returns a path of a route's template.
func targetOf(r route, workspace string) string {
	return strings.NewReplacer("{workspace}", workspace, "{file}", "a", "{position}", "0:0", "{entry}", "1:5",
		"{job}", "x-1").Replace(r.template)
}

// Every route but the open ones calls Authorize once, and a workspace that is denied is answered as one that does not
// exist, whether it does or not.
func TestAuthorizeOfEveryRoute(t *testing.T) {
	var allowed bool
	var refusal error
	var asked []string
	f := newFixture(t, func(c *Config) {
		c.Authorize = func(r *http.Request, workspace string) (bool, error) {
			asked = append(asked, r.Header.Get("Authorization")+" for "+workspace)
			return allowed, refusal
		}
		c.AuthorizeAdmin = func(r *http.Request) error {
			_, err := c.Authorize(r, "")
			return err
		}
	})
	f.put(fileRow("w/s", "a", "/a", isActive, 3))
	send := func(r route, method, workspace string) *httptest.ResponseRecorder {
		asked = nil
		return f.do(method, targetOf(r, workspace)+"?x=1", "Authorization", "me")
	}
	unknown := f.get("/v1/workspaces/nothing-here")
	list := f.routeList()
	if len(list) == 0 {
		t.Fatal("no routes")
	}
	for _, r := range list {
		for _, method := range r.methods {
			if accessTo(r, method) == everyone {
				continue
			}
			ofWorkspace, name := strings.Contains(r.template, "{workspace}"), method+" "+r.template
			want := "me for "
			if ofWorkspace {
				want += "w/s"
			}
			allowed, refusal = false, nil
			w := send(r, method, "w%2Fs")
			if len(asked) != 1 || asked[0] != want {
				t.Errorf("%s: Authorize was called for %q, want %q", name, asked, want)
			}
			if ofWorkspace {
				denyAll := send(r, method, "nothing-here")
				if w.Code != 404 || code(t, w) != codeUnknownWorkspace || w.Body.String() != denyAll.Body.String() ||
					!maps.EqualFunc(w.Header(), denyAll.Header(), slices.Equal) {
					t.Errorf("%s: %d %s, and of a workspace that does not exist %s", name, w.Code, w.Body, denyAll.Body)
				}
			} else if accessTo(r, method) != forAdmin && code(t, w) != codeUnknownPath {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}

			refusal = problem.New(http.StatusUnauthorized, "no_token", "send a token").
				With("WWW-Authenticate", "Bearer")
			w = send(r, method, "w%2Fs")
			if code(t, w) != "no_token" || w.Code != 401 || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s without a token: %d %s", name, w.Code, w.Body)
			}
			refusal = errors.New("the keys cannot be read")
			if w = send(r, method, "w%2Fs"); w.Code != 500 || strings.Contains(w.Body.String(), "keys") {
				t.Errorf("%s with a failing Authorize: %d %s", name, w.Code, w.Body)
			}
			allowed, refusal = true, nil
			if w = send(r, method, "w%2Fs"); code(t, w) != codeBadField || len(asked) != 1 { // x=1
				t.Errorf("%s, allowed: %d %s", name, w.Code, w.Body)
			}
		}
	}
	allowed, refusal = true, nil
	if w := f.get("/v1/workspaces/nothing-here"); w.Code != 404 || w.Body.String() == "" {
		t.Errorf("allowed, of no such workspace: %d", w.Code)
	} else if unknown.Body.String() != w.Body.String() {
		t.Errorf("denied %s\nunknown %s", unknown.Body, w.Body)
	}
}

// The page has all paths but those of the API, whose unknown paths stay problems.
func TestPage(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "page of ", r.URL.Path)
		})
	})
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	for _, path := range []string{"/", "/files/ws/a", "/v1x", "/openapi.json/x", "/v2/workspaces", "/../v1/status"} {
		if w := f.get(path); w.Code != 200 || w.Body.String() != "page of "+path {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1", "/v1/", "/v1/nothing", "/v1/workspaces/ws/files/", "/v1/../", "/v1//status"} {
		if w := f.get(path); code(t, w) != codeUnknownPath {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/v1/workspaces/ws/files/a", "/v1/status", "/openapi.json"} {
		if w := f.get(path); w.Code != 200 || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

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

// A slow client that moves may take longer than the server's ReadTimeout. One that stops is answered 408.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	f.uploadPause = 300 * time.Millisecond
	server := httptest.NewUnstartedServer(f.Handler())
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	send := func(pause time.Duration, query string) (status int, answer string) {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		const body = `{"files":[]}`
		fmt.Fprintf(conn, "POST /v1/workspaces/ws/changes/diff%s HTTP/1.1\r\nHost: localhost\r\n"+
			"Content-Length: %d\r\n\r\n", query, len(body))
		for i := range body {
			if _, err := conn.Write([]byte{body[i]}); err != nil {
				break // it is answered already
			}
			time.Sleep(pause)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		all, err := io.ReadAll(response.Body)
		if err != nil {
			t.Error(err)
		}
		return response.StatusCode, string(all)
	}
	if status, answer := send(30*time.Millisecond, ""); status != http.StatusOK {
		t.Errorf("a slow client: %d %s", status, answer)
	}
	status, answer := send(600*time.Millisecond, "")
	if status != http.StatusRequestTimeout || !strings.Contains(answer, codeSlowUpload) {
		t.Errorf("a client that stops: %d %s", status, answer)
	}
	// The answer may take longer than a pause of the body.
	status, answer = send(0, "?at_least=0:0&wait=1")
	if status == statusGone || answer == "" {
		t.Errorf("a slow answer: %d %s", status, answer)
	}
}

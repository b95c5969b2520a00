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
	f := newFixture(t)
	f.put(fileRow("ws", "a", "/a", isActive, 3))
	f.uploadPause = 300 * time.Millisecond
	server := httptest.NewUnstartedServer(f.Handler())
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	defer server.Close()
	send := func(pause time.Duration) *http.Response {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		const body = `{"files":[]}`
		fmt.Fprintf(conn, "POST /v1/workspaces/ws/changes/diff HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n",
			len(body))
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
		return response
	}
	response := send(30 * time.Millisecond)
	if body, err := io.ReadAll(response.Body); response.StatusCode != 200 || err != nil {
		t.Errorf("a slow client: %d %s, %v", response.StatusCode, body, err)
	}
	response = send(600 * time.Millisecond)
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), codeSlowUpload) || err != nil {
		t.Errorf("a client that stops: %d %s, %v", response.StatusCode, body, err)
	}
}

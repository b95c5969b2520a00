package ingress

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// Two connections are open; a third is answered once one of them has ended.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := HTTPServer("", http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(LimitConnections(l, 2)) }()
	open := func() net.Conn {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answered := func(conn net.Conn, within time.Duration) bool {
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return false
		}
		answer.Body.Close()
		return true
	}
	first, second := open(), open()
	if !answered(first, 5*time.Second) || !answered(second, 5*time.Second) {
		t.Fatal("within the bound, and not answered")
	}
	third := open()
	if answered(third, 100*time.Millisecond) {
		t.Fatal("a third connection was answered")
	}
	first.Close()
	if !answered(third, 5*time.Second) {
		t.Fatal("not answered when there is room")
	}
	// Full again: closing must not wait for room.
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("a full listener does not close")
	}
}

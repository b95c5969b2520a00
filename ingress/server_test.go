package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// listen serves s on a loopback port through HTTPServer, whose time limits tweak may shorten.
func listen(t *testing.T, s *Server, tweak func(*http.Server)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := HTTPServer(l.Addr().String(), s.Handler(), slog.New(slog.DiscardHandler))
	if tweak != nil {
		tweak(server)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// talk writes raw bytes on one connection and returns it.
func talk(t *testing.T, addr string, parts ...string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	for _, part := range parts {
		if _, err := io.WriteString(c, part); err != nil {
			break // the server may have hung up already; what it answered is still to be read
		}
	}
	return c
}

func status(t *testing.T, r *bufio.Reader) int {
	t.Helper()
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	return answer.StatusCode
}

func head(t *testing.T, body string, lines ...string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: x\r\n", Path)
	signed := Sign(Scheme{}, secretsOf(t, Scheme{}, anyKey)[0], []byte(body), "", noon)
	signed.Write(&b)
	for _, line := range lines {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\r\n")
	return b.String()
}

// lowered writes the headers' names, and hex values, in lower case.
func lowered(head string) string {
	line, rest, _ := strings.Cut(head, "\r\n")
	return line + "\r\n" + strings.ToLower(rest)
}

func TestOverTheWire(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	addr := listen(t, s, nil)
	chunk := func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }
	large := strings.Repeat("x", maxBody)
	length := fmt.Sprintf("Content-Length: %d", len(minimal))
	for _, test := range []struct {
		name  string
		parts []string
		want  int
	}{
		{"plain", []string{head(t, minimal, length), minimal}, 200},
		{"chunked", []string{head(t, minimal, "Transfer-Encoding: chunked"), chunk(minimal[:9]), chunk(minimal[9:]), "0\r\n\r\n"}, 200},
		{"lower-case names", []string{lowered(head(t, minimal, length)), minimal}, 200},
		{"chunked, over the cap", []string{head(t, "", "Transfer-Encoding: chunked"), chunk(large), chunk("x"), "0\r\n\r\n"}, 413},
		{"chunked without an end, over the cap", []string{head(t, "", "Transfer-Encoding: chunked"), chunk(large), chunk(large)}, 413},
		{"announced over the cap", []string{head(t, "", "Content-Length: 99999999999")}, 413},
		{"two lengths", []string{head(t, minimal, length, "Content-Length: 5"), minimal}, 400},
		{"length and chunks", []string{head(t, minimal, length, "Transfer-Encoding: chunked"), chunk(minimal), "0\r\n\r\n"}, 200},
		{"headers over the cap", []string{head(t, minimal, "X-Pad: "+large)}, 431},
	} {
		if got := status(t, bufio.NewReader(talk(t, addr, test.parts...))); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
	for _, r := range events.all() {
		if !strings.Contains(string(r.value), `"event_id":"evt1"`) {
			t.Errorf("odd record %q", r.value)
		}
	}
}

// A Content-Length below the real length: the rest is neither an event nor part of one.
func TestShortLength(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	r := bufio.NewReader(talk(t, listen(t, s, nil), head(t, minimal, "Content-Length: 10"), minimal, "\r\n\r\n"))
	if got := status(t, r); got != 401 {
		t.Errorf("first answer %d", got)
	}
	if got := status(t, r); got != 400 {
		t.Errorf("the rest, read as a request: %d", got)
	}
	if len(events.all()) != 0 {
		t.Error("an event was taken")
	}
}

// Senders that trickle hold a connection no longer than the limits say, and nobody else up.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	s, events := newTestServer(t, nil)
	addr := listen(t, s, func(server *http.Server) {
		server.ReadHeaderTimeout, server.ReadTimeout = 200*time.Millisecond, 400*time.Millisecond
	})
	headers := talk(t, addr, "POST "+Path+" HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	body := talk(t, addr, head(t, minimal, fmt.Sprintf("Content-Length: %d", len(minimal))), minimal[:10])
	quick := talk(t, addr, head(t, minimal, fmt.Sprintf("Content-Length: %d", len(minimal))), minimal)
	if got := status(t, bufio.NewReader(quick)); got != 200 {
		t.Errorf("an honest sender got %d", got)
	}
	if got := status(t, bufio.NewReader(body)); got != 408 {
		t.Errorf("a slow body got %d", got)
	}
	if _, err := io.Copy(io.Discard, headers); err != nil { // whatever it is answered, the connection is closed
		t.Errorf("slow headers: %v", err)
	}
	if n := len(events.all()); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestLimitsOfTheServer(t *testing.T) {
	t.Parallel()
	h := HTTPServer(":0", http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if h.ReadHeaderTimeout == 0 || h.ReadTimeout == 0 || h.IdleTimeout == 0 ||
		h.WriteTimeout < h.ReadTimeout+MaxAckTimeout {
		t.Errorf("limits %+v", h)
	}
}

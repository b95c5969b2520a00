package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"net/textproto"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// An application applies a request, and answers it.
type application func(w http.ResponseWriter, r *http.Request, body []byte)

// A hostile is a destination that fails at random: before it has applied a request, or after that.
type hostile struct {
	apply application

	mu      sync.Mutex
	rnd     *rand.Rand
	share   float64 // of requests that fail
	down    bool
	applied int
	faults  map[string]int
}

func newHostile(t *testing.T, seed uint64, share float64, apply application) (*hostile, string) {
	t.Helper()
	h := &hostile{apply: apply, rnd: rand.New(rand.NewPCG(seed, 18)), share: share, faults: map[string]int{}}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return h, server.URL
}

var hostileFaults = []string{"429", "500", "503", "hang", "refused", "cut"}

func (h *hostile) next() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.down:
		h.faults["down"]++
		return "refused"
	case h.rnd.Float64() >= h.share:
		h.applied++
		return ""
	}
	fault := hostileFaults[h.rnd.IntN(len(hostileFaults))]
	h.faults[fault]++
	return fault
}

func (h *hostile) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.applied
}

func (h *hostile) setDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// calm ends the faults, and returns those that there were.
func (h *hostile) calm() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.share = 0
	return h.faults
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client was killed
	}
	if r.Method != http.MethodPost || strings.HasSuffix(r.URL.Path, "/_aliases") {
		h.apply(w, r, body)
		return
	}
	switch h.next() {
	case "":
		h.apply(w, r, body)
	case "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case "hang":
		select {
		case <-r.Context().Done():
		case <-time.After(3 * time.Second):
		}
		panic(http.ErrAbortHandler)
	case "refused":
		panic(http.ErrAbortHandler)
	case "cut": // applied, and the answer never arrives whole
		h.apply(httptest.NewRecorder(), r, body)
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"took":1,"items":[{"index":{"status":201`))
		panic(http.ErrAbortHandler)
	}
}

// forward applies a request to a server.
func forward(t *testing.T, to string) application {
	t.Helper()
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		request, err := http.NewRequest(r.Method, to+r.URL.RequestURI(), bytes.NewReader(body)) // goes on after a kill
		if err != nil {
			t.Error(err)
			return
		}
		request.Header = r.Header.Clone()
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		defer response.Body.Close()
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body) // the client may be gone
	}
}

// A mailbox counts the messages that a receiver has accepted.
type mailbox struct {
	mu  sync.Mutex
	got map[string]int // by op id, event or Message-ID
}

func (m *mailbox) add(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.got == nil {
		m.got = map[string]int{}
	}
	m.got[message]++
}

// webhook is the application of a webhook's receiver.
func (m *mailbox) webhook(w http.ResponseWriter, _ *http.Request, body []byte) {
	var message struct {
		Data struct {
			OpID string `json:"op_id"`
		}
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Data.OpID == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	m.add(message.Data.OpID)
	w.WriteHeader(http.StatusNoContent)
}

// named finds the event and the workspace in a message. Its other lines may differ: of an event without a time they
// have that of its arrival, and a copy of the event has another one.
var named = regexp.MustCompile(`(?m)^    event .*$|^Workspace .*$`)

// slack is the application of an incoming webhook of Slack.
func (m *mailbox) slack(w http.ResponseWriter, _ *http.Request, body []byte) {
	var message struct{ Text string }
	if err := json.Unmarshal(body, &message); err != nil || message.Text == "" {
		http.Error(w, "no_text", http.StatusBadRequest)
		return
	}
	m.add(strings.Join(named.FindAllString(message.Text, -1), "\n"))
	_, _ = io.WriteString(w, "ok") // the client may be gone
}

// newMailServer starts an SMTP server that puts what it accepts into the mailbox.
func newMailServer(t *testing.T, seed uint64, share float64, box *mailbox) (h *hostile, addr string) {
	t.Helper()
	h = &hostile{rnd: rand.New(rand.NewPCG(seed, 18)), share: share, faults: map[string]int{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // it is closed
			}
			go h.mail(conn, box)
		}
	}()
	return h, listener.Addr().String()
}

// mail is one SMTP session. The fault is chosen with the first recipient.
func (h *hostile) mail(conn net.Conn, box *mailbox) {
	defer conn.Close()
	text, cut := textproto.NewConn(conn), false
	for answer := "220 e2e"; ; {
		if err := text.PrintfLine("%s", answer); err != nil || strings.HasPrefix(answer, "221") {
			return
		}
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		switch answer = "250 ok"; strings.ToUpper(line[:min(4, len(line))]) {
		case "RCPT":
			switch h.next() {
			case "429", "500", "503":
				answer = "451 4.3.0 try again"
			case "hang":
				time.Sleep(3 * time.Second)
				return
			case "refused":
				return
			case "cut": // accepted, and the answer never arrives
				cut = true
			}
		case "DATA":
			if err := text.PrintfLine("354 go"); err != nil {
				return
			}
			message, err := mail.ReadMessage(text.DotReader())
			if err != nil {
				return // the client was killed
			}
			if _, err := io.Copy(io.Discard, message.Body); err != nil {
				return
			}
			if box.add(message.Header.Get("Message-Id")); cut {
				return
			}
		case "QUIT":
			answer = "221 bye"
		}
	}
}

// predict is the application of a model of the Open Inference Protocol, which answers the bytes of each id.
func predict(w http.ResponseWriter, r *http.Request, body []byte) {
	type tensor struct {
		Name     string `json:"name"`
		Shape    []int  `json:"shape"`
		Datatype string `json:"datatype"`
		Data     []any  `json:"data"`
	}
	answer := map[string]any{"name": "bytes", "inputs": []tensor{{"id", []int{-1}, "BYTES", nil}}}
	if r.Method == http.MethodPost {
		var request struct{ Inputs []tensor }
		if err := json.Unmarshal(body, &request); err != nil || len(request.Inputs) != 1 {
			http.Error(w, `{"error":"want one input"}`, http.StatusBadRequest)
			return
		}
		out := tensor{Name: "bytes", Shape: request.Inputs[0].Shape, Datatype: "INT64"}
		for _, id := range request.Inputs[0].Data {
			text, _ := id.(string)
			out.Data = append(out.Data, len(text))
		}
		answer = map[string]any{"model_name": "bytes", "model_version": "1", "outputs": []tensor{out}}
	}
	_ = json.NewEncoder(w).Encode(answer) // the client may be gone
}

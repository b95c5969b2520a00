package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"tidemark/sinks"
)

// Messages wait while mail or Slack is down, however long, and each comes once when it is back.
func TestDownAndBack(t *testing.T) {
	for name, c := range map[string]struct {
		sender func(address string) Sender
		serve  func(l net.Listener, accepted *atomic.Int32)
	}{
		"slack": {
			func(address string) Sender { return slackTo(t, "http://"+address, true) },
			func(l net.Listener, accepted *atomic.Int32) {
				http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					accepted.Add(1)
					fmt.Fprint(w, `{"ok":true}`)
				}))
			},
		},
		"mail": {
			func(address string) Sender {
				return mailTo(t, mailSettings{
					Settings{SMTPURL: "smtp://" + address + "?tls=off"}, []string{"a@example.com"},
				})
			},
			func(l net.Listener, accepted *atomic.Int32) {
				for {
					if !scripted(l, accepting, false) {
						return
					}
					accepted.Add(1)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			down, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := down.Addr().String()
			down.Close()
			r := newRig(newMemory(), nil, func(s *Sink) { s.Sender = c.sender(address) })
			batch := records(t, "a-1.1", "a-2.1", "a-3.1")
			err = r.Deliver(t.Context(), batch)
			partial, ok := errors.AsType[*sinks.Partial](err)
			if !ok || len(partial.Again) != 3 || waitsOnly(partial.Err) {
				t.Fatalf("while it is down: %v", err) // a failure, so Ready shows it
			}
			rejected, left := r.drain(t, batch, 100*time.Hour)
			if len(rejected) > 0 || len(left) != 3 {
				t.Fatalf("after 100 hours: rejected %v, %d left", rejected, len(left))
			}
			up, err := net.Listen("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer up.Close()
			var accepted atomic.Int32
			go c.serve(up, &accepted)
			start := r.clock
			rejected, left = r.drain(t, left, time.Hour)
			for range 100 { // a session of the mail server ends after its client has the answer
				if accepted.Load() == 3 {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			took, n := r.clock.Sub(start), accepted.Load()
			if len(rejected)+len(left) > 0 || n != 3 || took > 15*time.Minute {
				t.Errorf("back: rejected %v, %d left, %d accepted, after %v", rejected, len(left), n, took)
			}
		})
	}
}

// Slack hangs, or breaks off within its answer, after it has posted the message. Then the message is posted again, but
// for an incoming webhook whose status has arrived.
func TestSlackThatBreaks(t *testing.T) {
	for _, c := range []struct {
		token bool
		mode  string
		want  int32 // how often it is posted
	}{
		{true, "hangs", 2},
		{false, "hangs", 2},
		{true, "is cut", 2},
		{false, "is cut", 1},
	} {
		var posted atomic.Int32
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch first := posted.Add(1) == 1; {
			case !first:
				fmt.Fprint(w, `{"ok":true}`)
			case c.mode == "hangs":
				io.Copy(io.Discard, r.Body) // else the server does not see that the client leaves
				<-r.Context().Done()
			default:
				w.Header().Set("Content-Length", "100")
				fmt.Fprint(w, `{"ok":tr`)
			}
		}))
		sender := within{slackTo(t, server.URL, c.token), 200 * time.Millisecond}
		r := newRig(newMemory(), nil, func(s *Sink) { s.Sender = sender })
		rejected, left := r.drain(t, records(t, "a-1.1"), time.Hour)
		server.Close()
		if posted.Load() != c.want || len(rejected)+len(left) > 0 {
			t.Errorf("token %v, Slack %s: posted %d times, rejected %v, %d left",
				c.token, c.mode, posted.Load(), rejected, len(left))
		}
	}
}

// within is a sender with another limit than 20 s.
type within struct {
	Sender
	limit time.Duration
}

func (w within) Send(ctx context.Context, m *Message) error {
	ctx, cancel := context.WithTimeout(ctx, w.limit)
	defer cancel()
	return w.Sender.Send(ctx, m)
}

// Package provider sends webhooks as Fast.io does: signed, in order within a workspace, many workspaces at once, and
// again with the same event id until the answer is 200.
//
// It promises to note the result of every delivery. It does not judge: the oracle compares the notes with the log.
package provider

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"tidemark/e2e/gen"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
)

// An Outcome is the result of a delivery: over several attempts Unknown beats Fail, and OK beats both.
type Outcome int

// The outcomes.
const (
	None    Outcome = iota
	Fail            // answered 4xx
	Unknown         // timed out, reset, refused, or answered 5xx
	OK              // answered 200
)

// A Note is the result of one delivery.
type Note struct {
	gen.Delivery
	Outcome  Outcome
	Attempts int
	Status   int    // of the last answer
	Answer   string // the last answer's body, when it was not 200
	Position string // as answered with the 200
	At       time.Time
}

// An Attempt is one request and its answer.
type Attempt struct {
	Workspace string
	Delivery  gen.Delivery
	Number    int // of the delivery's attempts, from 1

	URL      string
	Status   int // 0 without an answer
	Position string
	Code     string // of the problem, when it was not 200
	Took     time.Duration
	Err      error
}

// A Sender posts histories. Its counters may be read while it runs.
type Sender struct {
	URL     func() string // called before each attempt
	Secret  string
	Pace    *rate.Limiter
	Timeout time.Duration // of one attempt
	Client  *http.Client
	Even    bool          // all workspaces progress evenly; else each sends as fast as it can
	Enough  chan struct{} // closed: no further delivery is begun; nil: all are
	Saw     func(Attempt) // called after each attempt, from many goroutines; may be nil

	OK, Retries atomic.Int64

	mu       sync.Mutex
	lastOK   time.Time
	longest  time.Duration // without a 200
	latency  []time.Duration
	resolved int
}

// Run sends the history and returns the notes of each workspace, in the order of its deliveries: of all of them, or
// of those that were begun when it was enough.
func (s *Sender) Run(ctx context.Context, h *gen.History) ([][]Note, error) {
	notes := make([][]Note, len(h.Workspaces))
	total := float64(h.Deliveries())
	group, ctx := errgroup.WithContext(ctx)
	for i, w := range h.Workspaces {
		notes[i] = make([]Note, len(w.Deliveries))
		group.Go(func() error {
			for k, d := range w.Deliveries {
				for s.Even && float64(k)/float64(len(w.Deliveries)) > float64(s.Resolved())/total+0.1 &&
					ctx.Err() == nil && !s.enough() {
					time.Sleep(20 * time.Millisecond) // the slowest workspace never waits here
				}
				if s.enough() {
					notes[i] = notes[i][:k]
					return nil
				}
				if err := s.Pace.Wait(ctx); err != nil {
					return fmt.Errorf("workspace %q, delivery %d: %w", w.ID, k, err)
				}
				note, err := s.deliver(ctx, w.ID, d)
				notes[i][k] = note
				if err != nil {
					return fmt.Errorf("workspace %q, delivery %d (%s): %w", w.ID, k, d.EventID, err)
				}
			}
			return nil
		})
	}
	return notes, group.Wait()
}

func (s *Sender) enough() bool {
	select {
	case <-s.Enough:
		return true
	default:
		return false
	}
}

// deliver repeats one webhook until its answer is final: 200, or 4xx other than 429.
func (s *Sender) deliver(ctx context.Context, workspace string, d gen.Delivery) (Note, error) {
	note := Note{Delivery: d}
	wait := 20 * time.Millisecond
	for {
		to := s.URL()
		begin := time.Now()
		status, answer, err := s.post(ctx, to, d)
		note.Attempts++
		var said struct{ Position, Code string }
		if err == nil {
			// an error of a proxy need not be JSON
			if err := json.Unmarshal(answer, &said); err != nil && status == http.StatusOK {
				return note, fmt.Errorf("answer %d with %q: %w", status, answer, err)
			}
		}
		if s.Saw != nil {
			s.Saw(Attempt{
				Workspace: workspace, Delivery: d, Number: note.Attempts,
				URL: to, Status: status, Position: said.Position, Code: said.Code, Took: time.Since(begin), Err: err,
			})
		}
		switch {
		case err == nil && status == http.StatusOK:
			note.Outcome, note.Status, note.At = OK, status, time.Now()
			note.Position = said.Position
			s.acknowledged(time.Since(begin))
			return note, nil
		case err == nil && status >= 400 && status < 500 && status != http.StatusTooManyRequests:
			note.Status, note.Answer = status, string(answer)
			note.Outcome = max(note.Outcome, Fail)
			s.mu.Lock()
			s.resolved++
			s.mu.Unlock()
			return note, nil
		}
		note.Outcome, note.Status, note.Answer = Unknown, status, fmt.Sprintf("%s%v", answer, err)
		s.Retries.Add(1)
		select {
		case <-ctx.Done():
			return note, fmt.Errorf("after %d attempts, the last answered %d %s: %w", note.Attempts, status,
				note.Answer, ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, 500*time.Millisecond)
	}
}

func (s *Sender) post(ctx context.Context, to string, d gen.Delivery) (status int, answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to+"/webhook/fastio", bytes.NewReader(d.Body))
	if err != nil {
		return 0, nil, err
	}
	secret := s.Secret
	if d.Forged {
		secret += "-forged"
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Fastio-Signature", Sign(secret, d.Body))
	resp, err := s.Client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, answer, errors.Join(err, resp.Body.Close())
}

// Sign returns the value of Fastio-Signature for a body.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (s *Sender) acknowledged(latency time.Duration) {
	s.OK.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.lastOK.IsZero() {
		s.longest = max(s.longest, now.Sub(s.lastOK))
	}
	s.lastOK = now
	s.resolved++
	s.latency = append(s.latency, latency)
}

// Resolved counts the deliveries that need no further attempt.
func (s *Sender) Resolved() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resolved
}

// Figures returns the longest time without a 200 and the median and 99th percentile of the time to one.
func (s *Sender) Figures() (longestGap, p50, p99 time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.latency) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(s.latency))
	return s.longest, sorted[len(sorted)/2], sorted[len(sorted)*99/100]
}

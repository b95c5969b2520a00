// Package ingress receives Fast.io's webhooks over HTTP and appends them to the events topic.
//
// It answers 200 with the record's position only after the brokers have acknowledged the record. Any other answer says
// what the sender must correct, or that it must send the event again. The record's value is the body byte for byte,
// apart from what the envelope replaces and adds: see codecs.WithEnvelope.
//
// Memory is bounded: bodies being read, events in flight (in total and per partition), and workspaces with a rate
// limit. It does not interpret an event, nor detect duplicates: a retry is appended again, and the processors drop it.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The defaults of Config, and the longest it may wait for an acknowledgement: the sender gives up after 3 s.
const (
	DefaultMaxInFlight      = 4096
	DefaultMaxInFlightBytes = 64 << 20
	MaxAckTimeout           = 2500 * time.Millisecond

	maxLargeBytes = 64 << 20 // of bodies over freeBody being read at once
)

// Config is what a Server needs.
type Config struct {
	Scheme  Scheme
	Secrets []Secret // all are active; at least one
	Aliases Aliases

	Topic      string // of the events
	Partitions int    // that it has
	Producer   Producer
	Linger     time.Duration // how long an event waits at most, while others are in flight, to share a batch
	// Check returns why the topic cannot be written now; nil: it can. Readiness calls it at most every two seconds.
	Check func(context.Context) error

	// Rate is how many events a second a workspace may send; 0: any. Burst is how many at once; 0: twice the rate.
	Rate  float64
	Burst int

	// Each partition is limited to its share of the bounds.
	MaxInFlight      int           // events not yet acknowledged; 0: DefaultMaxInFlight
	MaxInFlightBytes int64         // 0: DefaultMaxInFlightBytes
	AckTimeout       time.Duration // 0: MaxAckTimeout

	Now     func() time.Time // nil: the wall clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: metrics are not exported
}

// A Server is the ingress role.
type Server struct {
	scheme     Scheme
	secrets    []Secret
	aliases    Aliases
	ackTimeout time.Duration
	noAck      error // readiness's reason after an acknowledgement that came too late
	now        func() time.Time

	topic    string
	producer Producer
	inFlight *inFlightLimit
	large    *semaphore // bodies over freeBody
	limiter  *limiter
	health   *health
	metrics  *metrics
	log      *slog.Logger
	handler  http.Handler
}

// A Producer writes records to the log. It is what this package needs of a *kgo.Client: one with the options of package
// kafka/producer, no linger, and a partitioner that leaves the partition as it is.
type Producer interface {
	// TryProduce must not block. It calls promise exactly once, before it returns or long after: once the record is
	// acknowledged and its offset is set, or with the reason why it may not have been written.
	TryProduce(_ context.Context, record *kgo.Record, promise func(*kgo.Record, error))
	Close()
}

// New returns a Server, or an error that names the wrong setting. It connects to nothing.
func New(c Config) (*Server, error) {
	if c.Topic == "" || c.Partitions < 1 || c.Producer == nil || c.Check == nil {
		return nil, errors.New("ingress: Topic, Partitions, Producer and Check must be set")
	}
	if len(c.Secrets) == 0 {
		return nil, errors.New("no webhook secret given: set at least one")
	}
	for i, secret := range c.Secrets {
		if err := secret.check(); err != nil {
			return nil, fmt.Errorf("webhook secret %d %w", i+1, err)
		}
	}
	if c.Rate < 0 || math.IsNaN(c.Rate) || math.IsInf(c.Rate, 0) || c.Burst < 0 {
		return nil, fmt.Errorf("rate %v with burst %d: want numbers from 0", c.Rate, c.Burst)
	}
	if c.AckTimeout < 0 || c.AckTimeout > MaxAckTimeout {
		return nil, fmt.Errorf("wait of %v for an acknowledgement: want at most %v, as the sender gives up after 3 s",
			c.AckTimeout, MaxAckTimeout)
	}
	if c.MaxInFlight < 0 || c.MaxInFlightBytes < 0 {
		return nil, fmt.Errorf("bounds of %d events and %d bytes in flight: want numbers from 0", c.MaxInFlight,
			c.MaxInFlightBytes)
	}
	c.setDefaults()
	inFlight := newInFlightLimit(c.MaxInFlight, c.MaxInFlightBytes, c.Partitions)
	m, err := newMetrics(c.Metrics, inFlight)
	if err != nil {
		return nil, fmt.Errorf("register the ingress metrics: %w", err)
	}
	s := &Server{
		scheme: c.Scheme, secrets: slices.Clone(c.Secrets), aliases: c.Aliases, ackTimeout: c.AckTimeout, now: c.Now,
		noAck: fmt.Errorf("append to %s: no acknowledgement within %v", c.Topic, c.AckTimeout),
		topic: c.Topic, producer: newBatcher(c.Producer, c.Linger),
		inFlight: inFlight, large: newSemaphore(maxLargeBytes/maxBody, maxLargeBytes),
		limiter: newLimiter(c.Rate, c.Burst),
		health:  newHealth(c.Check, c.Log), metrics: m, log: c.Log,
	}
	s.handler = s.routes()
	return s, nil
}

func (c *Config) setDefaults() {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	if c.MaxInFlightBytes == 0 {
		c.MaxInFlightBytes = DefaultMaxInFlightBytes
	}
	if c.AckTimeout == 0 {
		c.AckTimeout = MaxAckTimeout
	}
	if c.Burst == 0 {
		c.Burst = max(1, int(min(2*c.Rate, math.MaxInt32)))
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Handler serves the webhook endpoint.
func (s *Server) Handler() http.Handler { return s.handler }

// Ready returns nil when events can be taken, else the reason.
func (s *Server) Ready() error {
	if s.inFlight.draining() {
		return errClosed
	}
	return s.health.ready()
}

// Close refuses further events, waits until each one in flight is acknowledged or failed, and closes the producer; ctx
// bounds the wait. Requests should be finished first: http.Server's Shutdown does that.
func (s *Server) Close(ctx context.Context) error {
	defer s.producer.Close()
	return s.inFlight.drain(ctx)
}

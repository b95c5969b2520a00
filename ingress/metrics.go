package ingress

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// The label code is a problem's code, or "accepted": a fixed set of words, never an id.
type metrics struct {
	requests   *prometheus.CounterVec
	accepted   prometheus.Counter // of requests
	bytes      prometheus.Counter
	ackSeconds prometheus.Histogram
	late       *prometheus.CounterVec
}

const (
	accepted = "accepted"
	landed   = "landed"
	failed   = "failed"
)

// newMetrics registers the metrics with r, if r is not nil.
func newMetrics(r prometheus.Registerer, limit *inFlightLimit) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "tidemark", Subsystem: "ingress", Name: name, Help: help}
	}
	count := func() float64 { n, _ := limit.usage(); return float64(n) }
	bytes := func() float64 { _, n := limit.usage(); return float64(n) }
	ack := opts("ack_seconds", "Time from giving an event to the producer to its acknowledgement, late ones included.")
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts(opts("requests_total",
			"Webhook requests by outcome: accepted, or the code of the refusal.")), []string{"code"}),
		bytes: prometheus.NewCounter(
			prometheus.CounterOpts(opts("body_bytes_total", "Bytes of webhook bodies read whole."))),
		ackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: ack.Namespace, Subsystem: ack.Subsystem, Name: ack.Name, Help: ack.Help,
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		late: prometheus.NewCounterVec(prometheus.CounterOpts(opts("late_acks_total",
			"Events answered 503 without an acknowledgement in time, by outcome: landed or failed.")),
			[]string{"outcome"}),
	}
	m.accepted = m.requests.WithLabelValues(accepted)
	for _, outcome := range []string{landed, failed} {
		m.late.WithLabelValues(outcome)
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(
		r.Register(m.requests), r.Register(m.bytes), r.Register(m.ackSeconds), r.Register(m.late),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("in_flight",
			"Events given to the producer and not yet acknowledged or failed.")), count)),
		r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("in_flight_bytes", "Their bytes.")), bytes)),
	)
}

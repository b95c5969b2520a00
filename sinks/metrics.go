package sinks

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
)

// Metrics are the metrics of all sinks of a process.
type Metrics struct {
	records, attempts *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	breaker           *prometheus.GaugeVec
	lagRecords        *prometheus.GaugeVec
	lagSeconds        *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	position := []string{"sink", "topic", "partition"}
	m := &Metrics{
		records: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_sink_records_total",
			Help: "Records by outcome, each once however many attempts it took: delivered, rejected (a dead letter), " +
				"skipped (a retry for another sink).",
		}, []string{"sink", "outcome"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_sink_attempts_total",
			Help: "Attempts to deliver a batch, by outcome: ok, failed (made again), rejected (halved, or a dead " +
				"letter).",
		}, []string{"sink", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidemark_sink_delivery_seconds", Help: "Time of an attempt.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"sink"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_breaker_open", Help: "1 while the destination counts as down.",
		}, []string{"sink"}),
		lagRecords: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_lag_records", Help: "Records not delivered yet, of the partitions of this process.",
		}, position),
		lagSeconds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_lag_seconds", Help: "Age of the next record to deliver, 0 if there is none.",
		}, position),
	}
	r.MustRegister(m.records, m.attempts, m.seconds, m.breaker, m.lagRecords, m.lagSeconds)
	return m
}

// sinkMetrics are those of one sink.
type sinkMetrics struct {
	delivered, rejected, skipped              prometheus.Counter
	attemptOK, attemptFailed, attemptRejected prometheus.Counter
	seconds                                   prometheus.Observer
	breaker                                   prometheus.Gauge
}

// of creates the series of a sink: rate() does not see the first event of a new one.
func (m *Metrics) of(sink string) sinkMetrics {
	return sinkMetrics{
		delivered:       m.records.WithLabelValues(sink, "delivered"),
		rejected:        m.records.WithLabelValues(sink, "rejected"),
		skipped:         m.records.WithLabelValues(sink, "skipped"),
		attemptOK:       m.attempts.WithLabelValues(sink, "ok"),
		attemptFailed:   m.attempts.WithLabelValues(sink, "failed"),
		attemptRejected: m.attempts.WithLabelValues(sink, "rejected"),
		seconds:         m.seconds.WithLabelValues(sink),
		breaker:         m.breaker.WithLabelValues(sink),
	}
}

// lag shows the lags of a sink's partitions, and no longer those that it does not have any more.
func (m *Metrics) lag(sink string, lags []kafka.ConsumerLag) {
	own := prometheus.Labels{"sink": sink}
	m.lagRecords.DeletePartialMatch(own)
	m.lagSeconds.DeletePartialMatch(own)
	for _, lag := range lags {
		partition := strconv.Itoa(int(lag.Partition))
		m.lagRecords.WithLabelValues(sink, lag.Topic, partition).Set(float64(lag.Records))
		m.lagSeconds.WithLabelValues(sink, lag.Topic, partition).Set(lag.Age.Seconds())
	}
}

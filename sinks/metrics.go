package sinks

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tidemark/kafka"
)

// Metrics are the metrics of all sinks of a process.
type Metrics struct {
	records, attempts *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	breaker, refusing *prometheus.GaugeVec
	lagRecords        *prometheus.GaugeVec
	lagSeconds        *prometheus.GaugeVec
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	auto, outcome := promauto.With(r), []string{"sink", "outcome"}
	position := []string{"sink", "topic", "partition"}
	return &Metrics{
		records: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_sink_records_total",
			Help: "Records by outcome, each once however many attempts it took: delivered, rejected (a dead letter), " +
				"skipped (not for this destination).",
		}, outcome),
		attempts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_sink_attempts_total",
			Help: "Attempts to deliver a batch: ok, failed (made again), rejected (halved or dead letters).",
		}, outcome),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tidemark_sink_delivery_seconds", Help: "Time of an attempt.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"sink"}),
		breaker: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_breaker_open", Help: "1 while the destination counts as down.",
		}, []string{"sink"}),
		refusing: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_refusing", Help: "1 while records wait because the destination refuses all.",
		}, []string{"sink"}),
		lagRecords: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_lag_records", Help: "Records not delivered yet, of the partitions of this process.",
		}, position),
		lagSeconds: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_sink_lag_seconds", Help: "Age of the next record to deliver, 0 if there is none.",
		}, position),
	}
}

// sinkMetrics are the metrics of one sink. Its counters have one more label, the outcome.
type sinkMetrics struct {
	records, attempts *prometheus.CounterVec
	seconds           prometheus.Observer
	breaker, refusing prometheus.Gauge
}

// of creates the series of a sink: rate() does not see the first event of a new one.
func (m *Metrics) of(sink string) sinkMetrics {
	own := prometheus.Labels{"sink": sink}
	of := sinkMetrics{
		m.records.MustCurryWith(own), m.attempts.MustCurryWith(own), m.seconds.With(own), m.breaker.With(own),
		m.refusing.With(own),
	}
	of.count(0, 0, 0)
	for _, outcome := range []string{"ok", "failed", "rejected"} {
		of.attempts.WithLabelValues(outcome)
	}
	return of
}

func (m sinkMetrics) count(delivered, rejected, skipped int) {
	m.records.WithLabelValues("delivered").Add(float64(delivered))
	m.records.WithLabelValues("rejected").Add(float64(rejected))
	m.records.WithLabelValues("skipped").Add(float64(skipped))
}

// lag sets the lags of a sink's partitions, and deletes those of partitions that it had before and has no more.
func (m *Metrics) lag(sink string, before, lags []kafka.ConsumerLag) []kafka.ConsumerLag {
	type series struct{ topic, partition string }
	shown := map[series]bool{}
	for _, lag := range lags {
		at := series{lag.Topic, strconv.Itoa(int(lag.Partition))}
		m.lagRecords.WithLabelValues(sink, at.topic, at.partition).Set(float64(lag.Records))
		m.lagSeconds.WithLabelValues(sink, at.topic, at.partition).Set(lag.Age.Seconds())
		shown[at] = true
	}
	for _, lag := range before {
		if at := (series{lag.Topic, strconv.Itoa(int(lag.Partition))}); !shown[at] {
			m.lagRecords.DeleteLabelValues(sink, at.topic, at.partition)
			m.lagSeconds.DeleteLabelValues(sink, at.topic, at.partition)
		}
	}
	return lags
}

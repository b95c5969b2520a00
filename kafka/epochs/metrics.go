package epochs

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the metrics of one group. A nil *Metrics counts nothing.
type Metrics struct {
	epochs         prometheus.Histogram
	rows           prometheus.Counter
	rowsCoalesced  prometheus.Counter
	restarts       prometheus.Counter
	tableRewrites  prometheus.Counter
	outputRewrites prometheus.Counter
}

// NewMetrics registers the metrics of a group, with the namespace as prefix of their names.
func NewMetrics(r prometheus.Registerer, namespace, group string) *Metrics {
	labels := prometheus.Labels{"group": group}
	m := &Metrics{
		epochs: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "epoch_publish_seconds", ConstLabels: labels,
			Help:    "Time from the close of an epoch until its rows are in the local store.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		rows: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "epoch_rows_total", ConstLabels: labels, Help: "Table records published.",
		}),
		rowsCoalesced: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "epoch_rows_coalesced_total", ConstLabels: labels,
			Help: "Table records left out because the same epoch has a newer one of the same key.",
		}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Name: "processor_restarts_total", ConstLabels: labels,
			Help: "Restarts of the processor after a failure.",
		}),
	}
	m.tableRewrites = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "table_rewrites_total", ConstLabels: labels,
		Help: "Rows written again because a former owner or another writer had appended an older one, or a null, " +
			"after them.",
	})
	m.outputRewrites = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Name: "output_rewrites_total", ConstLabels: labels,
		Help: "Records of a compacted output sent again because a former owner or another writer had appended an " +
			"older one, " +
			"or a null, after them.",
	})
	r.MustRegister(m.epochs, m.rows, m.rowsCoalesced, m.restarts, m.tableRewrites, m.outputRewrites)
	return m
}

func (m *Metrics) published(rows int, took time.Duration) {
	if m != nil {
		m.epochs.Observe(took.Seconds())
		m.rows.Add(float64(rows))
	}
}

func (m *Metrics) coalesced() {
	if m != nil {
		m.rowsCoalesced.Inc()
	}
}

func (m *Metrics) tableRewritten() {
	if m != nil {
		m.tableRewrites.Inc()
	}
}

func (m *Metrics) outputRewritten() {
	if m != nil {
		m.outputRewrites.Inc()
	}
}

func (m *Metrics) restarted() {
	if m != nil {
		m.restarts.Inc()
	}
}

package history

import "github.com/prometheus/client_golang/prometheus"

// metrics count records of the notify topic. The lag is a metric of package views, which knows the ends of topics.
type metrics struct{ applied, repeated, unreadable prometheus.Counter }

func newMetrics(r prometheus.Registerer) *metrics {
	records := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_history_notices_total",
		Help: "Notices that the history has read: applied, repeated (kept already, or older than what is kept), " +
			"or unreadable (written by another program).",
	}, []string{"result"})
	r.MustRegister(records)
	return &metrics{
		applied: records.WithLabelValues("applied"), repeated: records.WithLabelValues("repeated"),
		unreadable: records.WithLabelValues("unreadable"),
	}
}

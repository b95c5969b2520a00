package views

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has no ids of workspaces or files in labels: their number is unbounded.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	skipped  *prometheus.CounterVec
	forwards *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_views_requests_total",
			Help: "Answered requests by route and status; 499 is a client that left.",
		}, []string{"route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tidemark_views_request_seconds",
			Help:    "Time to answer a request, waiting for at_least included.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 60},
		}, []string{"route"}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_views_skipped_records_total",
			Help: "Table records without effect: older than the stored row, or not written by tidemark.",
		}, []string{"table", "reason"}),
	}
	m.forwards = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tidemark_views_forwarded_total",
		Help: "Requests that were passed on to the instance that holds the workspace's partition, by result: " +
			"answered, not_owner or failed.",
	}, []string{"result"})
	r.MustRegister(m.requests, m.duration, m.skipped, m.forwards)
	return m
}

func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}

// registerGauges registers the metrics that are computed from the server's state when they are scraped.
func (m *metrics) registerGauges(r prometheus.Registerer, s *Server) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tidemark_views_partitions",
		Help: "Partitions that this instance holds. Over all instances with --hold share the sum is the number of " +
			"partitions.",
	}, func() float64 { return float64(len(s.held.partitions())) }))
	for _, t := range []*table{s.files, s.workspaces} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "tidemark_views_recovered",
			Help:        "1 once the local copy of the table's partitions that this instance holds was complete.",
			ConstLabels: prometheus.Labels{"table": t.name},
		}, func() float64 {
			if t.complete() {
				return 1
			}
			return 0
		}))
		r.MustRegister(&lagCollector{server: s, table: &t.coverage})
	}
	if s.history != nil {
		r.MustRegister(&historyLag{s})
	}
}

var historyLagRecords = prometheus.NewDesc("tidemark_history_lag_records",
	"Notices that the history has not read.", []string{"partition"}, nil)

// A historyLag reports the lag of the history by partition. Partitions whose lag is not known are left out.
type historyLag struct{ server *Server }

// Describe implements prometheus.Collector.
func (c *historyLag) Describe(out chan<- *prometheus.Desc) { out <- historyLagRecords }

// Collect implements prometheus.Collector.
func (c *historyLag) Collect(out chan<- prometheus.Metric) {
	for i := range c.server.files.frontiers {
		next, _ := c.server.history.Next(int32(i))
		end, _ := c.server.progress.notifyEnd(int32(i), time.Time{})
		if next >= 0 && end != unknown {
			out <- prometheus.MustNewConstMetric(historyLagRecords, prometheus.GaugeValue, float64(max(0, end-next)),
				strconv.Itoa(i))
		}
	}
}

var (
	lagSeconds = prometheus.NewDesc("tidemark_views_lag_seconds",
		"Age of the oldest event that is not in the local copy; 0 if none.", []string{"table", "partition"}, nil)
	lagRecords = prometheus.NewDesc("tidemark_views_lag_records",
		"Events that are not known to be in the local copy.", []string{"table", "partition"}, nil)
)

// A lagCollector reports the lag of one table by partition. Partitions without a response of the brokers are left out.
type lagCollector struct {
	server *Server
	table  *coverage
}

// Describe sends nothing: two collectors share the descriptions.
func (c *lagCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *lagCollector) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	for _, i := range c.server.held.partitions() {
		l, known := c.server.progress.lag(c.table, i, now)
		if !known {
			continue
		}
		gauge := func(desc *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, c.table.name,
				strconv.Itoa(int(i)))
		}
		gauge(lagSeconds, l.age.Seconds())
		gauge(lagRecords, float64(l.records))
	}
}

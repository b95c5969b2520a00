package telemetry

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry returns a registry with the collectors of Go and of the process, and tidemark_build_info.
func NewRegistry(build Build) *prometheus.Registry {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "tidemark_build_info",
		Help:        "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": build.Version, "revision": build.Revision, "go": build.Go},
	})
	info.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return registry
}

var readyDesc = prometheus.NewDesc("tidemark_ready", "Whether a check of /readyz passes: 1 or 0.", []string{"check"},
	nil)

// Describe makes Readiness a Prometheus collector.
func (r *Readiness) Describe(descs chan<- *prometheus.Desc) { descs <- readyDesc }

// Collect runs every check, as /readyz does.
func (r *Readiness) Collect(metrics chan<- prometheus.Metric) {
	for _, s := range r.States() {
		ready := 0.0
		if s.Err == nil {
			ready = 1
		}
		metrics <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready, s.Check)
	}
}

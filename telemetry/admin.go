package telemetry

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// AdminHandler serves /healthz, /readyz and /metrics. They are not for the public and belong on an address of their
// own.
func AdminHandler(registry *prometheus.Registry, readiness *Readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]bool{"healthy": true})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		report := struct {
			Ready   bool              `json:"ready"`
			Reasons map[string]string `json:"reasons,omitempty"` // by check, of those that fail
		}{Ready: true, Reasons: map[string]string{}}
		status := http.StatusOK
		for _, s := range readiness.States() {
			if s.Err != nil {
				report.Ready, status = false, http.StatusServiceUnavailable
				report.Reasons[s.Check] = s.Err.Error()
			}
		}
		if !report.Ready {
			w.Header().Set("Retry-After", "1")
		}
		answer(w, status, report)
	})
	mux.Handle("GET /metrics",
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry, EnableOpenMetrics: true}))
	return mux
}

func answer(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil { // not possible: strings and booleans
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(data, '\n'))
}

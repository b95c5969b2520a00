package ingress

import (
	"log/slog"
	"net/http"
	"time"
)

// HTTPServer returns a server for h with the limits of a public endpoint: headers within 5 s and 16 KiB, a request
// within 10 s, so that a slow sender cannot keep a connection. Answering takes MaxAckTimeout at most.
func HTTPServer(addr string, h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      20 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

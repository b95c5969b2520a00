package ingress

import (
	"log/slog"
	"net/http"
	"time"
)

// HeapReserve is the size of an allocation that a process keeps and never writes to, so that the garbage collector runs
// less often. A request leaves some 15 kB of garbage and the live heap has 2 MB: without it a collection would come
// every 250 requests. Pages that are never written take no memory, so the process grows by this size at most. A higher
// GOGC would also multiply the heap of a server whose bounds are reached.
const HeapReserve = 32 << 20

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

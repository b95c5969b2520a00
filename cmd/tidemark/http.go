package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// drainTimeout is how long requests that have begun may go on once the process is told to stop; then they are cut.
const drainTimeout = 15 * time.Second

// listen opens addr; flag is the one a person would change when that fails.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s %s: the address is in use by another program: stop that one or choose another address with %s", flag, addr, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
	}
	return l, nil
}

// httpServer returns a server for clients nearby: for the one on the open Internet see package ingress.
func httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong
	}
}

// serveHTTP answers on l until ctx ends, then lets the requests that have begun finish.
//
//	Serve ──▶ ctx ends ──▶ Shutdown: no new requests, the open ones finish ──▶ Close: what is left is cut
func serveHTTP(ctx context.Context, l net.Listener, server *http.Server, log *slog.Logger) error {
	log.InfoContext(ctx, "listening", "addr", l.Addr().String())
	group, over := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-over.Done()
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		err := server.Shutdown(limit)
		if errors.Is(err, context.DeadlineExceeded) {
			log.WarnContext(ctx, "cut the requests that did not end in time", "addr", l.Addr().String(), "waited", drainTimeout.String())
			return server.Close()
		}
		return err
	})
	return group.Wait()
}

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

// drainTimeout is how long open requests may take after SIGTERM; then their connections are closed.
const drainTimeout = 15 * time.Second

// listen opens addr, which was set by flag.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf(
			"%s %s: the address is in use: stop the program that uses it, or choose another address with %s",
			flag, addr, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, addr, err)
	}
	return l, nil
}

// httpServer returns a server for internal clients. For the one on the Internet see package ingress.
func httpServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // errors of clients
	}
}

// serveHTTP serves on l until ctx ends. Then it accepts no new requests, waits for the open ones, and closes what is
// left.
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
			log.WarnContext(ctx, "closed connections whose requests did not finish in time", "addr", l.Addr().String(),
				"waited", drainTimeout.String())
			return server.Close()
		}
		return err
	})
	return group.Wait()
}

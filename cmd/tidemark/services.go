package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// A service is one part of a process.
type service struct {
	name string
	run  func(ctx context.Context) error // blocks until ctx ends, then drains
	addr string                          // that it listens on, if any
}

// runServices runs all services until ctx ends or one of them does. Then it calls drain, and stops the services one by
// one: it cancels services[0], waits until that has returned, cancels services[1], and so on. So a service that
// receives work is listed before the one that does it. A service that ends before it is stopped has failed.
func runServices(ctx context.Context, drain func(), services ...service) error {
	group, over := errgroup.WithContext(ctx)
	stops := make([]func(), 0, len(services))
	for _, s := range services {
		running, cancel := context.WithCancel(context.WithoutCancel(ctx))
		stopped := make(chan struct{})
		stops = append(stops, func() {
			cancel()
			<-stopped
		})
		group.Go(func() error {
			defer close(stopped)
			err := s.run(running)
			switch {
			case running.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return nil
			case err == nil:
				return fmt.Errorf("%s: ended unexpectedly", s.name)
			}
			return fmt.Errorf("%s: %w", s.name, err)
		})
	}
	group.Go(func() error {
		<-over.Done()
		drain()
		for _, stop := range stops {
			stop()
		}
		return nil
	})
	return group.Wait()
}

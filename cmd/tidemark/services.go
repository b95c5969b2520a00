package main

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// A service is one part of a running process.
type service struct {
	name string
	run  func(ctx context.Context) error // blocks until ctx ends, then drains
	addr string                          // where it listens, if it does
}

// runServices runs all services until ctx ends or one of them does, then calls drain and stops them one by one, in their order:
//
//	ctx or a failure ──▶ drain() ──▶ services[0] told ──▶ has left ──▶ services[1] told ──▶ has left ──▶ …
//
// So what takes requests in is listed before what works on them. A service that ends by itself has failed.
func runServices(ctx context.Context, drain func(), services ...service) error {
	group, over := errgroup.WithContext(ctx)
	stops := make([]func(), 0, len(services))
	for _, s := range services {
		running, cancel := context.WithCancel(context.WithoutCancel(ctx))
		left := make(chan struct{})
		stops = append(stops, func() {
			cancel()
			<-left
		})
		group.Go(func() error {
			defer close(left)
			err := s.run(running)
			switch {
			case running.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return nil
			case err == nil:
				return fmt.Errorf("%s: ended although nobody stopped it", s.name)
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

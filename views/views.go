// Package views answers questions about files and workspaces over HTTP, from local copies of the two tables.
//
// It promises that an answer is not older than the Tidemark-Lag-Seconds beside it, but for the 2 s after which it is noticed that
// the brokers are silent; that a read with at_least holds the effect of that position; and that a page costs what it returns. It refuses to guess: before a copy was complete once, and
// past the staleness that the operator allows, there is no answer but 503. It writes to no topic.
package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tidemark/kafka"
	"tidemark/topology"
)

// Config is what a Server needs.
type Config struct {
	Kafka   kafka.Config
	Streams topology.Streams
	Dir     string // of the local copies; one process at a time
	Log     *slog.Logger
	Metrics prometheus.Registerer

	// MaxStaleness is the age of an answer past which there is none; zero: any age is answered, and told.
	MaxStaleness time.Duration
	// Duplicates returns how many events were dropped as duplicates; nil where the files processor runs elsewhere.
	Duplicates func() int64
	// DeadLettered returns how many dead letters are open, if that is known; nil where nobody counts them.
	DeadLettered func() (n int64, ok bool)
}

// A Server keeps the copies up to date and answers from them.
type Server struct {
	conf       Config
	files      *table
	workspaces *table
	progress   *progress
	metrics    *metrics
	handler    http.Handler
	stopping   chan struct{} // closed by stop: nobody need wait any longer
	stop       func()
}

// New returns a Server that does nothing until Run.
func New(conf Config) (*Server, error) {
	if conf.Log == nil || conf.Metrics == nil || conf.Dir == "" {
		return nil, errors.New("views: Log, Metrics and Dir must be set")
	}
	if _, err := conf.Kafka.Franz(); err != nil { // what is wrong with the settings is better said now
		return nil, err
	}
	s := &Server{conf: conf, stopping: make(chan struct{})}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	s.metrics = newMetrics(conf.Metrics)
	s.files = newTable("files", conf.Streams.Files, filepath.Join(conf.Dir, "files"), applyFile, s.metrics, conf.Log)
	s.workspaces = newTable("workspaces", conf.Streams.Workspaces, filepath.Join(conf.Dir, "workspaces"), applyWorkspace, s.metrics, conf.Log)
	s.progress = newProgress(s.files, s.workspaces, conf.Log)
	s.metrics.watch(conf.Metrics, s)
	s.handler = s.routes()
	return s, nil
}

// Run keeps the copies up to date until ctx ends. It returns an error only for what waiting does not mend.
func (s *Server) Run(ctx context.Context) error {
	cluster, err := connect(s.conf.Kafka, s.conf.Streams)
	if err != nil {
		return err
	}
	defer cluster.close()
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, s.stop)
	group.Go(func() error { return s.files.run(ctx, s.conf.Kafka, s.conf.Streams) })
	group.Go(func() error { return s.workspaces.run(ctx, s.conf.Kafka, s.conf.Streams) })
	group.Go(func() error { s.progress.run(ctx, cluster); return nil })
	return group.Wait()
}

// Stop ends the reads that wait, with 503: an HTTP server that shuts down would wait for them. All others are answered as before.
func (s *Server) Stop() { s.stop() }

// Handler serves the API. It must not stand behind a router that cleans paths, such as http.ServeMux: ids may be "..".
func (s *Server) Handler() http.Handler { return s.handler }

// Ready returns nil when there are answers, else why there are none.
func (s *Server) Ready() error {
	for _, t := range []*table{s.files, s.workspaces} {
		if err := t.ready(); err != nil {
			return err
		}
	}
	if age := s.progress.silence(time.Now()); s.conf.MaxStaleness > 0 && age > s.conf.MaxStaleness {
		return fmt.Errorf("no word from the brokers for %s: answers may be that old", age.Round(time.Second))
	}
	return nil
}

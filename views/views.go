// Package views serves the state of files and workspaces over HTTP, and what changed since a cursor, from local copies
// of the two tables. It serves searches from an index, live notices from their topic, and the past from package
// history. One place decides which requests need a token.
//
// It promises that an answer is not older than its Tidemark-Lag-Seconds, except for the first 2 s in which brokers do
// not respond; that a read with at_least includes the effect of that position; and that the cost of a page depends on
// its length, not on the size of the table. A page of the past reads a bounded number of rows. Before a copy was
// complete once, and past the staleness that the operator allows, it answers 503. It writes to no topic.
package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tidemark/history"
	"tidemark/kafka"
	"tidemark/topology"
)

// Config has the settings of a Server.
type Config struct {
	Kafka   kafka.Config
	Streams topology.Streams
	Dir     string // of the local copies; used by one process at a time
	Log     *slog.Logger
	Metrics prometheus.Registerer

	// Authorize decides about each request that needs a token by accessRules, before its parameters are read; nil
	// allows all. The workspace is "" for a resource that belongs to none. Where allowed is false, the answer is that
	// of a workspace or path that does not exist. An error that is a *problem.Problem is answered as it is, any other
	// one with 500.
	Authorize func(request *http.Request, workspace string) (allowed bool, err error)
	// Workspaces returns the workspaces that an authorized request may list, or that it may list all; used with
	// Authorize.
	Workspaces func(request *http.Request) (ids []string, all bool, err error)
	// AuthorizeAdmin decides about a request for the dead letters, which are those of every workspace; used with
	// Authorize.
	AuthorizeAdmin func(request *http.Request) error
	// DeadLetters answers /v1/dlq and what is below it; nil: it is answered 501.
	DeadLetters http.Handler
	// Session answers /v1/session, which keeps a token for browsers; nil: no token is needed.
	Session http.Handler
	// Page serves all paths outside of the API; nil: they are answered 404.
	Page http.Handler

	Search *Search // nil: search is answered 501
	Share  *Share  // nil: this instance holds all partitions

	// MaxStaleness is the age of data past which requests are answered 503; zero: no limit.
	MaxStaleness time.Duration
	// CursorLifetime is how long a cursor of the changes is valid; zero: 30 days.
	CursorLifetime time.Duration
	// History is how long changes are kept, for the history of files and for answers as of an earlier position; at most
	// the retention of the notify topic. Zero: they are answered 501.
	History time.Duration
	// Duplicates returns how many events were dropped as duplicates; nil if the files processor runs in another
	// process.
	Duplicates func() int64
	// DeadLettered returns how many dead letters are open, if that is known; nil if they are not counted.
	DeadLettered func() (n int64, ok bool)
}

// A Server keeps the copies up to date and answers from them.
type Server struct {
	conf       Config
	held       *holding
	members    *membership // nil: this instance holds all partitions
	files      *table
	workspaces *table
	search     *searchCoverage // nil: no search
	notices    *notices
	history    *history.Copy // nil: none
	progress   *progress
	metrics    *metrics
	handler    http.Handler
	heartbeat  time.Duration // between two heartbeats of a stream
	shared     sharedPages
	pastEnds   pastEnds
	diffs      chan struct{} // has an element for each diff that is being answered
	scans      chan struct{} // the same of answers that read a whole workspace
	traces     chan struct{} // the same of answers about events
	usages     usageCache
	eventTimes eventTimes
	running    context.Context // ends with Stop
	stop       context.CancelFunc

	recheckEvery time.Duration // see whileAllowed
	uploadPause  time.Duration

	// eventAfter is brokers.eventAfter.
	eventAfter func(ctx context.Context, partition int32, at time.Time) (offset, start int64, err error)
	cluster    atomic.Pointer[brokers] // nil before Run
}

// New returns a Server that does nothing until Run.
func New(conf Config) (*Server, error) {
	if conf.Log == nil || conf.Metrics == nil || conf.Dir == "" {
		return nil, errors.New("views: Log, Metrics and Dir must be set")
	}
	if _, err := conf.Kafka.Franz(); err != nil { // wrong settings are reported before Run
		return nil, err
	}
	s := &Server{conf: conf, recheckEvery: recheckEvery, heartbeat: heartbeatInterval, uploadPause: uploadPause}
	s.diffs, s.scans = make(chan struct{}, maxDiffs), make(chan struct{}, maxScans)
	s.traces = make(chan struct{}, maxTraces)
	s.running, s.stop = context.WithCancel(context.Background())
	s.metrics = newMetrics(conf.Metrics)
	if err := s.divide(); err != nil {
		return nil, err
	}
	s.files = newTable("files", conf.Streams.Files, s.held, filepath.Join(conf.Dir, "files"), fileRows, s.metrics,
		conf.Log)
	s.workspaces = newTable("workspaces", conf.Streams.Workspaces, s.held, filepath.Join(conf.Dir, "workspaces"),
		workspaceRows, s.metrics, conf.Log)
	if conf.Search != nil {
		s.search = newSearchCoverage(conf.Streams.Events.Partitions, conf.Search.VisibleAfter)
	}
	if conf.History != 0 {
		var err error
		if s.history, err = history.New(history.Config{
			Kafka: conf.Kafka, Streams: conf.Streams, Dir: filepath.Join(conf.Dir, "history"), Keep: conf.History,
			Log: conf.Log, Metrics: conf.Metrics,
		}); err != nil {
			return nil, err
		}
	}
	s.eventAfter = s.askEventAfter
	s.notices = newNotices(conf.Log, conf.Kafka, conf.Streams.Notify.Name)
	s.progress = newProgress(s.files, s.workspaces, s.search, conf.Log)
	s.metrics.registerGauges(conf.Metrics, s)
	s.handler = s.routes(s.routeList())
	return s, nil
}

// Run keeps the copies up to date until ctx ends. It returns an error only if trying again cannot help.
func (s *Server) Run(ctx context.Context) error {
	cluster, err := connect(s.conf.Kafka, s.conf.Streams, s.search != nil)
	if err != nil {
		return err
	}
	defer cluster.close()
	s.cluster.Store(cluster)
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, s.stop)
	if s.members != nil {
		group.Go(func() error { return s.members.run() })
	}
	group.Go(func() error { return s.files.run(ctx, s.conf.Kafka, s.conf.Streams) })
	group.Go(func() error { return s.workspaces.run(ctx, s.conf.Kafka, s.conf.Streams) })
	group.Go(func() error { s.progress.run(ctx, cluster); return nil })
	group.Go(func() error { s.notices.run(ctx); return nil })
	if s.history != nil {
		group.Go(func() error { return s.history.Run(ctx) })
	}
	return group.Wait()
}

func (s *Server) askEventAfter(ctx context.Context, partition int32, at time.Time) (offset, start int64, err error) {
	cluster := s.cluster.Load()
	if cluster == nil {
		return 0, 0, errors.New("not started")
	}
	return cluster.eventAfter(ctx, partition, at)
}

// Stop ends the requests that wait, with 503, and those that stream: an HTTP server that shuts down would wait for
// them. Other requests are answered as before.
func (s *Server) Stop() { s.stop() }

// Handler serves the API and the page. It must not be used behind a router that cleans paths, such as http.ServeMux:
// ids may be "..".
func (s *Server) Handler() http.Handler { return s.handler }

// Ready returns nil if requests are answered, else the reason why they are not. It uses what Run has found and sends
// no request to the brokers.
//
// An instance that shares the partitions with others stays ready while it reads those that it takes over: it answers
// about the others as before.
func (s *Server) Ready() error {
	for _, t := range []*table{s.files, s.workspaces} {
		check := t.ready
		if s.members != nil && s.members.wasReady.Load() {
			check = t.running
		}
		if err := check(); err != nil {
			return err
		}
	}
	if s.members != nil {
		if err := s.members.ready(); err != nil {
			return err
		}
		s.members.wasReady.Store(true)
	}
	if age := s.progress.silence(time.Now()); s.conf.MaxStaleness > 0 && age > s.conf.MaxStaleness {
		return fmt.Errorf("no word from the brokers for %s: answers may be that old", age.Round(time.Second))
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tidemark/doctor"
	"tidemark/kafka"
	"tidemark/sinks"
	"tidemark/sinks/search"
	"tidemark/topology"
	"tidemark/views"
)

// searchFlags say where the search index is.
type searchFlags struct {
	SearchURL          string `help:"OpenSearch or Elasticsearch, http(s)://host:port without user and password${embedded}." name:"search-url" default:"${search_url}" placeholder:"URL" group:"Search"`
	SearchIndex        string `help:"Alias that is written and queried; indexes are NAME-000001 and so on." default:"fastio-files" placeholder:"NAME" group:"Search"`
	SearchUsername     string `help:"User; the password is in TIDEMARK_SEARCH_PASSWORD or --search-password-file." placeholder:"USER" group:"Search"`
	SearchPasswordFile string `help:"File with the password; or set TIDEMARK_SEARCH_PASSWORD." placeholder:"FILE" group:"Search"`
	SearchCAFile       string `help:"PEM file of the CA certificates to trust instead of the system's." name:"search-ca-file" placeholder:"FILE" group:"Search"`
}

// open returns the sink, which answers queries too.
func (f searchFlags) open(log *slog.Logger, streams topology.Streams) (*search.Sink, error) {
	password, err := secret("TIDEMARK_SEARCH_PASSWORD", "--search-password-file", f.SearchPasswordFile)
	if err != nil {
		return nil, err
	}
	roots, err := trusted("--search-ca-file", f.SearchCAFile)
	if err != nil {
		return nil, err
	}
	sink, err := search.New(search.Config{
		URL: f.SearchURL, Index: f.SearchIndex, Username: f.SearchUsername, Password: password, TLS: roots,
		Log: log.With("sink", topology.SinkSearch), Predictions: streams.Predictions.Name,
	})
	if err != nil {
		return nil, usageError{err}
	}
	return sink, nil
}

// refuseEmbedded returns an error for the embedded index, which only its own process can read.
func (f searchFlags) refuseEmbedded() error {
	if strings.EqualFold(f.SearchURL, search.Embedded) {
		return usagef("--search-url embedded works only in `tidemark dev`: want http(s)://host:port of OpenSearch or " +
			"Elasticsearch")
	}
	return nil
}

// destination returns the doctor's check, which creates no index.
func (f searchFlags) destination() (doctor.Destination, error) {
	sink, err := f.open(slog.New(slog.DiscardHandler), topology.Streams{})
	return doctor.Destination{Name: topology.SinkSearch, Check: func(ctx context.Context) error {
		_, err := sink.Search(ctx, search.Query{Workspace: "doctor", Limit: 1})
		return err
	}}, err
}

// loop returns the loop of the search sink.
func (f searchFlags) loop(h *host, sink sinks.Sink, instance string) (*sinks.Loop, error) {
	config := h.sinkConfig(topology.SinkSearch, instance, h.streams.Index, h.streams.Predictions)
	config.BufferBytes = searchBuffer
	return sinks.NewLoop(config, sink)
}

// searchBuffer is for each partition: the requests to the server limit the rate.
const searchBuffer = 384 << 10

// services returns the search sink. The embedded index is filled beside it.
func (f searchFlags) services(h *host, sink *search.Sink, instance string) ([]service, error) {
	loop, err := f.loop(h, sink, instance)
	if err != nil {
		return nil, err
	}
	run := h.sink(topology.SinkSearch, loop, sink.Check)
	deliver := run.run
	run.run = func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return deliver(ctx) })
		if sink.Incomplete() {
			group.Go(func() error {
				return h.gate.then(func(ctx context.Context) error {
					err := sinks.WhileUnreachable(ctx, h.log, func() error { return f.rebuild(ctx, h, sink) })
					if ctx.Err() != nil { // the next start fills it
						return nil
					}
					return err
				})(ctx)
			})
		}
		return group.Wait()
	}
	return []service{run}, nil
}

// rebuild fills a new index, while sinks go on.
func (f searchFlags) rebuild(ctx context.Context, h *host, sink *search.Sink) error {
	next := map[string]kafka.Spans{}
	return sink.Rebuild(ctx, func(ctx context.Context, to sinks.Sink) error {
		loop, err := f.loop(h, to, "")
		if err != nil {
			return err
		}
		for _, topic := range []topology.Topic{h.streams.Index, h.streams.Predictions} {
			spans, err := kafka.StableExtent(ctx, h.kafka, topic.Name)
			if err != nil {
				return err
			}
			for partition, before := range next[topic.Name] {
				span := spans[partition]
				spans[partition] = kafka.Span{From: max(span.From, before.To), To: span.To}
			}
			next[topic.Name] = spans
			if err := loop.Deliver(ctx, topic, spans); err != nil {
				return err
			}
		}
		return nil
	})
}

// search returns what the query API searches with; nil without an index.
func (f searchFlags) search(sink *search.Sink) *views.Search {
	if sink == nil {
		return nil
	}
	s := &views.Search{
		Query: func(ctx context.Context, q views.SearchQuery) (views.SearchPage, error) {
			page, err := sink.Search(ctx, search.Query(q))
			if errors.Is(err, search.ErrCursor) {
				err = fmt.Errorf("%w: %w", views.ErrSearchCursor, err)
			}
			return views.SearchPage(page), err
		},
		Refresh: sink.Refresh,
	}
	if !strings.EqualFold(f.SearchURL, search.Embedded) {
		s.VisibleAfter = time.Second // index.refresh_interval
	}
	return s
}

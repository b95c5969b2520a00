package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"tidemark/e2e/rig"
)

// searchable measures the time from a webhook to the answer of a search that has the file, at a rate of other webhooks.
// OpenSearch refreshes an index every second.
func searchable(ctx context.Context, s setup) (_ result, err error) {
	s.events = 0
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	ingest, err := i.ingress(ctx, "ingest")
	if err != nil {
		return nil, err
	}
	defer ingest.Close()
	process, err := i.process()
	if err != nil {
		return nil, err
	}
	defer process.Close()
	f := &fill{installation: i}
	sink, _, err := f.tidemark()
	if err != nil {
		return nil, err
	}
	defer sink.Close()
	if err := sink.Start(); err != nil {
		return nil, err
	}
	for _, p := range []*rig.Program{process, sink} {
		if _, err := p.AwaitReady(ctx, patience); err != nil {
			return nil, err
		}
	}
	load := s.crowd(ingest)
	load.rate = int(s.rate)
	howLong := time.Duration(s.seconds) * time.Second
	running, end := context.WithTimeout(ctx, howLong)
	defer end()
	var loading sync.WaitGroup
	loading.Go(func() { load.run(running, howLong) })
	took, err := f.probe(running, &crowd{client: load.client, to: load.to})
	loading.Wait()
	figures := result{
		"measured": "searchable", "rate": s.rate, "probes": len(took),
		"p50_ms": quantile(took, 0.50), "p99_ms": quantile(took, 0.99), "max_ms": quantile(took, 1),
		"sink_peak_rss_mb": int(sink.Usage().PeakMB),
	}
	return figures, errors.Join(err, stop(ingest), stop(process), stop(sink),
		f.ask(ctx, http.MethodDelete, i.prefix+"-documents-000001", "", nil), i.close(ctx))
}

// probe sends one event after the other, each when a search has found the file before it.
func (f *fill) probe(ctx context.Context, sender *crowd) (took []time.Duration, err error) {
	sent := int64(0)
	sender.body = func(n int64) []byte {
		sent = n
		return fmt.Appendf(nil, `{"event":"workspace_storage_file_added","event_id":"probe%d","workspace_id":"probe%d",`+
			`"object_id":"f%d","path":"/f%d"}`, n, n%97, n, n)
	}
	answers := &tally{took: map[string][]time.Duration{}}
	for ctx.Err() == nil && err == nil {
		begin := time.Now()
		sender.send(ctx, answers)
		_, err = rig.Until(ctx, time.Minute, func() (bool, error) {
			var found struct {
				Hits struct{ Hits []json.RawMessage }
			}
			query := fmt.Sprintf(`{"query":{"ids":{"values":["probe%d/f%d"]}}}`, sent%97, sent)
			err := f.ask(ctx, http.MethodPost, f.prefix+"-documents/_search", query, &found)
			return len(found.Hits.Hits) > 0, err
		})
		if ctx.Err() != nil {
			return took, nil
		}
		took = append(took, time.Since(begin))
	}
	return took, err
}

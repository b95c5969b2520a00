package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/e2e/oracle"
	"tidemark/e2e/rig"
)

// search measures how fast an OpenSearch cluster is filled from the index topic: by `tidemark sink search`, and by the
// stock connector on Kafka Connect as deploy/connect configures it, by turns.
func search(ctx context.Context, s setup) (result, error) {
	if s.searchURL == "" {
		return nil, errors.New("no OpenSearch: set -search-url or OPENSEARCH_URL")
	}
	i, err := s.install(ctx)
	if err != nil {
		return nil, err
	}
	p, err := i.process()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	if err := errors.Join(i.awaitCommit(ctx, i.group(), p), stop(p)); err != nil {
		return nil, err
	}
	fill := &fill{installation: i, documents: map[string]bool{}}
	for partition := range s.partitions {
		err := oracle.Each(ctx, s.brokers, i.topics.Index, partition, func(r *kgo.Record) {
			fill.records++
			fill.bytes += len(r.Value)
			var record struct{ Op string }
			if json.Unmarshal(r.Value, &record) == nil { // a marker of a transaction is none
				fill.documents[string(r.Key)] = record.Op == "upsert"
			}
		})
		if err != nil {
			return nil, err
		}
	}
	for _, live := range fill.documents {
		if live {
			fill.live++
		}
	}
	figures := result{
		"measured": "search", "partitions": s.partitions, "records": fill.records, "documents": len(fill.documents),
		"bytes_per_record": fill.bytes / max(1, fill.records), "connect_tasks": s.tasks,
	}
	best := map[string]float64{}
	for round := range s.rounds {
		for _, who := range []string{"tidemark", "connect"} {
			if s.parts != "" && s.parts != who {
				continue
			}
			r, err := fill.run(ctx, who)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", who, err)
			}
			figures[fmt.Sprintf("%s_%d", who, round+1)] = r
			best[who] = max(best[who], r["documents_per_s"].(float64))
		}
	}
	if best["tidemark"] > 0 && best["connect"] > 0 {
		figures["ratio_of_best"] = per(best["tidemark"], best["connect"])
	}
	return figures, i.close(ctx)
}

// A fill is an index topic that is written to OpenSearch.
type fill struct {
	*installation
	records, bytes, live int
	documents            map[string]bool // by key: false if the last record is a delete
}

// run fills OpenSearch once, from the start of the topic, and deletes what it wrote.
func (f *fill) run(ctx context.Context, who string) (result, error) {
	program, index, want, err := f.tidemark, f.prefix+"-documents*", len(f.documents), error(nil)
	if who == "connect" {
		program, index, want = f.connect, f.topics.Index, f.live // tidemark keeps a document of a deleted file
		// As the connector creates it, but without copies, which one node cannot have.
		err = f.ask(ctx, http.MethodPut, index, `{"settings":{"number_of_replicas":0}}`, nil)
	}
	if err != nil {
		return nil, err
	}
	p, group, err := program()
	if err != nil {
		return nil, err
	}
	defer p.Close()
	launched := time.Now()
	if err := p.Start(); err != nil {
		return nil, err
	}
	// From the first document on: the start of a process, and of Java in particular, is no part of the rate.
	_, err = rig.Until(ctx, patience, func() (bool, error) {
		n, err := f.written(ctx, index)
		return n > 0, errors.Join(err, p.Signal(0))
	})
	if err != nil {
		return nil, fmt.Errorf("wait for the first document: %w\n%s", err, p.Tail())
	}
	begin, before := time.Now(), p.Usage()
	cpu, err := f.cpu(ctx)
	if err != nil {
		return nil, err
	}
	if _, err = rig.Until(ctx, patience, func() (bool, error) {
		n, err := f.written(ctx, index)
		if err != nil || n >= f.records {
			return true, err
		}
		lag, err := rig.Lag(ctx, f.client, group, f.topics.Index)
		return lag == 0 && err == nil, p.Signal(0)
	}); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, p.Tail())
	}
	took, used := time.Since(begin), p.Usage()
	after, err := f.cpu(ctx)
	if err != nil {
		return nil, err
	}
	figures := result{
		"documents_per_s": per(float64(f.records), took.Seconds()), "seconds": per(took.Seconds(), 1),
		"seconds_with_start": per(time.Since(launched).Seconds(), 1),
		"cpu_s":              per((used.CPU - before.CPU).Seconds(), 1), "peak_rss_mb": int(used.PeakMB),
		"opensearch_cpu_s": per((after - cpu).Seconds(), 1),
	}
	if err := errors.Join(f.same(ctx, index, want), p.Signal(syscall.SIGTERM)); err != nil {
		return nil, err
	}
	// Not stop: Java exits with 143.
	_, err = rig.Until(ctx, drainLimit, func() (bool, error) { return !p.Alive(), nil })
	// So that the next run starts at the start.
	deleted, gone := kadm.NewClient(f.client).DeleteGroups(ctx, group)
	return figures, errors.Join(err, gone, deleted.Error(), f.ask(ctx, http.MethodDelete, index, "", nil))
}

// tidemark is this project's sink.
func (f *fill) tidemark() (*rig.Program, string, error) {
	command := append([]string{
		"sink", "search", "--search-url", f.searchURL, "--search-index", f.prefix + "-documents",
	}, f.flags()...)
	return rig.New(f.binary, f.dir, "sink", command...), f.prefix + "-sink-search", nil
}

// connect is the stock connector.
func (f *fill) connect() (*rig.Program, string, error) {
	if f.plugins == "" {
		return nil, "", errors.New("no connector: set -plugins to a folder that has Aiven's OpenSearch connector")
	}
	plugins, err := filepath.Abs(f.plugins)
	if err != nil {
		return nil, "", err
	}
	p, err := rig.Connect(".", f.dir, "opensearch-aiven.properties",
		[]string{"bootstrap.servers=" + strings.Join(f.brokers, ","), "plugin.path=" + plugins},
		[]string{
			"name=" + f.prefix, "topics=" + f.topics.Index, "connection.url=" + f.searchURL,
			fmt.Sprintf("tasks.max=%d", f.tasks), "errors.deadletterqueue.topic.name=" + f.topics.DLQ,
			"errors.deadletterqueue.topic.replication.factor=1",
		})
	if err == nil {
		p.Env = []string{"KAFKA_HEAP=1g", "KAFKA_JVM=-XX:+UseG1GC"}
	}
	return p, "connect-" + f.prefix, err
}

// written is how many documents have been written or deleted, visible or not.
func (f *fill) written(ctx context.Context, index string) (int, error) {
	var stats struct {
		All struct {
			Primaries struct {
				Indexing struct {
					Indexed int `json:"index_total"`
					Deleted int `json:"delete_total"`
				}
			}
		} `json:"_all"`
	}
	err := f.ask(ctx, http.MethodGet, index+"/_stats/indexing", "", &stats)
	n := stats.All.Primaries.Indexing
	return n.Indexed + n.Deleted, err
}

// cpu is what OpenSearch has used since its start. On a machine that is shared it says more than seconds do.
func (f *fill) cpu(ctx context.Context) (sum time.Duration, err error) {
	var stats struct {
		Nodes map[string]struct {
			Process struct {
				CPU struct {
					Total int64 `json:"total_in_millis"`
				}
			}
		}
	}
	err = f.ask(ctx, http.MethodGet, "_nodes/stats/process", "", &stats)
	for _, node := range stats.Nodes {
		sum += time.Duration(node.Process.CPU.Total) * time.Millisecond
	}
	return sum, err
}

// same reports an error unless there are that many documents.
func (f *fill) same(ctx context.Context, index string, want int) error {
	var count struct{ Count int }
	err := errors.Join(f.ask(ctx, http.MethodPost, index+"/_refresh", "", nil),
		f.ask(ctx, http.MethodGet, index+"/_count", "", &count))
	if err == nil && count.Count != want {
		err = fmt.Errorf("%d documents, want %d: no rate", count.Count, want)
	}
	return err
}

// ask sends a request to OpenSearch.
func (f *fill) ask(ctx context.Context, method, path, body string, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, f.searchURL+"/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}

package model_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/devbroker"
	"tidemark/kafka"
	"tidemark/sinks"
	"tidemark/sinks/model"
	"tidemark/topology"
)

// A model that hangs delays its own rule only, and its files are predicted once it answers. What a model refuses is a
// dead letter of its rule.
func TestRulesOnTheLoop(t *testing.T) {
	streams, err := topology.New(fmt.Sprintf("m%d", time.Now().UnixNano()),
		topology.Sizing{Partitions: 4, Replication: 1, MinISR: 1})
	if err != nil {
		t.Fatal(err)
	}
	conf := kafka.Config{Brokers: devbroker.ForTest(t)}
	if _, err := kafka.ApplyTopics(t.Context(), conf, streams.Topics()); err != nil {
		t.Fatal(err)
	}
	producer, err := kafka.NewProducer(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(producer.Close)
	answers := make(chan struct{})
	fast := httptest.NewServer(http.HandlerFunc(double))
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-answers:
			double(w, r)
		case <-time.After(5 * time.Second):
		}
	}))
	t.Cleanup(fast.Close)
	t.Cleanup(slow.Close)
	metrics := sinks.NewMetrics(prometheus.NewRegistry())
	for name, url := range map[string]string{"fast": fast.URL, "slow": slow.URL} {
		run(t, sinks.Config{
			Name: "model-" + name, Kafka: conf, Streams: streams, Topics: []topology.Topic{streams.Index},
			Log: slog.New(slog.DiscardHandler), Metrics: metrics,
		}, model.Config{
			Rule: rule(t, fmt.Sprintf("{name: %s, deadline: 300ms, batch: 4, kserve: {url: %q, model: m}, "+
				"inputs: [{name: size, field: size}]}", name, url)),
			Topic: streams.Predictions, Producer: producer,
		})
	}
	const n = 20
	var records []*kgo.Record // written at once: the one that is refused must not be alone in its batch
	for i := range n {
		record := index(t, fmt.Sprintf("f%d", i), 1, size(int64(i)))
		records = append(records, &kgo.Record{
			Topic: streams.Index.Name, Partition: kafka.FilePartition(record.Key, 4),
			Key: record.Key, Value: record.Value,
		})
	}
	if err := producer.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	predictions := newReader(t, conf, streams.Predictions)
	predictions.await(map[string]int{"fast": n - 1})
	close(answers)
	predictions.await(map[string]int{"fast": n - 1, "slow": n - 1})
	deadline := time.Now().Add(30 * time.Second)
	for queue := deadletters.New(conf, streams); ; time.Sleep(50 * time.Millisecond) {
		entries, err := queue.Entries(t.Context(), deadletters.Filter{})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d dead letters, %v", len(entries), err)
		}
		if len(entries) == 2 && entries[0].Sink != entries[1].Sink { // one file, size 13, in each rule
			return
		}
	}
}

func run(t *testing.T, config sinks.Config, rule model.Config) {
	t.Helper()
	loop, err := sinks.NewLoop(config, model.New(rule))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := loop.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
}

// A reader counts predictions by rule.
type reader struct {
	t      *testing.T
	client *kgo.Client
	got    map[string]int
}

func newReader(t *testing.T, conf kafka.Config, topic topology.Topic) *reader {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(conf.Brokers...), kgo.ConsumeTopics(topic.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &reader{t, client, map[string]int{}}
}

func (r *reader) await(want map[string]int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	for fmt.Sprint(r.got) != fmt.Sprint(want) {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil {
			r.t.Fatalf("predictions %v, want %v", r.got, want)
		}
		fetches.EachRecord(func(record *kgo.Record) {
			var p model.Prediction
			if err := json.Unmarshal(record.Value, &p); err != nil {
				r.t.Error(err)
			}
			r.got[p.Rule]++
		})
	}
}

package sinks

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tidemark/kafka"
	"tidemark/topology"
)

// A partition that stays keeps its series, and one that has gone does not.
func TestLagOfPartitions(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := NewMetrics(registry)
	before := m.lag("s", nil, []kafka.ConsumerLag{{Topic: "a", Partition: 1, Records: 5}, {Topic: "a", Partition: 2}})
	kept := m.lagRecords.WithLabelValues("s", "a", "1")
	m.lag("s", before, []kafka.ConsumerLag{{Topic: "a", Partition: 1, Records: 7}, {Topic: "b", Partition: 2}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if first := family.Metric[0].GetGauge().GetValue(); family.GetName() == "tidemark_sink_lag_records" &&
			(len(family.Metric) != 2 || first != 7) {
			t.Errorf("%v", family)
		}
	}
	if m.lagRecords.WithLabelValues("s", "a", "1") != kept {
		t.Error("the series was deleted, and made again: a scrape between finds nothing")
	}
}

// Ready says that the lag is old.
func TestLagIsStale(t *testing.T) {
	streams, err := topology.New("p", topology.Single)
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLoop(Config{
		Name: "s", Kafka: kafka.Config{Brokers: []string{"127.0.0.1:1"}}, Streams: streams,
		Topics: []topology.Topic{streams.Index}, Log: slog.New(slog.DiscardHandler),
		Metrics: NewMetrics(prometheus.NewRegistry()),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const stale = "the lag in the metrics is older than 30s"
	l.lagAt = time.Now()
	l.showLag(t.Context()) // fails: it does not run
	if err := l.Ready(); strings.Contains(err.Error(), stale) {
		t.Error(err)
	}
	l.lagAt = time.Now().Add(-time.Minute)
	l.showLag(t.Context())
	if err := l.Ready(); !strings.Contains(err.Error(), stale) {
		t.Error(err)
	}
}

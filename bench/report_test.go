package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// trials are three of tidemark and one of Kafka Streams.
func trials() *comparison {
	of := func(variant string, rate float64) trial {
		return trial{Variant: variant, EventsPerS: rate, ClientCPU: 10}
	}
	return &comparison{
		Runs: []trial{
			of(tidemarkOnce, 30_000), of(streamsOnce, 10_000), of(tidemarkOnce, 14_000), of(tidemarkOnce, 16_000),
		},
		Discarded: []unused{{
			Part: "throughput", Variant: "goka", Repetition: 2, Why: "other programs used 40 % of the CPU",
		}},
		Refused: []unused{{
			Part: "throughput", Variant: "franz", Repetition: 1, Why: "no record of the event at 0:7",
		}},
		Parts:   map[string]string{"throughput": "commit abc, today"},
		Control: "no record", MaxForeign: 0.1,
	}
}

func TestReport(t *testing.T) {
	t.Chdir("..") // where make bench runs
	dir := t.TempDir()
	if err := trials().write(dir); err != nil {
		t.Fatal(err)
	}
	report, err := os.ReadFile(filepath.Join(dir, reportFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"| at_least_once / Kafka Streams: rate | ≥ 1.5 | 1.60 | met |",
		"| at_least_once / Kafka Streams: CPU | ≤ 0.65 | 1.00 | **not met** |",
		"| exactly_once / Kafka Streams exactly_once_v2: rate | ≥ 1.4 |  | not measured |",
		"| tidemark, at_least_once | 16.0 (14.0–30.0) | 10.0 (10.0–10.0) |",
		"| Kafka Streams tuned, at_least_once | 10.0 |",
		"| goka, stock | no run |",
		"| throughput: goka | 2 | other programs used 40 % of the CPU |",
		"| throughput: franz | 1 | no record of the event at 0:7 |",
		"Of 6 runs 4 count; 1 were discarded",
	} {
		if !strings.Contains(string(report), line) {
			t.Errorf("the report lacks %q", line)
		}
	}
	if strings.Contains(string(report), "This limit is above") {
		t.Error("the report warns of the limit")
	}
}

// TestParts: a part that is measured again replaces its figures, and leaves those of the others.
func TestParts(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	old := trials()
	old.Events, old.Partitions = 7, 8
	old.Latency = []latencyRun{{Variant: tidemarkOnce, Rate: latencyRates[1], P99: 12.5, span: span{Foreign: 0.02}}}
	old.Parts["latency"] = "commit abc, today"
	if err := old.write(dir); err != nil {
		t.Fatal(err)
	}
	s := setup{report: dir, events: 7, partitions: 8, parts: "throughput"}
	r, err := begun(s)
	if err != nil {
		t.Fatal(err)
	}
	u := &suite{setup: s, report: r}
	measured := part{
		"throughput", func(u *suite, _ context.Context) error { u.report.Runs = []trial{{Variant: "goka"}}; return nil },
		func(r *comparison) { r.Runs = nil }, false,
	}
	if err := u.run(t.Context(), measured); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 1 || len(r.Discarded)+len(r.Refused) != 0 {
		t.Errorf("runs that do not count any more: %v, %v, %v", r.Runs, r.Discarded, r.Refused)
	}
	if len(r.Latency) != 1 || r.Latency[0] != old.Latency[0] || r.Parts["latency"] != old.Parts["latency"] {
		t.Errorf("latency is %v of %q", r.Latency, r.Parts["latency"])
	}
	s.events = 8
	if r, err = begun(s); err != nil || len(r.Latency) > 0 {
		t.Errorf("latency is that of another input: %v, %v", r.Latency, err)
	}
}

func TestChosenParts(t *testing.T) {
	some, err := chosenParts("growth,throughput")
	if err != nil || len(some) != 2 || some[0].name != "throughput" {
		t.Errorf("%v, %v: want throughput, which is measured first, and growth", some, err)
	}
	if _, err := chosenParts("latency,no"); err == nil {
		t.Error("a part that does not exist is chosen")
	}
}

// TestCounted: a run beside others is measured again, and the report has why.
func TestCounted(t *testing.T) {
	u := &suite{setup: setup{foreign: 0.1}, report: &comparison{}, part: "growth"}
	shares := []float64{0.5, 0.05}
	run, ok, err := counted(t.Context(), u, "x", 2, func() (span, error) {
		next := shares[0]
		shares = shares[1:]
		return span{Foreign: next}, nil
	})
	if err != nil || !ok || run.Foreign != 0.05 {
		t.Errorf("%v, %v, %v: want the second run", run, ok, err)
	}
	want := []unused{{"growth", "x", 2, "other programs used 50 % of the CPU", 0.5}}
	if diff := cmp.Diff(want, u.report.Discarded); diff != "" {
		t.Error(diff)
	}
}

// TestNeeds: 86.4 million events a day are 1,000 a second, and 5,000 at the peak.
func TestNeeds(t *testing.T) {
	r := &comparison{Events: 1000, Runs: []trial{{
		Variant: tidemarkOnce, ClientCPU: 24, MB: map[string]float64{"table": 0.2},
		Records: map[string]int64{"table": 400},
	}}, Instances: []instancesRun{{Role: "ingest", Instances: 1, EventBytes: 500, CPUus: math.NaN()}}}
	needs := map[string]string{}
	for _, row := range r.costs().needs([]dailyLoad{{"", 86.4e6}}).rows {
		needs[row[0]] = row[1]
	}
	for title, want := range map[string]string{
		"events/s at the peak, 5 times that":       "5,000",
		"cores of `process`":                       "0.20",  // 5,000 times 24 µs, at 60 %
		"partitions":                               "32",    // the least
		"disk of the brokers, GB: `fastio-events`": "3,890", // 500 bytes, 30 days, 3 replicas
		"… `fastio-files-table`":                   "259",   // 500 bytes a record, twice, 3 replicas
		"cores of `ingest`":                        "not measured",
	} {
		if needs[title] != want {
			t.Errorf("%s: %q, want %q", title, needs[title], want)
		}
	}
}

// TestScalingPage: the page has the places for the tables.
func TestScalingPage(t *testing.T) {
	t.Chdir("..")
	dir := t.TempDir()
	if err := trials().writeScaling(dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, scalingFile))
	if err != nil {
		t.Fatal(err)
	}
	again, err := replaceBetween(string(page), "needs", "x\n")
	if err != nil || strings.Contains(again, "| cores of") || !strings.Contains(again, "## How the work is divided") {
		t.Errorf("%v\n%s", err, again)
	}
}

// TestWebhooks: the ratio and the latency at half of the rate are in the targets.
func TestWebhooks(t *testing.T) {
	figures, err := flat(result{"rate_ratio": 0.65, "half_p99_ms": 9, "without_kafka": result{"per_s": 21_000.0}})
	if err != nil {
		t.Fatal(err)
	}
	r := &comparison{Ingress: []ingressTrial{{Figures: figures}}}
	page := targetTable(r).tables[0].markdown() + webhookCost(r).tables[0].markdown()
	for _, line := range []string{
		"without Kafka: rate | ≥ 0.7 | 0.65 | **not met** |", "half of its maximum | ≤ 10 ms | 9.00 ms | met |",
		"| the same server without Kafka | 21.0 |",
	} {
		if !strings.Contains(page, line) {
			t.Errorf("no %q in %s", line, page)
		}
	}
}

// TestFilesAreComputed: events of a file have its path, though files are not kept.
func TestFilesAreComputed(t *testing.T) {
	in := newInput(setup{events: 1, files: 50, workspaces: 3, partitions: 2, added: 0.2, seed: 1})
	paths := map[string]string{}
	for range 1000 {
		e, _ := in.next()
		var event struct {
			Object string `json:"object_id"`
			Path   string
		}
		if err := json.Unmarshal(e.value, &event); err != nil {
			t.Fatal(err)
		}
		if path, known := paths[event.Object]; known && path != event.Path {
			t.Fatalf("%s is at %s and at %s", event.Object, path, event.Path)
		}
		paths[event.Object] = event.Path
	}
	if len(paths) != 50 {
		t.Errorf("%d files, want 50", len(paths))
	}
}

// TestIncomplete: the command must fail if the report lacks a figure.
func TestIncomplete(t *testing.T) {
	r := trials()
	err := r.incomplete(variants[:3]) // exactly_once has no run
	if err == nil || !strings.Contains(err.Error(), "tidemark-eos has no run") ||
		!strings.Contains(err.Error(), "franz was refused") {
		t.Error(err)
	}
	if r.Refused = nil; r.incomplete(variants[:2]) != nil {
		t.Error(r.incomplete(variants[:2]))
	}
}

func TestPlot(t *testing.T) {
	text := plot{title: "a < b", unit: "s", bars: []bar{{"x & y", 2, 1, 4, true}, {"z", 1, 1, 1, false}}}.svg()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
	}
	if want := `class="ours" x="270" y="44" width="200.0"`; !strings.Contains(text, want) { // half of the largest
		t.Errorf("no %s in %s", want, text)
	}
}

func TestForeign(t *testing.T) {
	before := load{machine: 10 * time.Second, broker: time.Second}
	after := load{machine: 16 * time.Second, broker: 3 * time.Second, self: time.Second}
	one := foreign(before, after, 2*time.Second, 10*time.Second) // 6 s of the machine less 2, 1 and 2
	if two := foreign(before, after, time.Second, 10*time.Second); one <= 0 || two != 2*one {
		t.Errorf("1 s is a share of %v, 2 s of %v", one, two)
	}
}

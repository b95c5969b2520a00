package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

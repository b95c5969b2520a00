package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	reportFile = "performance.md"
	plotFolder = "performance" // beside it; it has the results as JSON too
)

// A section is one part of the report. sections makes them.
type section struct {
	title, text string
	tables      []table
	plots       []plot
}

// sections are the parts of the report in their order. Another measurement is one more function here.
var sections = []func(*comparison) section{targets, throughput, ratios, writtenBytes, validity}

// A table has a row for each variant, or for each ratio.
type table struct {
	header []string
	rows   [][]string
}

func (t table) markdown() string {
	line := func(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }
	var b strings.Builder
	b.WriteString(line(t.header) + "|---" + strings.Repeat("|---:", len(t.header)-1) + "|\n")
	for _, row := range t.rows {
		b.WriteString(line(row))
	}
	return b.String()
}

// write writes the report, its plots and the results.
func (r *comparison) write(dir string) error {
	folder := filepath.Join(dir, plotFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	results, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	failed := write(filepath.Join(folder, "results.json"), string(results)+"\n")
	var b strings.Builder
	b.WriteString("# Performance\n\nWritten by `make bench`; do not edit. What is compared, and what makes a run " +
		"count: [decision 37](decisions/0037-bench.md).\nAll figures as JSON: [results.json](" +
		plotFolder + "/results.json).\n\n")
	for _, line := range r.Machine {
		b.WriteString("- " + line + "\n")
	}
	fmt.Fprintf(&b, "- %d events of %d files, %d of them no repeats, in %d partitions; %d repetitions, by turns; one "+
		"Apache Kafka broker on the same machine\n", r.Events, r.Files, r.Unique, r.Partitions, r.Repetitions)
	for _, make := range sections {
		s := make(r)
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.title, s.text)
		for _, p := range s.plots {
			fmt.Fprintf(&b, "\n![%s](%s/%s)\n", p.title, plotFolder, p.file)
			failed = errors.Join(failed, write(filepath.Join(folder, p.file), p.svg()))
		}
		for _, t := range s.tables {
			b.WriteString("\n" + t.markdown())
		}
	}
	return errors.Join(failed, write(filepath.Join(dir, reportFile), b.String()))
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

// A spread is the median of the runs of a variant, with the extremes. It is of no run when n is 0.
type spread struct {
	median, min, max float64
	n                int
}

func (r *comparison) spread(variant string, of func(trial) float64) spread {
	var all []float64
	for _, run := range r.Runs {
		if run.Variant == variant {
			all = append(all, of(run))
		}
	}
	if len(all) == 0 {
		return spread{}
	}
	slices.Sort(all)
	half := len(all) / 2
	return spread{(all[half] + all[len(all)-1-half]) / 2, all[0], all[len(all)-1], len(all)}
}

// text has three digits, and the extremes when they differ.
func (s spread) text(scale float64) string {
	if s.n == 0 {
		return "no run"
	}
	f := func(x float64) string { return short(x / scale) }
	if s.n == 1 {
		return f(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", f(s.median), f(s.min), f(s.max))
}

func short(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// A metric is one figure of a run.
type metric struct {
	name, unit, file string
	of               func(trial) float64
	scale            float64
}

const perMillion = "s per million events"

var (
	eventRate = metric{
		"Rate", "thousand events/s", "rate.svg", func(r trial) float64 { return r.EventsPerS }, 1000,
	}
	clientCPU = metric{"CPU of the client", perMillion, "cpu.svg", func(r trial) float64 { return r.ClientCPU }, 1}
	peakRSS   = metric{"Peak memory", "MB resident", "rss.svg", func(r trial) float64 { return r.PeakRSSMB }, 1}
	brokerCPU = metric{"CPU of the broker", perMillion, "broker.svg", func(r trial) float64 { return r.BrokerCPU }, 1}
	metrics   = []metric{eventRate, clientCPU, peakRSS, brokerCPU}
)

func throughput(r *comparison) section {
	s := section{
		title: "Throughput",
		text: "From the first index record to the last commit: the median of the runs that count, and the least and " +
			"the greatest. CPU of the client and of the broker in that time.",
	}
	t := table{header: []string{""}}
	for _, m := range metrics {
		t.header = append(t.header, m.name+", "+m.unit)
		s.plots = append(s.plots, r.plot(m))
	}
	for _, v := range variants {
		cells := []string{v.title}
		for _, m := range metrics {
			cells = append(cells, r.spread(v.name, m.of).text(m.scale))
		}
		t.rows = append(t.rows, cells)
	}
	s.tables = []table{t}
	return s
}

func (r *comparison) plot(m metric) plot {
	p := plot{file: m.file, title: m.name, unit: m.unit}
	for _, v := range variants {
		if s := r.spread(v.name, m.of); s.n > 0 {
			p.bars = append(p.bars, bar{
				v.title, s.median / m.scale, s.min / m.scale, s.max / m.scale, strings.HasPrefix(v.name, "tidemark"),
			})
		}
	}
	return p
}

// ratio divides medians.
func (r *comparison) ratio(variant, by string, m metric) (float64, bool) {
	a, b := r.spread(variant, m.of), r.spread(by, m.of)
	return a.median / b.median, a.n > 0 && b.n > 0 && b.median > 0
}

func ratios(r *comparison) section {
	t := table{header: []string{"ratio of medians"}}
	for _, m := range metrics {
		t.header = append(t.header, m.name)
	}
	row := func(title, variant, by string) {
		cells := []string{title}
		for _, m := range metrics {
			x, ok := r.ratio(variant, by, m)
			cells = append(cells, text(x, ok))
		}
		t.rows = append(t.rows, cells)
	}
	for _, v := range variants {
		by, of := streamsOnce, "Kafka Streams at_least_once"
		if v.name == tidemarkExactly || v.name == streamsExactly {
			by, of = streamsExactly, "Kafka Streams exactly_once_v2"
		}
		if v.name != by {
			row(v.title+" / "+of, v.name, by)
		}
	}
	row("tidemark, at_least_once / the bound", tidemarkOnce, franzBound)
	row("tidemark, exactly_once / the bound", tidemarkExactly, franzBound)
	return section{
		title: "Ratios", text: "Absolute figures are those of one machine and one hour; ratios carry further.",
		tables: []table{t},
	}
}

func text(x float64, ok bool) string {
	if !ok {
		return "no run"
	}
	return fmt.Sprintf("%.2f", x)
}

func writtenBytes(r *comparison) section {
	t := table{header: []string{""}}
	topics := []string{"index", "notify", "table"}
	for _, topic := range topics {
		t.header = append(t.header, topic+", MB", topic+", thousand records")
	}
	for _, v := range variants {
		cells := []string{v.title}
		for _, topic := range topics {
			cells = append(cells, r.spread(v.name, func(r trial) float64 { return r.MB[topic] }).text(1),
				r.spread(v.name, func(r trial) float64 { return float64(r.Records[topic]) }).text(1000))
		}
		t.rows = append(t.rows, cells)
	}
	return section{
		title: "Bytes written", tables: []table{t},
		text: "On the broker, before compaction. Records are end offsets, with the markers of transactions. " +
			"goka compresses with Snappy by default, the others do not compress.",
	}
}

func validity(r *comparison) section {
	var b strings.Builder
	fmt.Fprintf(&b, "Every index record and every notice of each run was compared with what the input demands, and "+
		"the last row of each file in the changelog. Of %d runs %d count; %d were discarded because others used "+
		"more than %.0f %% of the CPU, and %d were refused: wrong outputs, or a failure.\n\nThe control, the franz-go "+
		"loop that loses one event, was refused: `%s`.\n", len(r.Runs)+len(r.Discarded)+len(r.Refused), len(r.Runs),
		len(r.Discarded), 100*r.MaxForeign, len(r.Refused), r.Control)
	if r.MaxForeign > 0.1 {
		b.WriteString("\n**This limit is above 10 %: the figures show that the benchmark works, and nothing else.**\n")
	}
	t := table{header: []string{"run that does not count", "repetition", "why"}}
	for _, x := range slices.Concat(r.Discarded, r.Refused) {
		t.rows = append(t.rows, []string{x.Variant, fmt.Sprint(x.Repetition), x.Why})
	}
	s := section{title: "Runs", text: b.String()}
	if len(t.rows) > 0 {
		s.tables = []table{t}
	}
	return s
}

// targets are those of the project, with the figures.
func targets(r *comparison) section {
	t := table{header: []string{"target", "wanted", "measured", ""}}
	for _, g := range []struct {
		variant, by, title string
		m                  metric
		want               float64
		most               bool // want is the most
	}{
		{tidemarkOnce, streamsOnce, "at_least_once / Kafka Streams: rate", eventRate, 1.5, false},
		{tidemarkOnce, streamsOnce, "at_least_once / Kafka Streams: CPU", clientCPU, 0.65, true},
		{tidemarkOnce, streamsOnce, "at_least_once / Kafka Streams: memory", peakRSS, 0.4, true},
		{tidemarkOnce, streamsOnce, "at_least_once / Kafka Streams: CPU of the broker", brokerCPU, 1.2, true},
		{tidemarkExactly, streamsExactly, "exactly_once / Kafka Streams: rate", eventRate, 1.4, false},
		{tidemarkExactly, streamsExactly, "exactly_once / Kafka Streams: CPU", clientCPU, 0.7, true},
		{tidemarkExactly, streamsExactly, "exactly_once / Kafka Streams: memory", peakRSS, 0.5, true},
		{tidemarkExactly, streamsExactly, "exactly_once / Kafka Streams: CPU of the broker", brokerCPU, 1.2, true},
		{tidemarkOnce, franzBound, "at_least_once / the bound: rate", eventRate, 0.65, false},
	} {
		x, ok := r.ratio(g.variant, g.by, g.m)
		sign, met := "≥", x >= g.want
		if g.most {
			sign, met = "≤", x <= g.want
		}
		verdict := "**missed**"
		if met {
			verdict = "met"
		}
		if !ok {
			verdict = ""
		}
		t.rows = append(t.rows, []string{g.title, fmt.Sprintf("%s %.2f", sign, g.want), text(x, ok), verdict})
	}
	return section{title: "Targets", text: "Ratios of medians.", tables: []table{t}}
}

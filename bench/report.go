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
	reportFile  = "performance.md"
	plotFolder  = "performance" // beside it; it has the results as JSON too
	resultsFile = "results.json"
)

// A section is one part of the report. sections makes them.
type section struct {
	title, text string
	tables      []table
	plots       []plot
}

// sections are the parts of the report in their order. Another measurement is one more function here.
var sections = []struct {
	part string // without which it is left out; empty: it has figures of all
	of   func(*comparison) section
}{
	{"", targetTable},
	{"throughput", throughput},
	{"throughput", ratios},
	{"throughput", writtenBytes},
	{"latency", latencies},
	{"recovery", starts},
	{"recovery", queries},
	{"ingress", webhookCost},
	{"growth", growthCost},
	{"instances", instanceCost},
	{"", validity},
}

// A table has a row for each variant, ratio or load.
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
	failed := write(filepath.Join(folder, resultsFile), string(results)+"\n")
	var b strings.Builder
	b.WriteString("# Performance\n\nWritten by `make bench`; do not edit. What is compared, and what makes a run " +
		"count: [decision 37](decisions/0037-bench.md).\nAll figures as JSON: [results.json](" +
		plotFolder + "/" + resultsFile + "). What they mean for an installation: [scaling.md](scaling.md).\n\n")
	for _, line := range r.Machine {
		b.WriteString("- " + line + "\n")
	}
	if r.Files > 0 {
		fmt.Fprintf(&b, "- The input: %s events of %s files, %s of them no repeats\n", whole(r.Events), whole(r.Files),
			whole(r.Unique))
	}
	fmt.Fprintf(&b, "- %d partitions, %d repetitions by turns, one Apache Kafka broker on the same machine\n",
		r.Partitions, r.Repetitions)
	for _, p := range parts {
		if when := r.Parts[p.name]; when != "" {
			fmt.Fprintf(&b, "- %s: %s\n", p.name, when)
		}
	}
	for _, one := range sections {
		if one.part != "" && r.Parts[one.part] == "" {
			continue
		}
		s := one.of(r)
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.title, s.text)
		for _, p := range s.plots {
			fmt.Fprintf(&b, "\n![%s](%s/%s)\n", p.title, plotFolder, p.file)
			failed = errors.Join(failed, write(filepath.Join(folder, p.file), p.svg()))
		}
		for _, t := range s.tables {
			b.WriteString("\n" + t.markdown())
		}
	}
	return errors.Join(failed, write(filepath.Join(dir, reportFile), b.String()), r.writeScaling(dir))
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }

// A spread is the median of the runs of a variant, with the extremes. It is of no run when n is 0.
type spread struct {
	median, min, max float64
	n                int
}

func (r *comparison) spread(variant string, of func(trial) float64) spread {
	return spreadOf(r.Runs, func(run trial) bool { return run.Variant == variant }, of)
}

// spreadOf is that of some runs.
func spreadOf[T any](runs []T, chosen func(T) bool, of func(T) float64) spread {
	var all []float64
	for _, run := range runs {
		if chosen(run) {
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

// bar is that of a plot.
func (s spread) bar(label string, scale float64, ours bool) bar {
	return bar{label, s.median / scale, s.min / scale, s.max / scale, ours}
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

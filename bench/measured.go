package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// whole is a number with separators of thousands.
func whole[T int | float64](x T) string {
	digits := fmt.Sprintf("%.0f", float64(x))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func (l latencyRun) p50() float64 { return l.P50 }
func (l latencyRun) p99() float64 { return l.P99 }

func (r *comparison) latencies(variant string, rate float64, of func(latencyRun) float64) spread {
	return spreadOf(r.Latency, func(l latencyRun) bool { return l.Variant == variant && l.Rate == rate }, of)
}

func latencies(r *comparison) section {
	s := section{title: "Latency", text: "Milliseconds from the production of an event to its index record at a " +
		"read_committed consumer. Here Kafka Streams has a linger of 1 ms, and with exactly_once_v2 a commit " +
		"interval of 20 ms; tidemark has its defaults."}
	t := table{header: []string{"", "events/s", "p50, ms", "p99, ms", "CPU, " + perMillion}}
	p := plot{file: "latency.svg", title: "Latency at " + whole(latencyRates[1]) + " events/s, p99", unit: "ms"}
	for _, v := range prompt {
		for _, rate := range latencyRates {
			p99 := r.latencies(v.name, rate, latencyRun.p99)
			cpu := r.latencies(v.name, rate, func(l latencyRun) float64 { return l.CPUPerMillion })
			t.rows = append(t.rows, []string{
				v.title, whole(rate), r.latencies(v.name, rate, latencyRun.p50).text(1), p99.text(1), cpu.text(1),
			})
			if rate == latencyRates[1] && p99.n > 0 {
				p.bars = append(p.bars, p99.bar(v.title, 1, strings.HasPrefix(v.name, "tidemark")))
			}
		}
	}
	s.tables, s.plots = []table{t}, []plot{p}
	return s
}

func recoveryRate(r *comparison) spread {
	return spreadOf(r.Recovery, all, func(x recoveryRun) float64 { return x.RecordsPerS })
}

func all[T any](T) bool { return true }

func (r *comparison) views(history string, of func(viewRun) float64) spread {
	return spreadOf(r.Views, func(v viewRun) bool { return v.History == history }, of)
}

func starts(r *comparison) section {
	t := table{header: []string{"", "records", "thousand/s", "seconds", "CPU, s", "peak memory, MB"}}
	records := ""
	if len(r.Recovery) > 0 {
		records = whole(r.Recovery[0].Records)
	}
	of := func(f func(recoveryRun) float64) string { return spreadOf(r.Recovery, all, f).text(1) }
	t.rows = append(t.rows, []string{
		"`process`, until its first new event is in the index", records, recoveryRate(r).text(1000),
		of(func(x recoveryRun) float64 { return x.Seconds }), of(func(x recoveryRun) float64 { return x.CPU }),
		of(func(x recoveryRun) float64 { return x.PeakRSSMB }),
	})
	for _, history := range []string{withHistory, noHistory} {
		of := func(f func(viewRun) float64) string { return r.views(history, f).text(1) }
		t.rows = append(t.rows, []string{
			"`serve --history " + history + "`, until it is ready", records,
			r.views(history, func(v viewRun) float64 { return v.RecordsPerS }).text(1000),
			of(func(v viewRun) float64 { return v.Seconds }), of(func(v viewRun) float64 { return v.CPU }),
			of(func(v viewRun) float64 { return v.PeakRSSMB }),
		})
	}
	return section{title: "Start with an empty disk", tables: []table{t}, text: "From the start of the process. " +
		"Records are those of the changelog of the files table, after the input of throughput. By default (`--history " +
		withHistory + "`) `serve` reads all notices too."}
}

// reads are those of more files than the input of throughput has, or of that.
func (r *comparison) reads(kind string, many bool, of func(readRun) float64) spread {
	return spreadOf(r.Reads, func(x readRun) bool { return x.Kind == kind && x.Files >= growthReads == many }, of)
}

func queries(r *comparison) section {
	t := table{header: []string{
		"", "files", "connections", "thousand/s", "CPU, µs each", "p50, ms", "p99, ms", "peak memory, MB",
	}}
	for _, l := range readLoads {
		for i, files := range []string{whole(r.Files), whole(growthReads)} {
			of := func(f func(readRun) float64, scale float64) string { return r.reads(l.kind, i == 1, f).text(scale) }
			t.rows = append(t.rows, []string{
				l.kind, files, fmt.Sprint(l.connections), of(func(x readRun) float64 { return x.PerS }, 1000),
				of(func(x readRun) float64 { return x.CPUus }, 1), of(func(x readRun) float64 { return x.P50 }, 1),
				of(func(x readRun) float64 { return x.P99 }, 1), of(func(x readRun) float64 { return x.PeakRSSMB }, 1),
			})
		}
	}
	return section{title: "Reads", tables: []table{t}, text: "`serve` on one core, over HTTP with keep-alive; the client " +
		"has the others. A point read is one file of all; a page is 100 files below a folder, in a workspace that " +
		"has hundreds there."}
}

func (r *comparison) growthSizes() []int {
	sizes := map[int]bool{}
	for _, x := range r.Growth {
		sizes[x.Files] = true
	}
	return slices.Sorted(maps.Keys(sizes))
}

func (r *comparison) grown(files int, of func(growthRun) float64) spread {
	return spreadOf(r.Growth, func(x growthRun) bool { return x.Files == files }, of)
}

func (r *comparison) growthCPU(files int) spread {
	return r.grown(files, func(x growthRun) float64 { return x.CPUus })
}

func growthCost(r *comparison) section {
	t := table{header: []string{
		"files", "CPU, µs per event", "CPU of the broker", "local store, MB", "peak memory, MB",
	}}
	p := plot{file: "growth.svg", title: "CPU of the client against the number of files", unit: "µs per event"}
	for _, files := range r.growthSizes() {
		of := func(f func(growthRun) float64) string { return r.grown(files, f).text(1) }
		t.rows = append(t.rows, []string{
			whole(files), r.growthCPU(files).text(1), of(func(x growthRun) float64 { return x.BrokerUs }),
			of(func(x growthRun) float64 { return x.StoreMB }), of(func(x growthRun) float64 { return x.PeakRSSMB }),
		})
		p.bars = append(p.bars, r.growthCPU(files).bar(whole(files)+" files", 1, true))
	}
	return section{
		title: "Cost against the number of files", tables: []table{t}, plots: []plot{p},
		text: "Events of files that exist, at_least_once, while they are produced. One process grows from the fewest " +
			"files to the most.",
	}
}

func instanceCost(r *comparison) section {
	t := table{header: []string{
		"", "instances", "thousand/s", "CPU, µs each", "CPU of the broker", "memory of all, MB", "connections",
		"partitions",
	}}
	kinds := table{header: []string{"requests to the broker per thousand events", "instances"}}
	names := r.requestKinds()
	kinds.header = append(kinds.header, names...)
	for _, role := range []string{"process", "ingest"} {
		for _, n := range instanceCounts {
			of := func(f func(instancesRun) float64, scale float64) string {
				return r.instances(role, n, f).text(scale)
			}
			t.rows = append(t.rows, []string{
				"`" + role + "`", fmt.Sprint(n), of(func(x instancesRun) float64 { return x.PerS }, 1000),
				of(func(x instancesRun) float64 { return x.CPUus }, 1),
				of(func(x instancesRun) float64 { return x.BrokerUs }, 1),
				of(func(x instancesRun) float64 { return x.PeakRSSMB }, 1),
				of(func(x instancesRun) float64 { return float64(x.Connections) }, 1), r.split(role, n),
			})
			row := []string{"`" + role + "`", fmt.Sprint(n)}
			for _, kind := range names {
				row = append(row, of(func(x instancesRun) float64 { return x.Requests[kind] }, 1))
			}
			kinds.rows = append(kinds.rows, row)
		}
	}
	return section{title: "Several instances", tables: []table{t, kinds}, text: "All instances and the broker share " +
		"the machine's CPUs, so that the rate cannot grow: the table has the cost of dividing the work. An event of " +
		"`process`, with the start of the instances and their rebalances; a webhook of `ingest`. Requests pass through a " +
		"proxy that counts them."}
}

func (r *comparison) instances(role string, n int, of func(instancesRun) float64) spread {
	return spreadOf(r.Instances, func(x instancesRun) bool { return x.Role == role && x.Instances == n }, of)
}

// split says how the partitions were divided in the last run.
func (r *comparison) split(role string, n int) string {
	text := ""
	for _, x := range r.Instances {
		if x.Role == role && x.Instances == n {
			text = strings.Trim(fmt.Sprint(x.Partitions), "[]")
		}
	}
	return text
}

// requestKinds are those of which there was at least one for a thousand events.
func (r *comparison) requestKinds() []string {
	kinds := map[string]bool{}
	for _, x := range r.Instances {
		for kind, n := range x.Requests {
			if n >= 1 {
				kinds[kind] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(kinds))
}

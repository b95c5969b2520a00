package main

import (
	"fmt"
	"slices"
	"strings"
)

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
			p.bars = append(p.bars, s.bar(v.title, m.scale, strings.HasPrefix(v.name, "tidemark")))
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
	n := len(r.Runs) + len(r.Latency) + len(r.Recovery) + len(r.Views) + len(r.Reads) + len(r.Ingress) + len(r.Growth) +
		len(r.Instances)
	fmt.Fprintf(&b, "Of %d runs %d count; %d were discarded because others used more than %.0f %% of the CPU, and %d "+
		"were refused: wrong outputs, or a failure.\n\nThroughput, and several instances of `process`: every index "+
		"record and every notice of each run was compared with what the input demands, and the last row of each file "+
		"in the changelog. Latency and growth: each event that is no repeat has its index record. Reads: the answer "+
		"has the file, or as many files as the page. Several instances of `ingest`: webhooks that were answered 200 are "+
		"in the topic.\n",
		n+len(r.Discarded)+len(r.Refused), n, len(r.Discarded), 100*r.MaxForeign, len(r.Refused))
	if r.Control != "" {
		fmt.Fprintf(&b, "\nThe control, the franz-go loop that loses one event, was refused: `%s`.\n", r.Control)
	}
	if r.MaxForeign > 0.1 {
		b.WriteString("\n**This limit is above 10 %: the figures show that the benchmark works, and nothing else.**\n")
	}
	t := table{header: []string{"run that does not count", "repetition", "why"}}
	for _, x := range slices.Concat(r.Discarded, r.Refused) {
		t.rows = append(t.rows, []string{x.Part + ": " + x.Variant, fmt.Sprint(x.Repetition), x.Why})
	}
	s := section{title: "Runs", text: b.String()}
	if len(t.rows) > 0 {
		s.tables = []table{t}
	}
	return s
}

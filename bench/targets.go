package main

import "fmt"

// A target is what the project wants of a figure.
type target struct {
	part  string // that measures it; empty: a short form does not
	title string
	want  float64
	most  bool // want is the most that is allowed
	unit  string
	// figure returns false if it was not measured.
	figure func(*comparison) (float64, bool)
}

func (t target) row(r *comparison) []string {
	x, ok := t.figure(r)
	sign, met := "≥", x >= t.want
	if t.most {
		sign, met = "≤", x <= t.want
	}
	measured, verdict := short(x)+t.unit, "**not met**"
	switch {
	case !ok:
		measured, verdict = "", "not measured"
	case met:
		verdict = "met"
	}
	return []string{t.title, fmt.Sprintf("%s %v%s", sign, t.want, t.unit), measured, verdict}
}

// relative is a target of the ratio of two variants.
func relative(title, variant, by string, m metric, want float64, most bool) target {
	return target{"", title, want, most, "", func(r *comparison) (float64, bool) { return r.ratio(variant, by, m) }}
}

// absolute is a target of a median.
func absolute(
	part, title string, want float64, most bool, unit string, of func(*comparison) spread, scale float64,
) target {
	return target{part, title, want, most, unit, func(r *comparison) (float64, bool) {
		s := of(r)
		return s.median / scale, s.n > 0
	}}
}

const thousandPerS = " thousand/s"

// targets are those of the project.
func targets() (all []target) {
	once, exactly := "at_least_once / Kafka Streams: ", "exactly_once / Kafka Streams exactly_once_v2: "
	all = []target{
		relative(once+"rate", tidemarkOnce, streamsOnce, eventRate, 1.5, false),
		relative(once+"CPU", tidemarkOnce, streamsOnce, clientCPU, 0.65, true),
		relative(once+"memory", tidemarkOnce, streamsOnce, peakRSS, 0.4, true),
		relative(once+"CPU of the broker", tidemarkOnce, streamsOnce, brokerCPU, 1.2, true),
		relative(exactly+"rate", tidemarkExactly, streamsExactly, eventRate, 1.4, false),
		relative(exactly+"CPU", tidemarkExactly, streamsExactly, clientCPU, 0.7, true),
		relative(exactly+"memory", tidemarkExactly, streamsExactly, peakRSS, 0.5, true),
		relative(exactly+"CPU of the broker", tidemarkExactly, streamsExactly, brokerCPU, 1.2, true),
		relative("at_least_once / the bound: rate", tidemarkOnce, franzBound, eventRate, 0.65, false),
		absolute("recovery", "`process` with an empty disk: records of the changelog", 200, false, thousandPerS,
			recoveryRate, 1000),
		absolute("recovery", "`serve --history 0` with an empty disk: rows of files", 150, false, thousandPerS,
			func(r *comparison) spread {
				return r.views(noHistory, func(v viewRun) float64 { return v.RecordsPerS })
			}, 1000),
	}
	for _, l := range []struct {
		variant, title string
		p50, p99       float64
	}{{tidemarkOnce, "at_least_once", 10.6, 17}, {tidemarkExactly, "exactly_once", 20, 40}} {
		title := fmt.Sprintf("%s: latency at %s events/s, ", l.title, whole(latencyRates[1]))
		all = append(all, absolute("latency", title+"p50", l.p50, true, " ms", func(r *comparison) spread {
			return r.latencies(l.variant, latencyRates[1], latencyRun.p50)
		}, 1), absolute("latency", title+"p99", l.p99, true, " ms", func(r *comparison) spread {
			return r.latencies(l.variant, latencyRates[1], latencyRun.p99)
		}, 1))
	}
	all = append(all,
		absolute("ingress", "`ingest` / the same server without Kafka: rate", 0.7, false, "",
			func(r *comparison) spread { return r.webhooks("rate_ratio") }, 1),
		absolute("ingress", "`ingest`: p99 at half of its maximum", 10, true, " ms",
			func(r *comparison) spread { return r.webhooks("half_p99_ms") }, 1),
	)
	return append(all, readTargets()...)
}

// readTargets are those that depend on the number of files.
func readTargets() (all []target) {
	for i, size := range []string{"200,000", "2 million"} {
		of := func(figure func(readRun) float64) func(*comparison) spread {
			return func(r *comparison) spread { return r.reads("point", i == 1, figure) }
		}
		title, part := "point read on one core, "+size+" files: ", []string{"recovery", ""}[i]
		all = append(all,
			absolute(part, title+"rate", 35, false, thousandPerS, of(func(x readRun) float64 { return x.PerS }), 1000),
			absolute(part, title+"p99", 2, true, " ms", of(func(x readRun) float64 { return x.P99 }), 1))
	}
	return append(all, target{
		"growth", "CPU of an event: the most files / the fewest", 1.5, true, "",
		func(r *comparison) (float64, bool) {
			sizes := r.growthSizes()
			if len(sizes) < 2 {
				return 0, false
			}
			least, most := r.growthCPU(sizes[0]), r.growthCPU(sizes[len(sizes)-1])
			return most.median / least.median, true
		},
	})
}

func targetTable(r *comparison) section {
	t := table{header: []string{"target", "wanted", "measured", ""}}
	for _, wanted := range targets() {
		t.rows = append(t.rows, wanted.row(r))
	}
	return section{title: "Targets", text: "Medians, and ratios of medians.", tables: []table{t}}
}

package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// scalingFile has two tables of this file between markers; the rest of it is written by hand.
const scalingFile = "scaling.md"

// Assumptions of the table of needs. docs/scaling.md names them.
const (
	peakFactor     = 5.0 // the busiest minute against the average of the day
	busy           = 0.6 // of a core, so that a restart can catch up
	replicas       = 3
	retentionDays  = 30 // of events and notices: the topics' default
	historyDays    = 7  // of serve: its default
	beforeCleaning = 2  // a compacted topic's bytes against those of its last records
	processCores   = 4  // of an instance
	ingestCores    = 2
	leastInstances = 2 // one may restart
	leastSplit     = 32
	splitPerCore   = 4 // partitions for each core of process: they are not equally busy
)

// A cost is measured; NaN if it was not.
type cost struct {
	title, field string // field of results.json
	unit         string
	value        float64
}

// costs are what the needs are computed from.
type costs struct {
	process, processBroker, ingest, ingestBroker     cost // CPU
	event, index, notice, row                        cost // bytes of an event in the topics
	indexRecord, rowRecord, store, view, viewHistory cost // bytes of a file, and of a notice
	processMemory, ingestMemory, serveMemory         cost // of an instance
}

func median(s spread) float64 {
	if s.n == 0 {
		return math.NaN()
	}
	return s.median
}

// costs reads the medians of tidemark in at_least_once.
func (r *comparison) costs() costs {
	run := func(of func(trial) float64) float64 { return median(r.spread(tidemarkOnce, of)) }
	perEvent := func(topic string) float64 {
		return run(func(t trial) float64 { return t.MB[topic] * 1e6 / float64(r.Events) })
	}
	perRecord := func(topic string) float64 {
		return run(func(t trial) float64 { return t.MB[topic] * 1e6 / float64(t.Records[topic]) })
	}
	one := func(of func(instancesRun) float64) float64 { return median(r.instances("ingest", 1, of)) }
	view := median(r.views(noHistory, func(v viewRun) float64 { return v.StoreMB }))
	full := median(r.views(withHistory, func(v viewRun) float64 { return v.StoreMB }))
	us, bytes, mb := "µs of CPU", "bytes", "MB"
	of := "runs (" + tidemarkOnce + "): "
	return costs{
		process: cost{"`process`, an event", of + "cpu_s_per_million", us, run(func(t trial) float64 { return t.ClientCPU })},
		processBroker: cost{
			"the broker, for it", of + "broker_cpu_s_per_million", us,
			run(func(t trial) float64 { return t.BrokerCPU }),
		},
		ingest: cost{
			"`ingest`, a webhook", "instances (ingest, 1): cpu_us_each", us,
			one(func(x instancesRun) float64 { return x.CPUus }),
		},
		ingestBroker: cost{
			"the broker, for it", "instances (ingest, 1): broker_cpu_us_each", us,
			one(func(x instancesRun) float64 { return x.BrokerUs }),
		},
		event: cost{
			"an event in `fastio-events`", "instances (ingest, 1): event_bytes", bytes,
			one(func(x instancesRun) float64 { return x.EventBytes }),
		},
		index:       cost{"its record in `fastio-index`", of + "mb.index / events", bytes, perEvent("index")},
		notice:      cost{"its notice in `fastio-notify`", of + "mb.notify / events", bytes, perEvent("notify")},
		row:         cost{"its row in `fastio-files-table`", of + "mb.table / events", bytes, perEvent("table")},
		indexRecord: cost{"a file in `fastio-index`, compacted", of + "mb.index / records.index", bytes, perRecord("index")},
		rowRecord:   cost{"a file in `fastio-files-table`, compacted", of + "mb.table / records.table", bytes, perRecord("table")},
		store: cost{
			"a file in the local store of `process`", of + "store_mb / files", bytes,
			run(func(t trial) float64 { return t.StoreMB * 1e6 / float64(r.Files) }),
		},
		view: cost{
			"a file in the local store of `serve`", "views (history 0): store_mb / files", bytes, view * 1e6 / float64(r.Files),
		},
		viewHistory: cost{
			"a notice in the history of `serve`", "views: difference of store_mb / unique", bytes,
			(full - view) * 1e6 / float64(r.Unique),
		},
		processMemory: cost{"an instance of `process`", of + "peak_rss_mb", mb, run(func(t trial) float64 { return t.PeakRSSMB })},
		ingestMemory: cost{
			"an instance of `ingest`", "instances (ingest, 1): peak_rss_mb", mb,
			one(func(x instancesRun) float64 { return x.PeakRSSMB }),
		},
		serveMemory: cost{
			"an instance of `serve`", "views (history " + withHistory + "): peak_rss_mb", mb,
			median(r.views(withHistory, func(v viewRun) float64 { return v.PeakRSSMB })),
		},
	}
}

func (c costs) table() table {
	t := table{header: []string{"measured", "", "", "results.json"}}
	for _, x := range []cost{
		c.process, c.processBroker, c.ingest, c.ingestBroker, c.event, c.index, c.notice, c.row, c.indexRecord,
		c.rowRecord, c.store, c.view, c.viewHistory, c.processMemory, c.ingestMemory, c.serveMemory,
	} {
		t.rows = append(t.rows, []string{x.title, number(x.value), x.unit, "`" + x.field + "`"})
	}
	return t
}

// number has three digits.
func number(x float64) string {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return "not measured"
	case x == math.Trunc(x) && x < 1000:
		return whole(x)
	case x >= 1000:
		digits := math.Pow(10, math.Floor(math.Log10(x))-2)
		return whole(math.Round(x/digits) * digits)
	}
	return short(x)
}

// A dailyLoad is a number of events a day.
type dailyLoad struct {
	title string
	n     float64
}

var dailyLoads = []dailyLoad{{"1 million", 1e6}, {"100 million", 100e6}, {"10 billion", 10e9}}

// needs computes what each load needs.
func (c costs) needs(loads []dailyLoad) table {
	t := table{header: []string{"events a day"}}
	for _, d := range loads {
		t.header = append(t.header, d.title)
	}
	row := func(title string, of func(daily float64) float64) {
		cells := []string{title}
		for _, d := range loads {
			cells = append(cells, number(of(d.n)))
		}
		t.rows = append(t.rows, cells)
	}
	peak := func(daily float64) float64 { return peakFactor * daily / 86_400 }
	cores := func(us ...cost) func(float64) float64 {
		return func(daily float64) (sum float64) {
			for _, x := range us {
				sum += peak(daily) * x.value / 1e6 / busy
			}
			return sum
		}
	}
	instances := func(each float64, us cost) func(float64) float64 {
		return func(daily float64) float64 { return max(leastInstances, math.Ceil(cores(us)(daily)/each)) }
	}
	row("events/s on average", func(daily float64) float64 { return daily / 86_400 })
	row(fmt.Sprintf("events/s at the peak, %.0f times that", peakFactor), peak)
	row("cores of `process`", cores(c.process))
	row("cores of `ingest`", cores(c.ingest))
	row("cores of the brokers, without replication", cores(c.processBroker, c.ingestBroker))
	row(fmt.Sprintf("instances of `process`, of %d cores", processCores), instances(processCores, c.process))
	row(fmt.Sprintf("instances of `ingest`, of %d cores", ingestCores), instances(ingestCores, c.ingest))
	row("partitions", func(daily float64) float64 {
		wanted := splitPerCore * cores(c.process)(daily)
		return max(leastSplit, math.Exp2(math.Ceil(math.Log2(wanted))))
	})
	c.diskNeeds(row)
	row("memory of all `process`, GB", func(daily float64) float64 {
		return instances(processCores, c.process)(daily) * c.processMemory.value / 1e3
	})
	row("memory of all `ingest`, GB", func(daily float64) float64 {
		return instances(ingestCores, c.ingest)(daily) * c.ingestMemory.value / 1e3
	})
	c.networkNeeds(row, peak)
	return t
}

func (c costs) diskNeeds(row func(string, func(daily float64) float64)) {
	const gb = 1e9
	kept := func(bytes cost) func(float64) float64 {
		return func(daily float64) float64 { return daily * retentionDays * bytes.value * replicas / gb }
	}
	compacted := func(bytes cost) func(float64) float64 { // a file for each event of a day
		return func(daily float64) float64 { return daily * bytes.value * beforeCleaning * replicas / gb }
	}
	local := func(bytes float64) func(float64) float64 {
		return func(daily float64) float64 { return daily * bytes / gb }
	}
	row("disk of the brokers, GB: `fastio-events`", kept(c.event))
	row("… `fastio-notify`", kept(c.notice))
	row("… `fastio-index`", compacted(c.indexRecord))
	row("… `fastio-files-table`", compacted(c.rowRecord))
	row("local disk of all `process`, GB", local(c.store.value))
	row("local disk of `serve`, a copy of all, GB", local(c.view.value))
	row("… and its history", local(historyDays*c.viewHistory.value))
}

func (c costs) networkNeeds(row func(string, func(daily float64) float64), peak func(float64) float64) {
	rate := func(bytes float64) func(float64) float64 {
		return func(daily float64) float64 { return peak(daily) * bytes / 1e6 }
	}
	written := c.event.value + c.index.value + c.notice.value + c.row.value
	row("network at the peak, MB/s: to the brokers", rate(written))
	row("… between brokers", rate(written*(replicas-1)))
	row("… to `process`: events, and its rows again", rate(c.event.value+c.row.value))
	row("… to each `serve`: rows and notices", rate(c.row.value+c.notice.value))
	row("… to the search sink", rate(c.index.value))
}

// writeScaling copies docs/scaling.md into the folder of the report with new tables.
func (r *comparison) writeScaling(dir string) error {
	text, err := os.ReadFile(filepath.Join("docs", scalingFile))
	if err != nil {
		return err
	}
	c := r.costs()
	page := string(text)
	for name, t := range map[string]table{"costs": c.table(), "needs": c.needs(dailyLoads)} {
		if page, err = replaceBetween(page, name, t.markdown()); err != nil {
			return err
		}
	}
	return write(filepath.Join(dir, scalingFile), page)
}

// replaceBetween replaces what is between the markers of a name.
func replaceBetween(page, name, text string) (string, error) {
	begin, end := "<!-- "+name+": written by make bench -->\n", "<!-- end of "+name+" -->\n"
	before, rest, found := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", errors.New("docs/" + scalingFile + " lacks the markers of " + name)
	}
	return before + begin + text + end + after, nil
}

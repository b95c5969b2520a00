package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tidemark/topology"
)

// A doctorCommand walks everything that an event passes, and names what is wrong.
type doctorCommand struct {
	clusterFlags
	sizingFlags
	webhookFlags
	outputFlags
	Data       string        `help:"Data folder of dev, whose secret is used when no other is given." default:"./.tidemark" placeholder:"DIR"`
	Role       []string      `help:"Roles that this Kafka user is for: ingest, process, serve, operate. Without it, what each role lacks is a warning." enum:"ingest,process,serve,operate" placeholder:"NAME" env:"-"`
	IngressURL string        `help:"Webhook address to try with a signed request that it must refuse." name:"ingress-url" placeholder:"URL" address:"url" env:"-"`
	ReadyURL   []string      `help:"Admin addresses of processes to ask for /readyz." name:"ready-url" placeholder:"URL" address:"url" env:"-"`
	Watch      time.Duration `help:"How long to watch whether commits move." default:"5s" placeholder:"TIME" env:"-"`
	Since      string        `help:"How far back dead letters and events are looked at: a time, a day, or how long ago." default:"24h" placeholder:"TIME" env:"-"`
}

// The bounds that keep the doctor from hanging: of one question, and of all.
const (
	questionTimeout = 12 * time.Second
	doctorTimeout   = 55 * time.Second
)

// How a check came out.
const (
	fine    = "ok"
	noted   = "note" // worth knowing, and nothing to mend
	warning = "warn"
	failing = "fail"
	skipped = "skip" // another failure is in the way
)

// A finding is one line of the doctor's report.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	What   string `json:"what"`         // what was found, or the cause
	Mend   string `json:"do,omitempty"` // what to do about it
	Detail any    `json:"detail,omitempty"`

	unsigned bool // an ingress that refuses the signature
}

// A check returns what it found; its context bounds it.
type check struct {
	name string
	run  func(ctx context.Context) []finding
}

// errUnhealthy is returned when a check fails; the findings say what.
var errUnhealthy = errors.New("at least one check failed")

// Run makes all checks and prints each as it is done, in their order.
func (c *doctorCommand) Run(ctx context.Context, con console) error {
	streams, single, err := c.sizes()
	if err != nil {
		return err
	}
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return err
	}
	if c.Watch < 500*time.Millisecond || c.Watch > 20*time.Second { // a group that works commits four times a second
		return usagef("--watch %v: want 500ms to 20s", c.Watch)
	}
	config, err := c.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	report := &report{form: c.Output, w: bufio.NewWriter(con.out)}
	report.take(ctx, c.signatureChecks())
	brokers := &brokersCheck{config: config}
	report.take(ctx, []check{{"brokers", brokers.run}})
	reachable := config
	reachable.Brokers = brokers.good
	d := &clusterDoctor{config: reachable, streams: streams, single: single, since: since, watch: c.Watch, roles: c.Role}
	advertised, others := d.checks()
	report.take(ctx, advertised) // alone: what it finds is in the way of the others
	report.take(ctx, append(others, c.urlChecks()...))
	if err := report.end(); err != nil {
		return err
	}
	if report.counts[failing] > 0 {
		return errUnhealthy
	}
	return nil
}

// sizes returns the streams as the roles have them with these settings. Given none, a single broker cannot have what is the
// default, and does with what dev asks of it.
func (c *doctorCommand) sizes() (streams, single topology.Streams, err error) {
	sized := c.sizingFlags
	sized.Replication, sized.MinInsync = cmp.Or(c.Replication, topology.Default.Replication), cmp.Or(c.MinInsync, topology.Default.MinISR)
	if streams, err = sized.streams(); err != nil || c.Replication != 0 || c.MinInsync != 0 {
		return streams, streams, err
	}
	sized.Replication, sized.MinInsync = topology.Single.Replication, topology.Single.MinISR
	single, err = sized.streams()
	return streams, single, err
}

// checks are those that need a broker; without one they say so.
func (d *clusterDoctor) checks() (advertised, others []check) {
	advertised = []check{{"advertised", d.advertised}}
	others = []check{
		{"topics", d.topics},
		{"replicas", d.replicas},
		{"acls", d.acls},
		{"events", d.events},
		{"files group", d.group(d.streams.FilesGroup, d.streams.Events.Name, "events are not folded: files stay as they were")},
		{"workspaces group", d.group(d.streams.WorkspacesGroup, d.streams.Notify.Name, "counts of workspaces stay as they were")},
		{"dead letters", d.deadLetters},
	}
	if len(d.config.Brokers) == 0 {
		for _, checks := range [][]check{advertised, others} {
			for i := range checks {
				checks[i].run = func(context.Context) []finding {
					return []finding{{Status: skipped, What: "not checked: no broker can be talked to"}}
				}
			}
		}
	}
	return advertised, others
}

// A report prints findings.
type report struct {
	form   string
	w      *bufio.Writer
	counts map[string]int
	err    error // the first that printing failed with
}

// take runs checks beside each other, each within its bound, and prints them in their order.
func (r *report) take(ctx context.Context, checks []check) {
	results := make([]chan []finding, len(checks))
	for i, c := range checks {
		results[i] = make(chan []finding, 1)
		go func() {
			bounded, cancel := context.WithTimeout(ctx, questionTimeout+20*time.Second)
			defer cancel()
			results[i] <- c.run(bounded)
		}()
	}
	for i, c := range checks {
		var found []finding
		select {
		case found = <-results[i]:
		case <-ctx.Done():
			found = []finding{{Status: failing, What: "not done in time", Mend: "look at what failed before it, and try again"}}
		}
		for _, f := range found {
			f.Check = c.name
			r.print(f)
		}
	}
}

func (r *report) print(f finding) {
	if r.counts == nil {
		r.counts = map[string]int{}
	}
	r.counts[f.Status]++
	var err error
	if r.form != asTable {
		err = printOne(r.w, r.form, f)
	} else {
		_, err = fmt.Fprintf(r.w, "%-4s  %-16s  %s\n", f.Status, f.Check, line(f.What))
		if f.Mend != "" && err == nil {
			_, err = fmt.Fprintf(r.w, "%24s%s\n", "→ ", line(f.Mend))
		}
	}
	r.err = errors.Join(r.err, err, r.w.Flush())
}

// line makes text of strangers one line that a terminal can take.
func line(s string) string { return cell(strings.Join(strings.Fields(s), " ")) }

func (r *report) end() error {
	if r.form == asTable {
		_, err := fmt.Fprintf(r.w, "\n%d ok, %d to look at, %d failed, %d not checked\n", r.counts[fine], r.counts[warning], r.counts[failing], r.counts[skipped])
		r.err = errors.Join(r.err, err, r.w.Flush())
	}
	return r.err
}

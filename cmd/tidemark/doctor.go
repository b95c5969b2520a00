package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"tidemark/doctor"
	"tidemark/ingress"
	"tidemark/topology"
)

// A doctorCommand runs the checks of package doctor.
type doctorCommand struct {
	clusterFlags
	sizingFlags
	webhookFlags
	outputFlags
	searchFlags
	notifyFlags
	archiveFlags
	modelFlags
	authFlags
	Data       string        `help:"Data directory of dev, whose secret is used when no other is given." default:"./.tidemark" placeholder:"DIR"`
	Role       []string      `help:"Roles of this Kafka user: ${roles}. Without it, a permission that a role lacks is a warning." enum:"${roles}" placeholder:"NAME" env:"-"`
	IngressURL string        `help:"URL of the ingress, to try with a signed request that it must refuse." name:"ingress-url" placeholder:"URL" address:"url" env:"-"`
	ReadyURL   []string      `help:"Admin URLs of processes to ask for /readyz." name:"ready-url" placeholder:"URL" address:"url" env:"-"`
	Watch      time.Duration `help:"How long to watch whether commits move." default:"5s" placeholder:"TIME" env:"-"`
	Since      string        `help:"Look at dead letters and events since then: a time, a day, or how long ago." default:"24h" placeholder:"TIME" env:"-"`
}

// errUnhealthy is returned when a check fails; the findings say what.
var errUnhealthy = errors.New("at least one check failed")

// Run makes all checks and prints each finding as it is known.
func (c *doctorCommand) Run(ctx context.Context, con console) error {
	streams, single, err := c.sizes()
	if err != nil {
		return err
	}
	since, err := parseSince(c.Since, time.Now())
	if err != nil {
		return err
	}
	if c.Watch < 500*time.Millisecond || c.Watch > 20*time.Second { // a running group commits four times a second
		return usagef("--watch %v: want 500ms to 20s", c.Watch)
	}
	config, err := c.config()
	if err != nil {
		return err
	}
	destinations, err := c.destinations(streams)
	if err != nil {
		return err
	}
	webhooks, missing := c.webhooks()
	report := &doctorReport{form: c.Output, w: bufio.NewWriter(con.out), counts: map[string]int{}}
	doctor.Run(ctx, doctor.Config{
		Kafka: config, Streams: streams, Single: single, Roles: streams.Roles(), User: c.Role, Since: since,
		Watch:    c.Watch,
		Webhooks: webhooks, NoWebhooks: missing, IngressURL: c.IngressURL, ReadyURLs: c.ReadyURL,
		Resembles: ingress.Resembles, Destinations: destinations, Tokens: c.tokens(),
	}, report.print)
	if err := report.end(); err != nil {
		return err
	}
	if report.counts[doctor.Failure] > 0 {
		return errUnhealthy
	}
	return nil
}

// destinations returns the checks of the sinks whose settings are given.
func (c *doctorCommand) destinations(streams topology.Streams) (all []doctor.Destination, err error) {
	if c.SearchURL != "" {
		to, err := c.searchFlags.destination()
		if err != nil {
			return nil, err
		}
		all = append(all, to)
	}
	if c.NotifyRules != "" {
		channels, err := c.notifyFlags.destinations()
		if err != nil {
			return nil, err
		}
		all = append(all, channels...)
	}
	if c.ArchiveURL != "" {
		all = append(all, c.archiveFlags.destination(streams.Events.Name))
	}
	if c.ModelRules != "" {
		models, err := c.modelFlags.destinations()
		if err != nil {
			return nil, err
		}
		all = append(all, models...)
	}
	return all, nil
}

// sizes returns the streams with these settings. Without any, a cluster of one broker cannot have the default sizing
// and is compared with dev's.
func (c *doctorCommand) sizes() (streams, single topology.Streams, err error) {
	sized := c.sizingFlags
	sized.Replication = cmp.Or(c.Replication, topology.Default.Replication)
	sized.MinInsync = cmp.Or(c.MinInsync, topology.Default.MinISR)
	if streams, err = sized.streams(); err != nil || c.Replication != 0 || c.MinInsync != 0 {
		return streams, streams, err
	}
	sized.Replication, sized.MinInsync = topology.Single.Replication, topology.Single.MinISR
	single, err = sized.streams()
	return streams, single, err
}

// webhooks returns how webhooks are signed with these settings, and what is missing for it.
func (c *doctorCommand) webhooks() (w *doctor.Webhooks, missing doctor.Finding) {
	scheme, err := c.scheme()
	if err != nil {
		return nil, doctor.Finding{Status: doctor.Failure, What: err.Error(), Fix: "correct --webhook-scheme"}
	}
	secrets, err := c.secretsOrDevs(scheme, c.Data)
	switch {
	case errors.Is(err, errNoSecrets):
		missing = doctor.Finding{
			Status: doctor.Warning, What: "not checked: " + errNoSecrets.Error(),
			Fix: "give the doctor the secrets of the ingress",
		}
	case err != nil: // also secrets that are too short, in quotes or in the form of another scheme
		missing = doctor.Finding{
			Status: doctor.Failure, What: err.Error(),
			Fix: "correct it, or generate a secret of 32 random bytes or more, for example with " +
				"`openssl rand -hex 32`, and give the sender the same",
		}
	}
	return &doctor.Webhooks{
		Scheme: scheme.Name(), Timed: scheme.Timed(), Window: ingress.Window, Path: ingress.Path, Secrets: len(secrets),
		Sign: func(i int, body []byte, now time.Time) http.Header {
			return ingress.Sign(scheme, append(secrets, ingress.Secret{})[i], body, "doctor", now)
		},
		Verify: func(header http.Header, body []byte, now time.Time) error {
			return ingress.Verify(scheme, secrets, header, body, now)
		},
	}, missing
}

// A doctorReport prints findings.
type doctorReport struct {
	form   string
	w      *bufio.Writer
	counts map[string]int // by status
	err    error          // of printing
}

func (r *doctorReport) print(f doctor.Finding) {
	r.counts[f.Status]++
	var err error
	if r.form != asTable {
		err = printOne(r.w, r.form, f)
	} else {
		_, err = fmt.Fprintf(r.w, "%-4s  %-18s  %s\n", f.Status, f.Check, oneLine(f.What))
		if f.Fix != "" && err == nil {
			_, err = fmt.Fprintf(r.w, "%26s%s\n", "→ ", oneLine(f.Fix))
		}
	}
	r.err = errors.Join(r.err, err, r.w.Flush())
}

// oneLine makes text from outside one line that is safe for a terminal.
func oneLine(s string) string { return cell(strings.Join(strings.Fields(s), " ")) }

func (r *doctorReport) end() error {
	if r.form == asTable {
		_, err := fmt.Fprintf(r.w, "\n%d ok, %d to look at, %d failed, %d not checked\n",
			r.counts[doctor.OK], r.counts[doctor.Warning], r.counts[doctor.Failure], r.counts[doctor.Skipped])
		r.err = errors.Join(r.err, err, r.w.Flush())
	}
	return r.err
}

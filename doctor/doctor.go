// Package doctor checks everything that an event passes, and says what is wrong and how to fix it.
//
// It only reads: no check writes a record or alters a setting. Every check is bounded in time, so that it also ends
// when nothing answers. It does not print, and it knows no flag beside those that its advice names.
package doctor

import (
	"context"
	"strings"
	"time"

	"tidemark/kafka"
	"tidemark/topology"
)

// Results of a check.
const (
	OK      = "ok"
	Note    = "note" // informative, nothing to fix
	Warning = "warn"
	Failure = "fail"
	Skipped = "skip" // another failure prevents the check
)

// A Finding is one line of the report.
type Finding struct {
	Check  string `json:"check"`
	Status string `json:"status"`
	What   string `json:"what"`         // what was found, or the cause
	Fix    string `json:"do,omitempty"` // what to do about it
	Detail any    `json:"detail,omitempty"`
}

// Config says what to check.
type Config struct {
	Kafka   kafka.Config
	Streams topology.Streams
	Single  topology.Streams // what a cluster of one broker must have; the same as Streams where a sizing was given
	Roles   []topology.Role  // every role that there is
	User    []string         // names of the roles of this Kafka user; none: not known
	Since   time.Time        // how far back events and dead letters are read
	Watch   time.Duration    // how long to watch whether commits move

	Webhooks   *Webhooks // nil: the scheme is not known
	NoWebhooks Finding   // why the scheme or the secrets are not known; without a status: they are
	IngressURL string    // of the webhook endpoint; empty: not tried
	ReadyURLs  []string  // of processes to ask for /readyz

	Destinations []Destination // of the sinks whose settings are known

	// Tokens loads what tokens are verified with, and says what that is; nil: no such settings are known.
	Tokens func(ctx context.Context) (what string, err error)

	// Resembles returns the known name of an event that an unknown one may mean, empty for none.
	Resembles func(name string) string
}

// A Destination is the system that a sink delivers to.
type Destination struct {
	Name  string                          // the sink's
	Check func(ctx context.Context) error // what the sink checks before it starts
}

// Time limits: of one request to the cluster, of one check, and of all.
const (
	requestTimeout = 12 * time.Second
	checkTimeout   = requestTimeout + 20*time.Second // the longest Watch, and what is left of two requests
	totalTimeout   = 55 * time.Second
)

// A check returns what it found within the deadline of its context.
type check struct {
	name string
	run  func(ctx context.Context) []Finding
}

// Run makes all checks and reports each finding as soon as those before it are known, in their order.
func Run(ctx context.Context, c Config, report func(Finding)) {
	ctx, cancel := context.WithTimeout(ctx, totalTimeout)
	defer cancel()
	runAll(ctx, report, check{"signature", c.signature})
	d := &cluster{Config: c}
	runAll(ctx, report, check{"brokers", func(ctx context.Context) []Finding {
		var found []Finding
		found, d.Kafka.Brokers = probeAll(ctx, c.Kafka, c.Kafka.Brokers)
		return found
	}})
	runAll(ctx, report, d.reachable(check{"advertised", d.advertised})) // alone: the others need its result
	checks := []check{{"topics", d.topics}, {"replicas", d.replicas}, {"acls", d.acls}, {"events", d.events}}
	for _, role := range c.Roles {
		for _, group := range role.Groups {
			switch name := c.Streams.ShortName(group.Name); {
			case role.Command != "" && group.Name == c.Streams.ServeGroup:
				checks = append(checks, check{name + " group", d.instances(group)})
			case group.Consumes.Name == "":
			case group.Prefixed: // a group for each rule
				checks = append(checks, check{strings.TrimSuffix(name, "-") + " groups", d.groups(role, group)})
			default:
				checks = append(checks, check{name + " group", d.group(role, group)})
			}
		}
	}
	checks = append(checks, check{"dead letters", d.deadLetters})
	for i := range checks {
		checks[i] = d.reachable(checks[i])
	}
	checks = append(checks, c.destinationChecks()...)
	if c.Tokens != nil {
		checks = append(checks, check{"tokens", c.tokens})
	}
	runAll(ctx, report, append(checks, c.urlChecks()...)...)
}

// tokens loads tokens or keys as the roles do.
func (c Config) tokens(ctx context.Context) []Finding {
	what, err := c.Tokens(ctx)
	if err != nil {
		return one(Failure, err.Error(), "correct the file, or --auth, --tokens-file, --jwks or --jwt-…; a role that "+
			"runs keeps the tokens and keys that it has read before")
	}
	return one(OK, what, "")
}

// runAll runs checks concurrently and reports their findings in the order of the checks.
func runAll(ctx context.Context, report func(Finding), checks ...check) {
	results := make([]chan []Finding, len(checks))
	for i, c := range checks {
		results[i] = make(chan []Finding, 1)
		go func() {
			bounded, cancel := context.WithTimeout(ctx, checkTimeout)
			defer cancel()
			results[i] <- c.run(bounded)
		}()
	}
	for i, c := range checks {
		var found []Finding
		select {
		case found = <-results[i]:
		case <-ctx.Done():
			found = one(Failure, "timed out", "fix the failures above it, and try again")
		}
		for _, f := range found {
			f.Check = c.name
			report(f)
		}
	}
}

// one returns a single finding.
func one(status, what, fix string) []Finding {
	return []Finding{{Status: status, What: what, Fix: fix}}
}

package doctor

import (
	"context"
	"strings"
	"sync"

	"tidemark/kafka"
	"tidemark/topology"
)

// groups returns the check of all groups with a prefix, which a role runs: one for each rule.
func (d *cluster) groups(role topology.Role, group topology.GroupUse) func(context.Context) []Finding {
	return func(ctx context.Context) []Finding {
		names, err := d.listed(ctx, group.Name)
		if err != nil {
			return []Finding{d.failed(err)}
		}
		if len(names) == 0 {
			return one(Note, group.Name+"…: this user sees no group of this sink, so nobody has run it",
				"to use it, start `tidemark "+role.Command+"`")
		}
		found := make([][]Finding, len(names))
		var all sync.WaitGroup
		for i, name := range names {
			all.Go(func() {
				of := group
				of.Name = name
				found[i] = d.group(role, of)(ctx)
			})
		}
		all.Wait()
		var joined []Finding
		for _, f := range found {
			joined = append(joined, f...)
		}
		return joined
	}
}

func (d *cluster) listed(ctx context.Context, prefix string) (names []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err = kafka.RetryCoordinator(ctx, func() error {
		names, err = kafka.Groups(ctx, d.Kafka, prefix)
		return err
	})
	return names, err
}

// destinationChecks are the checks of the systems that sinks deliver to.
func (c Config) destinationChecks() []check {
	var checks []check
	for _, to := range c.Destinations {
		checks = append(checks, check{"destination", func(ctx context.Context) []Finding {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			if err := to.Check(ctx); err != nil {
				what := strings.TrimPrefix(err.Error(), to.Name+": ")
				return one(Failure, to.Name+": "+what, "correct what it names; until then the sink does not start")
			}
			return one(OK, to.Name+": reached, and it accepts these settings", "")
		}})
	}
	return checks
}

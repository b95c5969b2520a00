package doctor

import (
	"context"
	"errors"
	"fmt"

	"tidemark/kafka"
	"tidemark/topology"
)

// instances returns the check of the group in which instances of serve divide the partitions.
func (d *cluster) instances(group topology.GroupUse) func(context.Context) []Finding {
	return func(ctx context.Context) []Finding {
		lags, err := d.lags(ctx, group.Name, []string{d.Streams.Files.Name})
		if _, denied := errors.AsType[*kafka.Denied](err); denied {
			return one(Skipped, "not checked: "+err.Error(), "")
		}
		if err != nil {
			return []Finding{d.failed(err)}
		}
		switch g := lags[0]; {
		case g.Members == 0:
			return one(Note, group.Name+": no instance of `tidemark serve --hold share` runs",
				"nothing, if each instance of `tidemark serve` holds all partitions, which is the default")
		case g.State != "Stable":
			return one(Warning, fmt.Sprintf("%s: %d instances are dividing the partitions (state %s)", group.Name,
				g.Members, g.State), "try again in a moment; if it stays, look at their logs: one may be hanging")
		default:
			return one(OK, fmt.Sprintf("%s: %d instances divide %d partitions", group.Name, g.Members,
				len(g.Partitions)), "")
		}
	}
}

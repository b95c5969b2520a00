package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidemark/kafka"
	"tidemark/topology"
)

// group returns the check of a consumer group that a role runs: its lag, and whether its commits move.
func (d *cluster) group(role topology.Role, group topology.GroupUse) func(context.Context) []Finding {
	lags := func(ctx context.Context) (lag kafka.GroupLag, err error) {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		err = retryCoordinator(ctx, func() error {
			lag, err = kafka.Lags(ctx, d.Kafka, group.Name, group.Consumes.Name)
			return err
		})
		return lag, err
	}
	return func(ctx context.Context) []Finding {
		before, err := lags(ctx)
		if _, denied := errors.AsType[*kafka.Denied](err); denied && role.Sink && !slices.Contains(d.User, role.Name) {
			return one(Skipped, "not checked: "+err.Error(), "")
		}
		if err != nil {
			return []Finding{d.failed(err)}
		}
		if role.Sink && before.State == "Dead" && !before.Committed() {
			return one(Note, before.Group+": nobody has run this sink", "to use it, start `tidemark "+role.Command+"`")
		}
		if found := outOfRange(before); found != nil {
			return found
		}
		if before.Total() == 0 {
			return []Finding{noLag(before, role)}
		}
		select {
		case <-time.After(d.Watch):
		case <-ctx.Done():
		}
		after, err := lags(ctx)
		if err != nil {
			return []Finding{d.failed(err)}
		}
		return []Finding{progress(before, after, d.Watch, role, group)}
	}
}

// outOfRange finds committed offsets before the log start offset, where unread records were deleted, and beyond the log
// end offset.
func outOfRange(l kafka.GroupLag) (found []Finding) {
	for _, p := range l.Partitions {
		switch {
		case p.Commit >= 0 && p.Commit < p.Start:
			found = append(found, one(Failure,
				fmt.Sprintf("lost events: %s/%d begins at offset %d, and the group had committed %d only: %d "+
					"records were deleted unread",
					l.Topic, p.Partition, p.Start, p.Commit, p.Start-p.Commit),
				"raise retention.ms of the topic above the longest time that no processor runs; have the provider "+
					"send the missing events again")...)
		case p.Commit > p.End:
			found = append(found, one(Failure,
				fmt.Sprintf("%s/%d ends at offset %d, and the group has committed %d: the topic was recreated, or "+
					"was truncated",
					l.Topic, p.Partition, p.End, p.Commit),
				"if it was recreated on purpose, reset the group's committed offsets and start with "+
					"--accept-new-log; else restore the broker that has the rest")...)
		}
	}
	return found
}

func noLag(l kafka.GroupLag, role topology.Role) Finding {
	f := Finding{Status: OK, What: fmt.Sprintf("%s: lag 0, %d members", l.Group, l.Members), Detail: l.Partitions}
	if l.Members == 0 {
		f.Status, f.What = Warning, fmt.Sprintf("%s: lag 0, but the group has no members (state %s)", l.Group, l.State)
		f.Fix = "start `tidemark " + role.Command + "`, or the next event will wait"
	}
	return f
}

// smallLag is a lag that is normal between two commits, which are made a few times a second. A lag of up to one
// second's arrivals is normal too.
const smallLag = 100

// progress compares two readings.
func progress(before, after kafka.GroupLag, watched time.Duration, role topology.Role,
	group topology.GroupUse,
) Finding {
	var stuck []string
	var committed, arrived int64
	for i, b := range before.Partitions {
		if i >= len(after.Partitions) {
			break
		}
		a := after.Partitions[i]
		committed += max(0, a.Commit-max(b.Commit, b.Start, 0))
		arrived += a.End - b.End
		if b.Records() > 0 && a.Commit == b.Commit {
			stuck = append(stuck, fmt.Sprintf("%d (lag %d)", b.Partition, a.Records()))
		}
	}
	lag := after.Total()
	f := Finding{Detail: after.Partitions}
	switch {
	case lag == 0:
		return noLag(after, role)
	case after.Members == 0:
		f.Status, f.What = Failure, fmt.Sprintf("%s: lag %d and no members (state %s): %s", after.Group, lag,
			after.State, group.Effect)
		f.Fix = "start `tidemark " + role.Command + "`; if one runs, its log and /readyz say why it is not in the group"
	case len(stuck) > 0:
		f.Status = Failure
		f.What = fmt.Sprintf("%s: lag %d, and the commits of partitions %s did not move in %v, though it has %d "+
			"members (state %s): %s",
			after.Group, lag, firstFew(stuck), watched, after.Members, after.State, group.Effect)
		f.Fix = "look at /readyz and the logs of the processes: one may be recovering its table, " +
			"unable to write its outputs, or hanging; a restart loses nothing"
	case arrived > committed && float64(lag) > max(float64(arrived)/watched.Seconds(), smallLag):
		f.Status = Warning
		f.What = fmt.Sprintf("%s: lag %d and growing: %d arrived and %d were read in %v", after.Group, lag, arrived,
			committed, watched)
		f.Fix = "start more processes (up to one per partition), or find what slows them: " +
			"tidemark_epoch_publish_seconds"
	default:
		f.Status = OK
		f.What = fmt.Sprintf("%s: lag %d, small or shrinking: %d arrived and %d were read in %v, %d members",
			after.Group, lag, arrived, committed, watched, after.Members)
	}
	return f
}

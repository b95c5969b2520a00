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
	topics := []string{group.Consumes.Name}
	if role.Reads(d.Streams.SinkRetry) {
		topics = append(topics, d.Streams.SinkRetry.Name)
	}
	return func(ctx context.Context) []Finding {
		before, err := d.lags(ctx, group.Name, topics)
		if _, denied := errors.AsType[*kafka.Denied](err); denied && role.Sink && !slices.Contains(d.User, role.Name) {
			return one(Skipped, "not checked: "+err.Error(), "")
		}
		if err != nil {
			return []Finding{d.failed(err)}
		}
		var lost []Finding
		unread := int64(0)
		for _, lag := range before {
			unread += lag.Total()
			lost = append(lost, outOfRange(lag, role)...)
		}
		switch first := before[0]; {
		case role.Sink && first.State == "Dead" && !first.Committed():
			return one(Note, group.Name+": nobody has run this sink", "to use it, start `tidemark "+role.Command+"`")
		case lost != nil:
			return lost
		case unread == 0:
			return []Finding{noLag(first, role)}
		}
		select {
		case <-time.After(d.Watch):
		case <-ctx.Done():
		}
		after, err := d.lags(ctx, group.Name, topics)
		if err != nil {
			return []Finding{d.failed(err)}
		}
		var found []Finding
		for i, lag := range after[:min(len(after), len(before))] {
			of := group
			if i > 0 {
				lag.Group += " in " + lag.Topic
				of.Effect = "dead letters that were replayed are not delivered"
			}
			if f := progress(before[i], lag, d.Watch, role, of); i == 0 || f.Status != OK && lag.Total() > 0 {
				found = append(found, f)
			}
		}
		return found
	}
}

// lags returns the lag of a group in each of topics. Of those behind the first, one that does not exist is left out:
// the check of topics reports it.
func (d *cluster) lags(ctx context.Context, group string, topics []string) (lags []kafka.GroupLag, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for i, topic := range topics {
		var lag kafka.GroupLag
		err := kafka.RetryCoordinator(ctx, func() (err error) {
			lag, err = kafka.Lags(ctx, d.Kafka, group, topic)
			return err
		})
		if i > 0 && errors.Is(err, kafka.ErrNoTopic) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lags = append(lags, lag)
	}
	return lags, nil
}

// outOfRange finds committed offsets before the log start offset, where unread records were deleted, and beyond the log
// end offset.
func outOfRange(l kafka.GroupLag, role topology.Role) (found []Finding) {
	expired := "raise retention.ms of the topic above the longest time that no processor runs; have the provider " +
		"send the missing events again"
	beyond := "if it was recreated on purpose, reset the group's committed offsets and start with " +
		"--accept-new-log; else restore the broker that has the rest"
	lost := "lost events"
	if role.Sink {
		lost = "lost records"
		expired = "they are not delivered; raise retention.ms of the topic above the longest time that the sink does " +
			"not run"
		beyond = "if it was recreated on purpose, reset the group's committed offsets; else restore the broker that " +
			"has the rest"
	}
	for _, p := range l.Partitions {
		switch {
		case p.Commit >= 0 && p.Commit < p.Start:
			found = append(found, one(Failure,
				fmt.Sprintf("%s: %s/%d begins at offset %d, and the group had committed %d only: %d "+
					"records were deleted unread",
					lost, l.Topic, p.Partition, p.Start, p.Commit, p.Start-p.Commit),
				expired)...)
		case p.Commit > p.End:
			found = append(found, one(Failure,
				fmt.Sprintf("%s/%d ends at offset %d, and the group has committed %d: the topic was recreated, or "+
					"was truncated",
					l.Topic, p.Partition, p.End, p.Commit),
				beyond)...)
		}
	}
	return found
}

func noLag(l kafka.GroupLag, role topology.Role) Finding {
	f := Finding{Status: OK, What: fmt.Sprintf("%s: lag 0, %d members", l.Group, l.Members), Detail: l.Partitions}
	if l.Members == 0 {
		f.Status, f.What = Warning, fmt.Sprintf("%s: lag 0, but the group has no members (state %s)", l.Group, l.State)
		f.Fix = "start `tidemark " + role.Command + "`, or the next event will wait" + removed(role)
	}
	return f
}

// removed is the advice about a group without members that nobody needs any more.
func removed(role topology.Role) string {
	if !role.Sink {
		return ""
	}
	return "; if the sink or its rule was removed, delete the group with Kafka's own tools. The brokers delete its " +
		"committed offsets offsets.retention.minutes after its last member left or its last commit (7 days by default)"
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
		f.Fix = "start `tidemark " + role.Command + "`; if one runs, its log and /readyz say why it is not in the group" +
			removed(role)
		if group.Prefixed { // the rule may be disabled or removed
			f.Status = Warning
		}
	case len(stuck) > 0:
		f.Status = Failure
		f.What = fmt.Sprintf("%s: lag %d, and the commits of partitions %s did not move in %v, though it has %d "+
			"members (state %s): %s",
			after.Group, lag, firstFew(stuck), watched, after.Members, after.State, group.Effect)
		f.Fix = "look at /readyz and the logs of the processes: one may be recovering its table, " +
			"unable to write its outputs, or hanging; a restart loses nothing"
		if role.Sink {
			f.Fix = "look at /readyz and the log of `tidemark " + role.Command + "`: its destination may be down or " +
				"slow, or refuse the credentials (tidemark_sink_breaker_open, tidemark_sink_attempts_total)"
		}
		if group.Pauses != "" {
			f.Status, f.Fix = Warning, "nothing, if "+group.Pauses+"; else "+f.Fix
		}
	case arrived > committed && float64(lag) > max(float64(arrived)/watched.Seconds(), smallLag):
		f.Status = Warning
		f.What = fmt.Sprintf("%s: lag %d and growing: %d arrived and %d were read in %v", after.Group, lag, arrived,
			committed, watched)
		metric := "tidemark_epoch_publish_seconds"
		if role.Sink {
			metric = "tidemark_sink_delivery_seconds"
		}
		f.Fix = "start more processes (up to one per partition), or find what slows them: " + metric
	default:
		f.Status = OK
		f.What = fmt.Sprintf("%s: lag %d, small or shrinking: %d arrived and %d were read in %v, %d members",
			after.Group, lag, arrived, committed, watched, after.Members)
	}
	return f
}

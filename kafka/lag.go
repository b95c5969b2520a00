package kafka

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/kafka/committed"
)

// A GroupLag is the lag of a group in a topic.
type GroupLag struct {
	Group, Topic string
	State        string // by Kafka's names; "Dead" for a group that does not exist
	Members      int
	Partitions   []PartitionLag // in order
}

// A PartitionLag is the lag of a group in one partition.
type PartitionLag struct {
	Partition int32 `json:"partition"`
	Start     int64 `json:"start"`  // log start offset
	Commit    int64 `json:"commit"` // committed offset; -1: none
	End       int64 `json:"end"`    // after the last record; the committed offset if that is behind transaction markers
}

// Records returns the number of records left to read.
func (p PartitionLag) Records() int64 { return max(0, p.End-max(p.Commit, p.Start)) }

// Total returns the number of records left to read in all partitions.
func (l GroupLag) Total() (n int64) {
	for _, p := range l.Partitions {
		n += p.Records()
	}
	return n
}

// Committed reports whether the group has committed an offset in any partition.
func (l GroupLag) Committed() bool {
	return slices.ContainsFunc(l.Partitions, func(p PartitionLag) bool { return p.Commit >= 0 })
}

// Lags returns the lag of a group. The commits are fetched before the ends, so the lag is never negative.
func Lags(ctx context.Context, c Config, group, topic string) (GroupLag, error) {
	lag := GroupLag{Group: group, Topic: topic, State: "Dead"}
	a, err := c.admin()
	if err != nil {
		return lag, err
	}
	defer a.Close()
	described, err := a.DescribeGroups(ctx, group)
	if errors.Is(err, kerr.GroupAuthorizationFailed) {
		return lag, &Denied{"group " + group, "describe it", "Describe"}
	}
	if err != nil {
		return lag, a.fail("look up group "+group, err)
	}
	switch g := described[group]; {
	case errors.Is(g.Err, kerr.GroupIDNotFound):
	case errors.Is(g.Err, kerr.GroupAuthorizationFailed):
		return lag, &Denied{"group " + group, "describe it", "Describe"}
	case g.Err != nil:
		return lag, a.fail("look up group "+group, g.Err)
	case g.State != "":
		lag.State, lag.Members = g.State, len(g.Members)
	}
	commits, err := a.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never ran: other brokers return no error
		return lag, a.fail("fetch the commits of group "+group, err)
	}
	starts, err := a.ListStartOffsets(ctx, topic)
	if err != nil {
		return lag, a.fail("look up the offsets of "+topic, err)
	}
	ends, err := a.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return lag, a.fail("look up the offsets of "+topic, err)
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return lag, missing(topic)
		}
		return lag, a.fail("look up the offsets of "+topic, err)
	}
	read := map[int32]int64{} // no consumer gets markers, so a group may have committed before or past them
	ends.Each(func(o kadm.ListedOffset) { read[o.Partition] = o.Offset })
	if read, err = committed.Ends(ctx, a.client, topic, read); err != nil {
		return lag, a.fail("look up the last records of "+topic, err)
	}
	ends.Each(func(o kadm.ListedOffset) {
		p := PartitionLag{Partition: o.Partition, Commit: -1, End: o.Offset}
		if end, found := read[o.Partition]; found {
			p.End = end
		}
		if start, ok := starts.Lookup(topic, o.Partition); ok {
			p.Start = start.Offset
		}
		if commit, ok := commits.Lookup(topic, o.Partition); ok && commit.Err == nil {
			p.Commit = commit.At
		}
		p.End = max(p.End, min(p.Commit, o.Offset))
		lag.Partitions = append(lag.Partitions, p)
	})
	slices.SortFunc(lag.Partitions, func(x, y PartitionLag) int { return int(x.Partition - y.Partition) })
	return lag, nil
}

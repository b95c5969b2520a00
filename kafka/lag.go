package kafka

import (
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/kafka/committed"
)

// A GroupLag is how far a group has come in a topic.
type GroupLag struct {
	Group, Topic string
	State        string // by Kafka's names; "Dead" for a group that does not exist
	Members      int
	Partitions   []PartitionLag // in order
}

// A PartitionLag is how far a group has come in one partition.
type PartitionLag struct {
	Partition int32 `json:"partition"`
	Start     int64 `json:"start"`  // of what the log still has
	Commit    int64 `json:"commit"` // what the group reads next; -1: it has committed nothing
	End       int64 `json:"end"`    // after the last record, or where the group is past that: markers of transactions are behind it
}

// Records is how many are left to read.
func (p PartitionLag) Records() int64 { return max(0, p.End-max(p.Commit, p.Start)) }

// Total is how many records are left to read.
func (l GroupLag) Total() (n int64) {
	for _, p := range l.Partitions {
		n += p.Records()
	}
	return n
}

// Lags asks how far a group has come. The commits are asked for first: what is told as left to read was there then.
func Lags(ctx context.Context, c Config, group, topic string) (GroupLag, error) {
	lag := GroupLag{Group: group, Topic: topic, State: "Dead"}
	a, err := c.admin()
	if err != nil {
		return lag, err
	}
	defer a.Close()
	described, err := a.DescribeGroups(ctx, group)
	if err != nil {
		return lag, a.fail("ask for group "+group, err)
	}
	switch g := described[group]; {
	case errors.Is(g.Err, kerr.GroupIDNotFound):
	case errors.Is(g.Err, kerr.GroupAuthorizationFailed):
		return lag, &Denied{"group " + group, "describe it", "Describe"}
	case g.Err != nil:
		return lag, a.fail("ask for group "+group, g.Err)
	case g.State != "":
		lag.State, lag.Members = g.State, len(g.Members)
	}
	commits, err := a.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never ran: some brokers say so, others send nothing
		return lag, a.fail("ask for the commits of group "+group, err)
	}
	starts, err := a.ListStartOffsets(ctx, topic)
	if err != nil {
		return lag, a.fail("ask for the offsets of "+topic, err)
	}
	ends, err := a.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return lag, a.fail("ask for the offsets of "+topic, err)
	}
	if err := errors.Join(starts.Error(), ends.Error()); err != nil {
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return lag, missing(topic)
		}
		return lag, a.fail("ask for the offsets of "+topic, err)
	}
	read := map[int32]int64{} // a marker is handed to nobody, so a group may stand before it, or past it when it looked
	ends.Each(func(o kadm.ListedOffset) { read[o.Partition] = o.Offset })
	if read, err = committed.Ends(ctx, a.client, topic, read); err != nil {
		return lag, a.fail("look for the last records of "+topic, err)
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

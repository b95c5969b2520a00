package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

type (
	// A Span is a part of a partition.
	Span = committed.Span
	// Spans are the parts of a topic's partitions.
	Spans = committed.Spans
)

// Extent returns what of a topic can be read now: from what retention has left up to the last stable offset. An empty
// partition is there with an empty span, so the number of spans is that of the partitions.
func Extent(ctx context.Context, c Config, topic string) (Spans, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.extent(ctx, topic)
}

func (a *admin) extent(ctx context.Context, topic string) (Spans, error) {
	starts, err := a.ListStartOffsets(ctx, topic)
	if err = a.topicError(topic, starts, err); err != nil {
		return nil, err
	}
	ends, err := a.ListCommittedOffsets(ctx, topic)
	if err = a.topicError(topic, ends, err); err != nil {
		return nil, err
	}
	spans := Spans{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		spans[end.Partition] = Span{From: start.Offset, To: end.Offset}
	})
	return spans, nil
}

// undecidedFor is how long open transactions are waited for. A broker ends those of an instance that died within their timeout,
// 15 s in package epochs, and the 10 s of its look-out for them.
const openTransactionTimeout = time.Minute

// Decided returns the extent of a topic once no transaction in it is undecided, so that all that is there can be read.
func StableExtent(ctx context.Context, c Config, topic string) (Spans, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	for begun := time.Now(); ; {
		ends, err := a.ListEndOffsets(ctx, topic)
		if err = a.topicError(topic, ends, err); err != nil {
			return nil, err
		}
		spans, err := a.extent(ctx, topic)
		if err != nil {
			return nil, err
		}
		open := int32(-1)
		ends.Each(func(end kadm.ListedOffset) {
			if spans[end.Partition].To < end.Offset {
				open = end.Partition
			}
		})
		if open < 0 {
			return spans, nil
		}
		if time.Since(begun) > openTransactionTimeout {
			return nil, fmt.Errorf("a transaction on %s/%d is still undecided: wait until its producer has ended it, or the brokers have", topic, open)
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// OffsetsAt returns the offset of the first record of each partition that is not older than at, and the partition's end where
// there is none.
func OffsetsAt(ctx context.Context, c Config, topic string, at time.Time) (map[int32]int64, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	listed, err := a.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topic)
	if err = a.topicError(topic, listed, err); err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets, nil
}

func (a *admin) topicError(topic string, listed kadm.ListedOffsets, err error) error {
	if err == nil {
		err = listed.Error()
	}
	switch {
	case err == nil && len(listed[topic]) == 0, errors.Is(err, kerr.UnknownTopicOrPartition):
		return missing(topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return deniedRead(topic)
	case err != nil:
		return a.fail("look up topic "+topic, err)
	}
	return nil
}

func deniedRead(topic string) error { return &Denied{"topic " + topic, "read it", "Read"} }

// Read hands the committed records in spans to each: see committed.Read.
func Read(ctx context.Context, c Config, topic string, spans Spans, each func(*kgo.Record) error) error {
	var a *admin
	err := committed.Read(ctx, func(options ...kgo.Opt) (*kgo.Client, error) {
		var err error
		if a, err = c.admin(options...); err != nil {
			return nil, err
		}
		return a.client, nil
	}, topic, spans, each)
	if failed, ok := errors.AsType[*committed.FetchError](err); ok {
		switch {
		case errors.Is(failed, kerr.TopicAuthorizationFailed):
			return deniedRead(topic)
		case failed.Partition < 0:
			return a.topicError(topic, nil, failed.Err)
		}
		return a.fail(fmt.Sprintf("read partition %d of %s", failed.Partition, topic), failed.Err)
	}
	return err
}

// Settled moves the ends of spans back to where a reader of committed records stands when it has read them: see committed.Ends. An
// end that cannot be told now stays.
func TrimTrailingMarkers(ctx context.Context, c Config, topic string, spans Spans) (Spans, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	ends := map[int32]int64{}
	for partition, span := range spans {
		ends[partition] = span.To
	}
	if ends, err = committed.Ends(ctx, a.client, topic, ends); err != nil {
		return nil, err
	}
	settled := maps.Clone(spans)
	for partition, end := range ends {
		settled[partition] = Span{From: spans[partition].From, To: end}
	}
	return settled, nil
}

// Committed returns the offsets that a group has committed in a topic, with their metadata. A group that never committed
// there has none.
func Committed(ctx context.Context, c Config, group, topic string) (map[int32]kadm.Offset, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	fetched, err := a.FetchOffsetsForTopics(ctx, group, topic)
	if err == nil {
		err = fetched.Error()
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound): // a group that never ran: some brokers say so, others send nothing
		return nil, nil
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return nil, &Denied{"group " + group, "see what it committed", "Describe"}
	case err != nil:
		return nil, a.fail("look up what group "+group+" committed", err)
	}
	offsets := map[int32]kadm.Offset{}
	for partition, o := range fetched[topic] {
		if o.At >= 0 {
			offsets[partition] = o.Offset
		}
	}
	return offsets, nil
}

// ErrHasMembers says that a group's commits cannot be set, since it has members that commit.
var ErrHasMembers = errors.New("it has members")

// Commit sets what a group without members has committed; with members it returns ErrHasMembers.
func Commit(ctx context.Context, c Config, group string, offsets ...kadm.Offset) error {
	if len(offsets) == 0 {
		return nil
	}
	a, err := c.admin()
	if err != nil {
		return err
	}
	defer a.Close()
	commit := kadm.Offsets{}
	for _, o := range offsets {
		commit.Add(o)
	}
	answers, err := a.CommitOffsets(ctx, group, commit)
	if err == nil {
		err = answers.Error()
	}
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return &Denied{"group " + group, "commit to it", "Read"}
	case errors.Is(err, kerr.UnknownMemberID):
		return fmt.Errorf("group %s: %w: stop them first, or wait some 10 s for one that was killed", group, ErrHasMembers)
	case err != nil:
		return a.fail("commit for group "+group, err)
	}
	return nil
}

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

// Extent returns the spans of a topic that can be read now: from the log start offset to the last stable offset. An
// empty partition has an empty span, so there are as many spans as partitions.
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

// openTransactionTimeout is how long to wait for open transactions. A broker aborts the transaction of an instance that
// died after its timeout, 15 s in package epochs, plus the 10 s between two checks.
const openTransactionTimeout = time.Minute

// StableExtent returns the extent of a topic once no transaction in it is open, so that it includes all records.
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
			return nil, fmt.Errorf(
				"a transaction on %s/%d is still open: wait until its producer or the brokers have ended it",
				topic, open)
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// OffsetsAt returns for each partition the offset of the first record that is not older than at, or the partition's end
// if there is none.
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

// FirstTime returns the lowest timestamp of the first records of a topic's partitions; found is false if there is none.
func FirstTime(ctx context.Context, c Config, topic string) (first time.Time, found bool, err error) {
	a, err := c.admin()
	if err != nil {
		return first, false, err
	}
	defer a.Close()
	listed, err := a.ListOffsetsAfterMilli(ctx, 0, topic)
	if err = a.topicError(topic, listed, err); err != nil {
		return first, false, err
	}
	listed.Each(func(o kadm.ListedOffset) {
		at := time.UnixMilli(o.Timestamp)
		if o.Timestamp >= 0 && (!found || at.Before(first)) {
			first, found = at, true
		}
	})
	return first, found, nil
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

// Read calls each for the committed records in spans: see committed.Read.
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

// TrimTrailingMarkers moves the ends of spans back before transaction markers and aborted records, to what a
// read_committed consumer reaches: see committed.Ends. An end that is not known now is left as it is.
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
	trimmed := maps.Clone(spans)
	for partition, end := range ends {
		trimmed[partition] = Span{From: spans[partition].From, To: end}
	}
	return trimmed, nil
}

// Committed returns the offsets that a group has committed in a topic, with their metadata.
func Committed(ctx context.Context, c Config, group, topic string) (map[int32]kadm.Offset, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var fetched kadm.OffsetResponses
	err = RetryCoordinator(ctx, func() (err error) {
		if fetched, err = a.FetchOffsetsForTopics(ctx, group, topic); err == nil {
			err = fetched.Error()
		}
		return err
	})
	switch {
	case errors.Is(err, kerr.GroupIDNotFound): // a group that never ran: other brokers return no error
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

// ErrHasMembers says that offsets cannot be committed for a group, because it has members.
var ErrHasMembers = errors.New("it has members")

// Commit commits offsets for a group without members; if it has members it returns ErrHasMembers.
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
	err = RetryCoordinator(ctx, func() error {
		answers, err := a.CommitOffsets(ctx, group, commit)
		if err == nil {
			err = answers.Error()
		}
		return err
	})
	switch {
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return &Denied{"group " + group, "commit to it", "Read"}
	case errors.Is(err, kerr.UnknownMemberID):
		return fmt.Errorf("group %s: %w: stop them first, or wait some 10 s for one that was killed", group,
			ErrHasMembers)
	case err != nil:
		return a.fail("commit for group "+group, err)
	}
	return nil
}

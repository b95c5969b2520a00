package sinks

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka"
)

// commitEnds commits the log end offsets for a new group that is to start there. A group with members has done so.
func (l *Loop) commitEnds(ctx context.Context) error {
	if !l.config.FromEnd {
		return nil
	}
	err := WhileUnreachable(ctx, l.config.Log, func() error { return l.commitEndsOnce(ctx) })
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// commitEndsOnce commits the log end offsets of a new group. A partition that the group does not know yet, and one
// whose commit is below the log start offset, begins at that: there are records that the sink has not seen.
func (l *Loop) commitEndsOnce(ctx context.Context) error {
	group := l.config.Streams.SinkGroup(l.config.Name)
	var commits []kadm.Offset
	for _, topic := range l.config.Topics {
		committed, err := kafka.Committed(ctx, l.config.Kafka, group, topic.Name)
		if err != nil {
			return err
		}
		spans, err := kafka.Extent(ctx, l.config.Kafka, topic.Name)
		if err != nil {
			return err
		}
		for partition, span := range spans {
			at, found := committed[partition]
			next := span.From
			switch {
			case found && at.At >= span.From:
				continue
			case found:
				l.config.Log.WarnContext(ctx, "retention has deleted records that the sink has not seen",
					"topic", topic.Name, "partition", partition, "records", span.From-at.At)
			case len(committed) == 0:
				next = span.To
			}
			commits = append(commits, kadm.Offset{
				Topic: topic.Name, Partition: partition, At: next, LeaderEpoch: -1,
			})
		}
	}
	if err := kafka.Commit(ctx, l.config.Kafka, group, commits...); !errors.Is(err, kafka.ErrHasMembers) {
		return err
	}
	return nil
}

// Hold is Run for a sink that is disabled: it delivers nothing. It is a member of the group all the same, because the
// brokers delete the offsets of a group that has been without members for offsets.retention.minutes, 7 days by default.
func (l *Loop) Hold(ctx context.Context) error {
	if err := l.commitEnds(ctx); err != nil {
		return err
	}
	consumer, err := kafka.NewConsumer(l.config.Log, l.config.Kafka, l.consumerConfig(l.config.Streams.SinkRetry), hold)
	if err != nil {
		return err
	}
	return consumer.Run(ctx)
}

// hold is the handler of a disabled sink.
func hold(ctx context.Context, p *kafka.AssignedPartition) error {
	select {
	case <-p.Revoked():
		return kafka.ErrRevoked
	case <-ctx.Done():
		return ctx.Err()
	}
}

package repartition

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/deadletters"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// readCopied reads from the new events topic which events were copied. Of each old partition these are all events up to
// some offset, as they are written in order and in transactions.
func (r *run) readCopied(ctx context.Context) error {
	topic := r.To.Events.Name
	spans, err := kafka.StableExtent(ctx, r.Kafka, topic) // a commit returns before all its markers are written
	if err != nil {
		return err
	}
	r.positions, r.last, r.expired, r.summary.Events = positions{}, map[int32]int64{}, 0, 0
	for _, span := range spans {
		r.expired += span.From
	}
	return kafka.Read(ctx, r.Kafka, topic, spans, func(record *kgo.Record) error {
		r.report(Reading)
		return r.addCopied(record)
	})
}

// addCopied adds a record of the new events topic.
func (r *run) addCopied(record *kgo.Record) error {
	from, err := source(record, topology.HeaderCopied)
	if err != nil {
		return err
	}
	if !r.positions.add(from.GetPartition(), from.GetOffset(), record.Partition, record.Offset) {
		return fmt.Errorf("%w: %s holds the event of %s twice: delete the new topics and start again",
			errForeign, record.Topic, from.Text())
	}
	if last, known := r.last[from.GetPartition()]; !known || from.GetOffset() > last {
		r.last[from.GetPartition()] = from.GetOffset()
	}
	r.summary.Events++
	return nil
}

// source returns the old position of a copied record.
func source(record *kgo.Record, header string) (*tidemarkv1.Position, error) {
	for _, h := range record.Headers {
		if h.Key == header {
			return tidemarkv1.ParsePosition(string(h.Value))
		}
	}
	return nil, fmt.Errorf("%w: the record at %s of %s is not a copy: stop its producer, send its records to the old "+
		"prefix, delete the new topics, and start again",
		errForeign, text(record.Partition, record.Offset), record.Topic)
}

// copyEvents copies the events that the old files group has read, then commits the ends for the new group, then copies
// the events that the old group has not read.
func (r *run) copyEvents(ctx context.Context) error {
	read, unread := kafka.Spans{}, kafka.Spans{}
	for partition, span := range r.events {
		until := span.From
		if next, committed := r.folded[partition]; committed {
			until = min(max(next, span.From), span.To)
		}
		read[partition] = kafka.Span{From: span.From, To: until}
		unread[partition] = kafka.Span{From: until, To: span.To}
	}
	if err := r.copyLog(ctx, read, true); err != nil {
		return err
	}
	if !r.resumed {
		ends, err := kafka.StableExtent(ctx, r.Kafka, r.To.Events.Name)
		if err != nil {
			return err
		}
		var begin []kadm.Offset
		for partition, span := range ends {
			begin = append(begin, kadm.Offset{
				Topic: r.To.Events.Name, Partition: partition, At: span.To, LeaderEpoch: -1, Metadata: mark,
			})
		}
		if err := kafka.Commit(ctx, r.Kafka, r.To.FilesGroup, begin...); err != nil {
			return err
		}
	}
	if err := r.copyLog(ctx, unread, false); err != nil {
		return err
	}
	// The new positions are read from the new topic itself. That also proves that each event is there once.
	if err := r.readCopied(ctx); err != nil {
		return err
	}
	if r.summary.Events+r.expired < r.read {
		return fmt.Errorf("%d events were read of %s, and %s has %d: delete the new topics and start again",
			r.read, r.From.Events.Name, r.To.Events.Name, r.summary.Events)
	}
	return r.countUnfolded(ctx)
}

// copyLog copies spans of the old events topic, one partition after the other. If a workspace has events in two
// partitions, because partitions were added, the older ones mostly are in the lower.
func (r *run) copyLog(ctx context.Context, spans kafka.Spans, folded bool) error {
	for _, partition := range slices.Sorted(maps.Keys(spans)) {
		part := kafka.Spans{partition: spans[partition]}
		err := kafka.Read(ctx, r.Kafka, r.From.Events.Name, part, func(record *kgo.Record) error {
			r.report(Events)
			r.read++
			if last, found := r.last[record.Partition]; found && record.Offset <= last {
				return nil
			}
			to := r.partitionOf(record, folded)
			return r.writer.put(ctx, copied(record, r.To.Events.Name, to, topology.HeaderCopied))
		})
		if err == nil {
			err = r.writer.flush(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// partitionOf returns the new partition of an event. An event in a wrong partition is a dead letter. It goes to a wrong
// partition again: in the right one it would be folded, beside its dead letter. (With one partition there is no wrong
// one.) If partitions were added to the old topic, events written since may be hashed over all of them, and are right.
func (r *run) partitionOf(record *kgo.Record, folded bool) int32 {
	workspace := string(record.Key)
	if len(record.Key) == 0 { // else a JSON that contradicts the key is a dead letter in any partition
		if e, err := codecs.ParseEvent(record.Value); err == nil {
			workspace = e.GetWorkspaceId()
		}
	}
	n := r.To.Events.Partitions
	right := kafka.Partition(workspace, n)
	since := !folded && kafka.Partition(workspace, len(r.events)) == record.Partition
	if kafka.Partition(workspace, r.hashed) != record.Partition && !since {
		return (right + 1) % int32(n)
	}
	return right
}

// countUnfolded counts the events that the new group will read.
func (r *run) countUnfolded(ctx context.Context) error {
	begin, err := kafka.Committed(ctx, r.Kafka, r.To.FilesGroup, r.To.Events.Name)
	if err != nil {
		return err
	}
	r.summary.Unfolded = 0
	for _, entries := range r.positions {
		for _, entry := range entries {
			partition, offset := int32(entry>>offsetBits)-1, entry&(1<<offsetBits-1)
			if entry != 0 && offset >= begin[partition].At {
				r.summary.Unfolded++
			}
		}
	}
	return nil
}

// copiedFrom returns the old positions of the records of a topic.
func (r *run) copiedFrom(ctx context.Context, topic, header string) (map[string]bool, error) {
	spans, err := kafka.StableExtent(ctx, r.Kafka, topic)
	if err != nil {
		return nil, err
	}
	found := map[string]bool{}
	return found, kafka.Read(ctx, r.Kafka, topic, spans, func(record *kgo.Record) error {
		from, err := source(record, header)
		if err == nil {
			found[from.Text()] = true
		}
		return err
	})
}

// copyDeadLetters copies the entries that are neither replayed nor dropped, with the new positions of their source
// events. The source of a sink's entry stays that of the old topic, which is not copied.
func (r *run) copyDeadLetters(ctx context.Context) error {
	done, err := r.copiedFrom(ctx, r.To.DLQ.Name, topology.HeaderCopiedDeadLetter)
	if err != nil {
		return err
	}
	queue := deadletters.New(r.Kafka, r.From)
	open, err := queue.Entries(ctx, deadletters.Filter{})
	if err != nil {
		return err
	}
	err = queue.Records(ctx, open, func(entry *deadletters.Entry, record *kgo.Record) error {
		r.report(DeadLetters)
		r.summary.DeadLetters++
		if done[text(record.Partition, record.Offset)] {
			return nil
		}
		partition := kafka.Partition(string(record.Key), r.To.DLQ.Partitions)
		dead := copied(record, r.To.DLQ.Name, partition, topology.HeaderCopiedDeadLetter)
		at := r.positions.find(entry.Partition, entry.Offset)
		if at != nil && entry.Topic == r.From.Events.Name {
			dead.Partition = at.GetPartition()
			for i, h := range dead.Headers {
				switch h.Key {
				case topology.HeaderTopic:
					dead.Headers[i].Value = []byte(r.To.Events.Name)
				case topology.HeaderPartition:
					dead.Headers[i].Value = strconv.AppendInt(nil, int64(at.GetPartition()), 10)
				case topology.HeaderOffset:
					dead.Headers[i].Value = strconv.AppendInt(nil, at.GetOffset(), 10)
				}
			}
		}
		return r.writer.put(ctx, dead)
	})
	if err != nil {
		return err
	}
	return r.writer.flush(ctx)
}

// copyNotices copies the notices that the workspaces group has not counted. Consumers finish reading the others in the
// old topic.
func (r *run) copyNotices(ctx context.Context) error {
	done, err := r.copiedFrom(ctx, r.To.Notify.Name, topology.HeaderCopied)
	if err != nil {
		return err
	}
	for _, partition := range slices.Sorted(maps.Keys(r.notices)) {
		span := r.notices[partition]
		span.From = max(span.From, r.counted[partition])
		err := kafka.Read(ctx, r.Kafka, r.From.Notify.Name, kafka.Spans{partition: span},
			func(record *kgo.Record) error {
				r.report(Notices)
				r.summary.Notices++
				if done[text(record.Partition, record.Offset)] {
					return nil
				}
				to := kafka.FilePartition(record.Key, r.To.Notify.Partitions)
				notice := copied(record, r.To.Notify.Name, to, topology.HeaderCopied)
				if notice.Value, err = r.translateNotice(record); err != nil {
					return err
				}
				return r.writer.put(ctx, notice)
			})
		if err != nil {
			return err
		}
	}
	return r.writer.flush(ctx)
}

// translateNotice returns a notice with its new positions. A record that is not a notice is copied as it is: the group
// skips it.
func (r *run) translateNotice(record *kgo.Record) ([]byte, error) {
	message, err := codecs.Notice{}.Decode(record.Value)
	if err != nil {
		return record.Value, nil //nolint:nilerr // another producer's
	}
	n := message.(*tidemarkv1.Notice)
	old := n.GetPosition()
	if r.positions.translate(n.ProtoReflect()); n.GetPosition() == nil {
		return nil, fmt.Errorf("the notice at %s of %s is not counted yet, and its event %s is no longer in %s: "+
			"run `process --groups workspaces` until it is counted, and start again",
			text(record.Partition, record.Offset), record.Topic, old.Text(), r.From.Events.Name)
	}
	return codecs.Notice{}.Encode(n)
}

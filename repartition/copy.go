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

// lookAtEvents learns from the new log what was copied. Of each old partition that is all up to some offset: its events are
// written in their order, and those of a transaction together.
func (r *run) lookAtEvents(ctx context.Context) error {
	topic := r.To.Events.Name
	spans, err := kafka.Decided(ctx, r.Kafka, topic) // a commit returns before all its markers are written
	if err != nil {
		return err
	}
	r.places, r.last, r.expired, r.summary.Events = places{}, map[int32]int64{}, 0, 0
	for _, span := range spans {
		r.expired += span.From
	}
	return kafka.Read(ctx, r.Kafka, topic, spans, func(record *kgo.Record) error {
		r.report(Looking)
		return r.note(record)
	})
}

// note enters a record of the new log.
func (r *run) note(record *kgo.Record) error {
	from, err := source(record, topology.HeaderCopied)
	if err != nil {
		return err
	}
	if !r.places.add(from.GetPartition(), from.GetOffset(), record.Partition, record.Offset) {
		return fmt.Errorf("%w: %s holds the event of %s twice: delete the new topics and start again",
			ErrForeign, record.Topic, from.Text())
	}
	if last, known := r.last[from.GetPartition()]; !known || from.GetOffset() > last {
		r.last[from.GetPartition()] = from.GetOffset()
	}
	r.summary.Events++
	return nil
}

// source reads where a copy was read.
func source(record *kgo.Record, header string) (*tidemarkv1.Position, error) {
	for _, h := range record.Headers {
		if h.Key == header {
			return tidemarkv1.ParsePosition(string(h.Value))
		}
	}
	return nil, fmt.Errorf("%w: the record at %s of %s is no copy: stop what writes there, send what it wrote to the old "+
		"prefix, delete the new topics, and start again", ErrForeign, text(record.Partition, record.Offset), record.Topic)
}

// copyEvents copies what the old files group has read, and then what it has not. Between the two, in each new
// partition, the new group begins.
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
	if !r.begun {
		ends, err := kafka.Decided(ctx, r.Kafka, r.To.Events.Name)
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
	// Where the events lie now is read from the new log itself, which shows at the same time that each is there, and
	// once.
	if err := r.lookAtEvents(ctx); err != nil {
		return err
	}
	if r.summary.Events+r.expired < r.read {
		return fmt.Errorf("%d events were read of %s, and %s has %d: delete the new topics and start again",
			r.read, r.From.Events.Name, r.To.Events.Name, r.summary.Events)
	}
	return r.countUnfolded(ctx)
}

// copyLog copies parts of the old log, one partition after the other: if one workspace's events lie in two, because
// partitions were added, the older ones mostly are in the lower.
func (r *run) copyLog(ctx context.Context, spans kafka.Spans, folded bool) error {
	for _, partition := range slices.Sorted(maps.Keys(spans)) {
		part := kafka.Spans{partition: spans[partition]}
		err := kafka.Read(ctx, r.Kafka, r.From.Events.Name, part, func(record *kgo.Record) error {
			r.report(Events)
			r.read++
			if last, begun := r.last[record.Partition]; begun && record.Offset <= last {
				return nil
			}
			return r.writer.put(ctx, copied(record, r.To.Events.Name, r.partitionOf(record, folded), topology.HeaderCopied))
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

// partitionOf returns where an event belongs. One in a wrong partition, which is a dead letter, lies in a wrong one
// again: put right it would be folded beside its dead letter. (With one partition there is no wrong one.) Where
// partitions were added to the old topic, what is written since may be hashed over all of them, and is good.
func (r *run) partitionOf(record *kgo.Record, folded bool) int32 {
	workspace := string(record.Key)
	if len(record.Key) == 0 { // then the JSON alone says it; else one that contradicts the key is no event anywhere
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
	for _, entries := range r.places {
		for _, entry := range entries {
			partition, offset := int32(entry>>offsetBits)-1, entry&(1<<offsetBits-1)
			if entry != 0 && offset >= begin[partition].At {
				r.summary.Unfolded++
			}
		}
	}
	return nil
}

// there returns where the records of a topic were copied from.
func (r *run) there(ctx context.Context, topic, header string) (map[string]bool, error) {
	spans, err := kafka.Decided(ctx, r.Kafka, topic)
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

// copyDeadLetters copies the entries that are neither replayed nor dropped. Their source is said as it lies in the new
// log.
func (r *run) copyDeadLetters(ctx context.Context) error {
	there, err := r.there(ctx, r.To.DLQ.Name, topology.HeaderCopiedDeadLetter)
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
		if there[text(record.Partition, record.Offset)] {
			return nil
		}
		partition := kafka.Partition(string(record.Key), r.To.DLQ.Partitions)
		letter := copied(record, r.To.DLQ.Name, partition, topology.HeaderCopiedDeadLetter)
		at := r.places.find(entry.Source.Partition, entry.Source.Offset)
		if at != nil && entry.Source.Topic == r.From.Events.Name {
			letter.Partition = at.GetPartition()
			for i, h := range letter.Headers {
				switch h.Key {
				case topology.HeaderTopic:
					letter.Headers[i].Value = []byte(r.To.Events.Name)
				case topology.HeaderPartition:
					letter.Headers[i].Value = strconv.AppendInt(nil, int64(at.GetPartition()), 10)
				case topology.HeaderOffset:
					letter.Headers[i].Value = strconv.AppendInt(nil, at.GetOffset(), 10)
				}
			}
		}
		return r.writer.put(ctx, letter)
	})
	if err != nil {
		return err
	}
	return r.writer.flush(ctx)
}

// copyNotices copies the notices that are not in the counts yet. All others have been read by everyone who was to read
// them, and stay where they are.
func (r *run) copyNotices(ctx context.Context) error {
	there, err := r.there(ctx, r.To.Notify.Name, topology.HeaderCopied)
	if err != nil {
		return err
	}
	for _, partition := range slices.Sorted(maps.Keys(r.notices)) {
		span := r.notices[partition]
		span.From = max(span.From, r.counted[partition])
		err := kafka.Read(ctx, r.Kafka, r.From.Notify.Name, kafka.Spans{partition: span}, func(record *kgo.Record) error {
			r.report(Notices)
			r.summary.Notices++
			if there[text(record.Partition, record.Offset)] {
				return nil
			}
			to := kafka.FilePartition(record.Key, r.To.Notify.Partitions)
			notice := copied(record, r.To.Notify.Name, to, topology.HeaderCopied)
			if notice.Value, err = r.moveNotice(record); err != nil {
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

// moveNotice returns the bytes of a notice with its new positions. What is none is for the group to skip, as before.
func (r *run) moveNotice(record *kgo.Record) ([]byte, error) {
	message, err := codecs.Notice{}.Decode(record.Value)
	if err != nil {
		return record.Value, nil //nolint:nilerr // a foreign writer's
	}
	n := message.(*tidemarkv1.Notice)
	old := n.GetPosition()
	if r.places.translate(n.ProtoReflect()); n.GetPosition() == nil {
		return nil, fmt.Errorf("the notice at %s of %s is not counted yet, and its event %s is no longer in %s: "+
			"run `process --groups workspaces` until it is counted, and start again",
			text(record.Partition, record.Offset), record.Topic, old.Text(), r.From.Events.Name)
	}
	return codecs.Notice{}.Encode(n)
}

package repartition

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/topology"
)

// A sinkGroup is a consumer group of a sink under the old prefix.
type sinkGroup struct {
	role       topology.Role
	name       string // without the prefix
	from, to   string // the topics that it consumes
	lag        int64
	hasMembers bool
}

// sinkGroups returns the groups of sinks that have committed under the old prefix.
func (m *Move) sinkGroups(ctx context.Context) ([]sinkGroup, error) {
	names, err := kafka.Groups(ctx, m.Kafka, m.From.SinkGroup(""))
	if err != nil {
		return nil, err
	}
	var groups []sinkGroup
	to := m.To.SinkRoles()
	for i, role := range m.From.SinkRoles() {
		use := role.Groups[0]
		for _, name := range names {
			if name != use.Name && (!use.Prefixed || !strings.HasPrefix(name, use.Name)) {
				continue
			}
			lag, err := kafka.Lags(ctx, m.Kafka, name, use.Consumes.Name)
			if err != nil {
				return nil, err
			}
			if lag.Members > 0 || lag.Committed() {
				groups = append(groups, sinkGroup{
					role: role, name: m.From.ShortName(name), from: use.Consumes.Name,
					to: to[i].Groups[0].Consumes.Name, lag: lag.Total(), hasMembers: lag.Members > 0,
				})
			}
		}
	}
	return groups, nil
}

// quietSinks fails while a sink runs under the old prefix, and if notify has not read all notices: those that are
// counted are not copied.
func (m *Move) quietSinks(ctx context.Context) error {
	groups, err := m.sinkGroups(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, g := range groups {
		name, _ := m.From.Group(g.name)
		switch {
		case g.hasMembers:
			errs = append(errs, fmt.Errorf("a sink is running: group %s has members: stop `%s`, or wait some 10 s for "+
				"one that was killed", name, g.role.Command))
		case g.lag > 0 && g.from == m.From.Notify.Name:
			errs = append(errs, fmt.Errorf("group %s has not read %d records of %s, which would not be sent: run `%s` "+
				"until it has read them, or delete the group with Kafka's own tools if its rule was removed",
				name, g.lag, g.from, g.role.Command))
		}
	}
	return errors.Join(errs...)
}

// continueSinks has the new groups of sinks begin at the log end offset of what was copied, if the old ones had read
// everything: nothing is sent, archived or asked a second time. Search begins at the first record, as its index may
// have another name; its versions are the same. So do the groups that had not read everything.
func (r *run) continueSinks(ctx context.Context) error {
	groups, err := r.sinkGroups(ctx)
	if err != nil {
		return err
	}
	r.summary.Sinks = nil
	search := r.From.SinkGroup(topology.SinkSearch)
	for _, g := range groups {
		old, _ := r.From.Group(g.name)
		group, _ := r.To.Group(g.name)
		start := SinkStart{Group: group, Begins: AtStart}
		if g.lag == 0 && old != search {
			start.Begins = AtEnd
			if err := r.commitEnd(ctx, group, g.to); err != nil {
				return err
			}
		}
		r.summary.Sinks = append(r.summary.Sinks, start)
	}
	return nil
}

// commitEnd commits the log end offsets of a topic for a group that has not run.
func (r *run) commitEnd(ctx context.Context, group, topic string) error {
	commits, err := kafka.Committed(ctx, r.Kafka, group, topic)
	if err != nil {
		return err
	}
	for partition, o := range commits {
		if !strings.HasSuffix(o.Metadata, mark) {
			return inUse(group, topic, partition, o.At)
		}
	}
	ends, err := kafka.StableExtent(ctx, r.Kafka, topic)
	if err != nil {
		return err
	}
	var offsets []kadm.Offset
	for partition, span := range ends {
		offsets = append(offsets, kadm.Offset{
			Topic: topic, Partition: partition, At: span.To, LeaderEpoch: -1, Metadata: mark,
		})
	}
	return kafka.Commit(ctx, r.Kafka, group, offsets...)
}

// existing returns the topics under the old prefix. An installation without sinks may have none of theirs.
func (m *Move) existing(ctx context.Context) ([]topology.Topic, error) {
	topics := m.From.Topics()
	topics = topics[:len(topics)-len(m.From.SinkTopics())]
	for _, t := range m.From.SinkTopics() {
		switch spans, err := m.extentOf(ctx, t); {
		case err != nil:
			return nil, err
		case len(spans) > 0:
			topics = append(topics, t)
		}
	}
	return topics, nil
}

// extentOf returns the extent of a topic of sinks, nothing if it does not exist.
func (m *Move) extentOf(ctx context.Context, topic topology.Topic) (kafka.Spans, error) {
	spans, err := kafka.StableExtent(ctx, m.Kafka, topic.Name)
	if errors.Is(err, kafka.ErrNoTopic) {
		return nil, nil
	}
	return spans, err
}

// copyRetries copies the replayed dead letters that the sink they are for has not read.
func (r *run) copyRetries(ctx context.Context) error {
	spans, err := r.extentOf(ctx, r.From.SinkRetry)
	if err != nil {
		return err
	}
	done, err := r.copiedFrom(ctx, r.To.SinkRetry.Name, topology.HeaderCopied)
	if err != nil {
		return err
	}
	r.summary.Retries = 0
	committed := map[string]map[int32]kadm.Offset{} // by sink
	err = kafka.Read(ctx, r.Kafka, r.From.SinkRetry.Name, spans, func(record *kgo.Record) error {
		sink, _, ok := deadletters.ParseRetry(record)
		if !ok {
			return nil // another producer's: no sink reads it
		}
		if committed[sink] == nil {
			commits, err := kafka.Committed(ctx, r.Kafka, r.From.SinkGroup(sink), r.From.SinkRetry.Name)
			if err != nil {
				return err
			}
			committed[sink] = commits
			if commits == nil {
				committed[sink] = map[int32]kadm.Offset{}
			}
		}
		if record.Offset < committed[sink][record.Partition].At {
			return nil
		}
		r.report(DeadLetters)
		r.summary.Retries++
		if done[text(record.Partition, record.Offset)] {
			return nil
		}
		to := kafka.FilePartition(record.Key, r.To.SinkRetry.Partitions)
		return r.writer.put(ctx, copied(record, r.To.SinkRetry.Name, to, topology.HeaderCopied))
	})
	if err != nil {
		return err
	}
	return r.writer.flush(ctx)
}

// copyPredictions copies the newest prediction of each key. Every run writes all of them again.
func (r *run) copyPredictions(ctx context.Context) error {
	spans, err := r.extentOf(ctx, r.From.Predictions)
	if err != nil {
		return err
	}
	r.summary.Predictions = 0
	for partition, span := range spans {
		part := kafka.Spans{partition: span}
		newest := map[string]int64{}
		if err := kafka.Read(ctx, r.Kafka, r.From.Predictions.Name, part, func(record *kgo.Record) error {
			newest[string(record.Key)] = record.Offset
			return nil
		}); err != nil {
			return err
		}
		if err := kafka.Read(ctx, r.Kafka, r.From.Predictions.Name, part, func(record *kgo.Record) error {
			if newest[string(record.Key)] != record.Offset || record.Value == nil {
				return nil
			}
			r.report(Predictions)
			r.summary.Predictions++
			return r.writer.put(ctx, &kgo.Record{
				Topic: r.To.Predictions.Name, Partition: kafka.FilePartition(record.Key, r.To.Predictions.Partitions),
				Key: record.Key, Value: record.Value, Headers: record.Headers, Timestamp: record.Timestamp,
			})
		}); err != nil {
			return err
		}
	}
	return r.writer.flush(ctx)
}

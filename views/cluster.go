package views

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/kafka"
	"tidemark/kafka/committed"
	"tidemark/topology"
)

// brokers is the cluster that is there. It consumes nothing: it asks for offsets, and now and then for one record's time.
type brokers struct {
	client  *kgo.Client
	admin   *kadm.Client
	streams topology.Streams

	ends    map[string]map[int32]lastEnd // by topic and partition, as of the last poll
	counted []int64                      // what the workspaces group had committed in the notices then
}

// A lastEnd is the end of a partition, and of what can be read before it once that was looked for.
type lastEnd struct {
	end, read int64
	known     bool
}

func connect(conf kafka.Config, streams topology.Streams) (*brokers, error) {
	opts, err := conf.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(time.Second), kgo.RetryTimeout(pollTimeout))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return &brokers{client: client, admin: kadm.NewClient(client), streams: streams, ends: map[string]map[int32]lastEnd{}}, nil
}

func (b *brokers) close() { b.client.Close() }

// read asks in the order that a reading promises.
func (b *brokers) read(ctx context.Context) (r reading, err error) {
	s := b.streams
	var filesReach, workspacesReach []int64
	if r.filesCommit, filesReach, err = b.committed(ctx, s.FilesGroup, s.Events.Name); err != nil {
		return r, err
	}
	starts, err := b.admin.ListStartOffsets(ctx, s.Events.Name, s.Notify.Name)
	if err != nil {
		return r, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := b.admin.ListEndOffsets(ctx, s.Events.Name, s.Files.Name, s.Notify.Name)
	if err != nil {
		return r, fmt.Errorf("list end offsets: %w", err)
	}
	if r.notifyCommit, workspacesReach, err = b.committed(ctx, s.WorkspacesGroup, s.Notify.Name); err != nil {
		return r, err
	}
	last, err := b.admin.ListEndOffsets(ctx, s.Workspaces.Name)
	if err != nil {
		return r, fmt.Errorf("list end offsets: %w", err)
	}
	r.eventsStart = b.offsets(starts, s.Events.Name)
	r.notifyStart = b.offsets(starts, s.Notify.Name)
	r.eventsEnd = notBelow(r.filesCommit, b.offsets(ends, s.Events.Name))
	for _, topic := range []struct {
		name string
		told []int64
		end  *[]int64
	}{
		{s.Events.Name, slices.Clone(r.eventsEnd), &r.eventsRead},
		{s.Files.Name, notBelow(filesReach, b.offsets(ends, s.Files.Name)), &r.filesEnd},
		{s.Notify.Name, notBelow(b.counted, b.offsets(ends, s.Notify.Name)), &r.notifyEnd},
		{s.Workspaces.Name, notBelow(workspacesReach, b.offsets(last, s.Workspaces.Name)), &r.workspacesEnd},
	} {
		if *topic.end, err = b.readable(ctx, topic.name, topic.told); err != nil {
			return r, err
		}
	}
	b.counted = r.notifyCommit
	return r, nil
}

// notBelow returns the ends that are not below what a commit proves to be there. Others are unknown: their leader is cut off from
// the other brokers, or has just woken, and tells what it knew.
func notBelow(proven, ends []int64) []int64 {
	for i := range proven {
		if ends[i] < proven[i] {
			ends[i] = unknown
		}
	}
	return ends
}

// committed returns the group's offsets by partition, unknown where it has none, and how far its table reaches by them.
func (b *brokers) committed(ctx context.Context, group, topic string) (offsets, reach []int64, err error) {
	all, err := b.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never ran: some brokers say so, others send nothing
		return nil, nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	offsets, reach = make([]int64, b.streams.Events.Partitions), make([]int64, b.streams.Events.Partitions)
	for i := range offsets {
		offsets[i] = unknown
		if o, ok := all.Lookup(topic, int32(i)); ok && o.Err == nil {
			offsets[i] = o.At
			standing, _ := committed.ParseChangelogEnd(o.Metadata)
			reach[i] = standing.Offset
		}
	}
	return offsets, reach, nil
}

// offsets returns a topic's offsets by partition; unknown where the leader did not tell.
func (b *brokers) offsets(listed kadm.ListedOffsets, topic string) []int64 {
	offsets := make([]int64, b.streams.Events.Partitions)
	for i := range offsets {
		offsets[i] = unknown
		if o, ok := listed.Lookup(topic, int32(i)); ok && o.Err == nil {
			offsets[i] = o.Offset
		}
	}
	return offsets
}

// readable puts what can be read in the place of a topic's ends. After a transaction nobody ever stands at the end itself:
// see committed.Ends. A partition that grows is left as it is, since whoever reads it gets past that end soon; and so is one
// with an undecided transaction, whose records must be waited for.
func (b *brokers) readable(ctx context.Context, topic string, ends []int64) ([]int64, error) {
	quiet, last := map[int32]int64{}, map[int32]lastEnd{}
	for i, end := range ends {
		before := b.ends[topic][int32(i)]
		if end == unknown || before.end != end {
			last[int32(i)] = lastEnd{end: end}
			continue
		}
		last[int32(i)] = before
		if !before.known && end > 0 {
			quiet[int32(i)] = end
		}
	}
	found, err := committed.Ends(ctx, b.client, topic, quiet)
	if err != nil {
		return nil, fmt.Errorf("look for the last records: %w", err)
	}
	for partition, read := range found {
		last[partition] = lastEnd{end: quiet[partition], read: read, known: true}
	}
	b.ends[topic] = last
	for i := range ends {
		if l := last[int32(i)]; l.known {
			ends[i] = l.read
		}
	}
	return ends, nil
}

// times fetches the batch that holds each offset, all of one broker in one request. A broker sends at least the first batch
// that does not fit; those left over are asked for again by the next poll.
func (b *brokers) times(ctx context.Context, of []eventAt) map[eventAt]time.Time {
	found := map[eventAt]time.Time{}
	if len(of) == 0 {
		return found
	}
	listed, err := b.admin.ListTopics(ctx, b.streams.Events.Name)
	if err != nil {
		return found // counted from when they were missed, until a poll succeeds
	}
	topic := listed[b.streams.Events.Name]
	wanted := map[int32]eventAt{}
	offsets := map[int32]map[int32]int64{} // by leader and partition
	for _, e := range of {
		leader := topic.Partitions[e.partition].Leader
		if leader < 0 || topic.Partitions[e.partition].Err != nil {
			continue
		}
		if offsets[leader] == nil {
			offsets[leader] = map[int32]int64{}
		}
		offsets[leader][e.partition] = e.offset
		wanted[e.partition] = e
	}
	for leader, offsets := range offsets {
		request := kmsg.NewPtrFetchRequest()
		request.MaxBytes, request.MinBytes, request.MaxWaitMillis = fetchBytes, 1, 100
		answers, err := committed.FetchFromLeader(ctx, b.client, leader, topic, request, offsets, fetchPartitionBytes)
		if err != nil {
			continue
		}
		for i := range answers {
			e := wanted[answers[i].Partition]
			if at, ok := firstTime(topic.Topic, e, &answers[i]); ok {
				found[e] = at
			}
		}
	}
	return found
}

// A batch of the webhooks' ingress fits into the first; a larger one is sent alone.
const (
	fetchPartitionBytes = 256 << 10
	fetchBytes          = 8 << 20
)

// firstTime returns the time of the first record at or after the offset.
func firstTime(topic string, e eventAt, p *kmsg.FetchResponseTopicPartition) (time.Time, bool) {
	records, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: e.offset, Topic: topic, Partition: e.partition},
		p, kgo.DefaultDecompressor(), nil)
	if records.Err != nil || len(records.Records) == 0 {
		return time.Time{}, false
	}
	return records.Records[0].Timestamp, true
}

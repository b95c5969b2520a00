package views

import (
	"cmp"
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

// brokers is the Kafka cluster. Its one client lives as long as the role: it lists offsets, and sometimes fetches the
// timestamp of a record.
type brokers struct {
	client  *kgo.Client
	admin   *kadm.Client
	streams topology.Streams
	search  bool // read the offsets of the search sink too

	ends         map[string]map[int32]visibleEnd // by topic and partition, as of the last poll
	notifyCommit []int64                         // of the workspaces group, as of the last poll
	searchCommit []int64                         // of the search sink's group, as of the last poll
}

// A visibleEnd caches the end of what a read_committed consumer sees of a partition whose log ends at end.
type visibleEnd struct {
	end, visible int64
	known        bool
}

func connect(conf kafka.Config, streams topology.Streams, search bool) (*brokers, error) {
	opts, err := conf.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(opts, kgo.MetadataMinAge(time.Second), kgo.RetryTimeout(pollTimeout))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	ends := map[string]map[int32]visibleEnd{}
	admin := kadm.NewClient(client)
	return &brokers{client: client, admin: admin, streams: streams, search: search, ends: ends}, nil
}

func (b *brokers) close() { b.client.Close() }

// read sends the requests in the order that snapshot documents.
func (b *brokers) read(ctx context.Context) (r snapshot, err error) {
	s := b.streams
	var filesChangelog, workspacesChangelog []int64
	if r.filesCommit, filesChangelog, err = b.committed(ctx, s.FilesGroup, s.Events.Name); err != nil {
		return r, err
	}
	haveStart, haveEnd := []string{s.Events.Name, s.Notify.Name}, []string{s.Events.Name, s.Files.Name, s.Notify.Name}
	if b.search {
		haveStart, haveEnd = append(haveStart, s.Index.Name), append(haveEnd, s.Index.Name)
	}
	starts, err := b.admin.ListStartOffsets(ctx, haveStart...)
	if err != nil {
		return r, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := b.admin.ListEndOffsets(ctx, haveEnd...)
	if err != nil {
		return r, fmt.Errorf("list end offsets: %w", err)
	}
	if r.notifyCommit, workspacesChangelog, err = b.committed(ctx, s.WorkspacesGroup, s.Notify.Name); err != nil {
		return r, err
	}
	last, err := b.admin.ListEndOffsets(ctx, s.Workspaces.Name)
	if err != nil {
		return r, fmt.Errorf("list end offsets: %w", err)
	}
	r.eventsStart = b.offsets(starts, s.Events.Name)
	r.notifyStart = b.offsets(starts, s.Notify.Name)
	r.eventsEnd = dropStale(b.offsets(ends, s.Events.Name), r.filesCommit)
	for _, topic := range []struct {
		name    string
		ends    []int64
		visible *[]int64
	}{
		{s.Events.Name, slices.Clone(r.eventsEnd), &r.eventsVisible},
		{s.Files.Name, dropStale(b.offsets(ends, s.Files.Name), filesChangelog), &r.filesEnd},
		{s.Notify.Name, dropStale(b.offsets(ends, s.Notify.Name), b.notifyCommit), &r.notifyEnd},
		{s.Workspaces.Name, dropStale(b.offsets(last, s.Workspaces.Name), workspacesChangelog), &r.workspacesEnd},
	} {
		if *topic.visible, err = b.visibleEnds(ctx, topic.name, topic.ends); err != nil {
			return r, err
		}
	}
	b.notifyCommit = r.notifyCommit
	if !b.search {
		return r, nil
	}
	r.indexStart = b.offsets(starts, s.Index.Name)
	if r.indexEnd, err = b.visibleEnds(ctx, s.Index.Name,
		dropStale(b.offsets(ends, s.Index.Name), b.searchCommit)); err != nil {
		return r, err
	}
	r.searchCommit, _, err = b.committed(ctx, s.SinkGroup(searchSink), s.Index.Name)
	b.searchCommit = r.searchCommit
	return r, err
}

// eventAfter returns the offset of the first event of a partition whose record is later than a time, or the end of the
// partition if there is none, and the offset at which the partition begins.
func (b *brokers) eventAfter(ctx context.Context, partition int32, at time.Time) (offset, start int64, err error) {
	name := b.streams.Events.Name
	lookUp := func(listed kadm.ListedOffsets, err error) (int64, error) {
		if err != nil {
			return 0, err
		}
		found, ok := listed.Lookup(name, partition)
		if !ok || found.Err != nil {
			return 0, cmp.Or(found.Err, error(kerr.UnknownTopicOrPartition))
		}
		return found.Offset, nil
	}
	// If no record is later, the second request returns the end, with records that were appended meanwhile.
	end, err := lookUp(b.admin.ListEndOffsets(ctx, name))
	if err != nil {
		return 0, 0, err
	}
	after, err := lookUp(b.admin.ListOffsetsAfterMilli(ctx, at.UnixMilli()+1, name)) // timestamps are milliseconds
	if err != nil {
		return 0, 0, err
	}
	start, err = lookUp(b.admin.ListStartOffsets(ctx, name)) // after the other ones, since it only increases
	return min(end, after), start, err
}

// dropStale makes the ends unknown that are below an offset which a commit proves to exist: they are from a stale
// leader, which is cut off from the other brokers or was paused.
func dropStale(ends, proven []int64) []int64 {
	for i := range proven {
		if ends[i] < proven[i] {
			ends[i] = unknown
		}
	}
	return ends
}

// committed returns the group's offsets by partition, unknown where it has none, and the changelog ends of its table
// that the commits' metadata has.
func (b *brokers) committed(ctx context.Context, group, topic string) (offsets, changelog []int64, err error) {
	all, err := b.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // some brokers return it for a group that never ran
		return nil, nil, fmt.Errorf("fetch offsets of group %s: %w", group, err)
	}
	offsets, changelog = make([]int64, b.streams.Events.Partitions), make([]int64, b.streams.Events.Partitions)
	for i := range offsets {
		offsets[i] = unknown
		if o, ok := all.Lookup(topic, int32(i)); ok && o.Err == nil {
			offsets[i] = o.At
			end, _ := committed.ParseChangelogEnd(o.Metadata)
			changelog[i] = end.Offset
		}
	}
	return offsets, changelog, nil
}

// offsets returns a topic's offsets by partition; unknown where the leader did not respond.
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

// visibleEnds replaces a topic's log ends by the ends of what a read_committed consumer sees. After a transaction no
// consumer's position reaches the log end: see committed.Ends. The end stays where a partition has grown since the last
// poll, since consumers will soon get past it, and where a transaction is open, whose records must be waited for.
func (b *brokers) visibleEnds(ctx context.Context, topic string, ends []int64) ([]int64, error) {
	unchanged, cache := map[int32]int64{}, map[int32]visibleEnd{}
	for i, end := range ends {
		before := b.ends[topic][int32(i)]
		if end == unknown || before.end != end {
			cache[int32(i)] = visibleEnd{end: end}
			continue
		}
		cache[int32(i)] = before
		if !before.known && end > 0 {
			unchanged[int32(i)] = end
		}
	}
	found, err := committed.Ends(ctx, b.client, topic, unchanged)
	if err != nil {
		return nil, fmt.Errorf("find the last visible records: %w", err)
	}
	for partition, visible := range found {
		cache[partition] = visibleEnd{end: unchanged[partition], visible: visible, known: true}
	}
	b.ends[topic] = cache
	for i := range ends {
		if v := cache[int32(i)]; v.known {
			ends[i] = v.visible
		}
	}
	return ends, nil
}

func (b *brokers) topicIDs(ctx context.Context) (ids topicIDs, err error) {
	s := b.streams
	found, err := committed.TopicIDs(ctx, b.client, func(topic string, err error) error {
		return fmt.Errorf("look up the topic %s: %w", topic, err)
	}, s.Files.Name, s.Workspaces.Name, s.Events.Name)
	if err != nil {
		return ids, err
	}
	return topicIDs{
		files: found[s.Files.Name].String(), workspaces: found[s.Workspaces.Name].String(),
		events: found[s.Events.Name].Topic,
	}, nil
}

// times fetches the batch that holds each offset, all of one broker in one request. A broker sends at least the first
// batch that does not fit; those left over are asked for again by the next poll.
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
	records, _ := kgo.ProcessFetchPartition(
		kgo.ProcessFetchPartitionOpts{Offset: e.offset, Topic: topic, Partition: e.partition},
		p, kgo.DefaultDecompressor(), nil)
	if records.Err != nil || len(records.Records) == 0 {
		return time.Time{}, false
	}
	return records.Records[0].Timestamp, true
}

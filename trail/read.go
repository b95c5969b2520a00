package trail

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// How a topic is read: what of it may be in memory, and how long to wait for a record that must be there.
const (
	fetchBytes = 8 << 20
	stalled    = 15 * time.Second
	tellEvery  = 2 * time.Second
)

// A reader reads topics between two offsets.
type reader struct {
	options  []kgo.Opt
	client   *kgo.Client
	admin    *kadm.Client
	progress func(topic string, done, total int64)
}

func newReader(s Search) (*reader, error) {
	options, err := s.Kafka.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(options, kgo.RetryTimeout(10*time.Second))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	progress := s.Progress
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	return &reader{options: options, client: client, admin: kadm.NewClient(client), progress: progress}, nil
}

func (r *reader) close() { r.client.Close() }

type topicInfo struct {
	id         string
	partitions int
}

func (r *reader) topic(ctx context.Context, name string) (topicInfo, error) {
	topics, err := r.admin.ListTopics(ctx, name)
	if err != nil {
		return topicInfo{}, fmt.Errorf("look up topic %s: %w", name, err)
	}
	t := topics[name]
	if t.Err != nil {
		return topicInfo{}, fmt.Errorf("look up topic %s: %w", name, missing(name, t.Err))
	}
	return topicInfo{id: t.ID.String(), partitions: len(t.Partitions)}, nil
}

func missing(topic string, err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("topic %s does not exist: create it with `tidemark topics apply`", topic)
	}
	return err
}

// commit returns how far a group has committed a partition; -1 when it has not.
func (r *reader) commit(ctx context.Context, group, topic string, partition int32) (int64, error) {
	offsets, err := r.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // a group that never ran: some brokers say so, others send nothing
		return 0, fmt.Errorf("fetch the commits of group %s: %w", group, err)
	}
	if o, ok := offsets.Lookup(topic, partition); ok && o.Err == nil {
		return o.At, nil
	}
	return -1, nil
}

// A reading is what is read of a topic.
type reading struct {
	topic   string
	bounds  map[int32]bound
	records int64
}

type bound struct{ from, to int64 }

// looked says what was read.
func (r *reading) looked() Span {
	if len(r.bounds) == 1 {
		for partition, b := range r.bounds {
			return Span{Topic: r.topic, Partition: partition, From: b.from, To: b.to, Records: r.records}
		}
	}
	return Span{Topic: r.topic, Partition: -1, Records: r.records}
}

// span returns one partition from a time on to where it ends now.
func (r *reader) span(ctx context.Context, topic string, partition int32, since time.Time) (*reading, error) {
	all, err := r.spans(ctx, topic, since)
	if err != nil {
		return nil, err
	}
	b, ok := all.bounds[partition]
	if !ok {
		return nil, fmt.Errorf("topic %s has no partition %d: it needs as many as the events topic", topic, partition)
	}
	all.bounds = map[int32]bound{partition: b}
	return all, nil
}

// spans returns all partitions from a time on to where they end now: at the last stable offset, which is all that can be read.
func (r *reader) spans(ctx context.Context, topic string, since time.Time) (*reading, error) {
	from, err := r.admin.ListStartOffsets(ctx, topic)
	if err == nil && !since.IsZero() {
		from, err = r.admin.ListOffsetsAfterMilli(ctx, since.UnixMilli(), topic)
	}
	if err == nil {
		err = from.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up topic %s: %w", topic, missing(topic, err))
	}
	ends, err := r.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	found := &reading{topic: topic, bounds: map[int32]bound{}}
	for partition, to := range ends {
		if o, ok := from.Lookup(topic, partition); ok {
			found.bounds[partition] = bound{min(o.Offset, to), to}
		}
	}
	return found, nil
}

func (r *reader) ends(ctx context.Context, topic string) (map[int32]int64, error) {
	listed, err := r.admin.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up topic %s: %w", topic, missing(topic, err))
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// on reads what has been written since the reading ended.
func (r *reader) on(ctx context.Context, of *reading, each func(*kgo.Record) error) error {
	ends, err := r.ends(ctx, of.topic)
	if err != nil {
		return err
	}
	more := &reading{topic: of.topic, bounds: map[int32]bound{}}
	for partition, b := range of.bounds {
		more.bounds[partition] = bound{b.to, max(b.to, ends[partition])}
	}
	if err := r.read(ctx, more, each); err != nil {
		return err
	}
	for partition, b := range of.bounds {
		of.bounds[partition] = bound{b.from, more.bounds[partition].to}
	}
	of.records += more.records
	return nil
}

// read calls each with every record, of each partition in order.
func (r *reader) read(ctx context.Context, of *reading, each func(*kgo.Record) error) error {
	unread, total := map[int32]int64{}, int64(0) // what is left of a partition
	offsets := map[int32]kgo.Offset{}
	for partition, b := range of.bounds {
		if b.from < b.to {
			unread[partition] = b.to - b.from
			total += b.to - b.from
			offsets[partition] = kgo.NewOffset().At(b.from)
		}
	}
	if len(unread) == 0 {
		return nil
	}
	client, err := kgo.NewClient(append(r.options,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxBytes(fetchBytes),
		kgo.KeepControlRecords(), // a transaction's marker may be the last record: its offset says that the end is reached
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{of.topic: offsets}))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	for told := time.Now(); len(unread) > 0; {
		if err := poll(ctx, client, of, unread, each); err != nil {
			return err
		}
		if time.Since(told) >= tellEvery {
			told = time.Now()
			left := int64(0)
			for _, n := range unread {
				left += n
			}
			r.progress(of.topic, total-left, total)
		}
	}
	return nil
}

func poll(ctx context.Context, client *kgo.Client, of *reading, unread map[int32]int64, each func(*kgo.Record) error) error {
	wait, cancel := context.WithTimeout(ctx, stalled)
	defer cancel()
	fetches := client.PollFetches(wait)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case wait.Err() != nil:
		return fmt.Errorf("read %s: no record for %v, though %d are left", of.topic, stalled, len(unread))
	}
	if errs := fetches.Errors(); len(errs) > 0 {
		return fmt.Errorf("read partition %d of %s: %w", errs[0].Partition, errs[0].Topic, errs[0].Err)
	}
	for iter := fetches.RecordIter(); !iter.Done(); {
		record := iter.Next()
		end := of.bounds[record.Partition].to
		if unread[record.Partition] = end - record.Offset - 1; record.Offset+1 >= end {
			delete(unread, record.Partition)
		}
		if record.Attrs.IsControl() || record.Offset >= end {
			continue
		}
		of.records++
		if err := each(record); err != nil {
			return err
		}
	}
	return nil
}

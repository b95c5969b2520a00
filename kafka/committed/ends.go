// Package committed finds the last offset visible to a read_committed consumer, and reads up to it.
//
// Transaction markers and aborted records take offsets that no consumer is given. So the high watermark of a log may be
// an offset that a read_committed consumer never reaches, while goka's recovery waits for the record right before it.
// The ends that this package returns are always reached. Where a transaction is still open it returns no end rather
// than a guess.
package committed

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ends returns the position of a read_committed consumer that has read everything below the given end offsets of some
// partitions: the offset after the last record that it is given. Behind that record there may be transaction markers
// and aborted records, so a consumer that waits for the end offset itself may wait forever.
//
// A partition is left out while a transaction that began below its end is open, and when its leader does not answer.
func Ends(ctx context.Context, client *kgo.Client, topic string, ends map[int32]int64) (map[int32]int64, error) {
	if len(ends) == 0 {
		return nil, nil
	}
	admin := kadm.NewClient(client)
	listed, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up the leaders of %s: %w", topic, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("look up the start of %s: %w", topic, err)
	}
	s := &endSearch{client: client, topic: listed[topic], found: map[int32]int64{}, tails: map[int32]*tail{}}
	for partition, end := range ends {
		start, found := starts.Lookup(topic, partition)
		switch {
		case !found || start.Err != nil:
		case start.Offset >= end:
			s.found[partition] = end
		default:
			t := &tail{start: start.Offset, end: end, last: -1}
			t.widen()
			s.tails[partition] = t
		}
	}
	for len(s.tails) > 0 {
		s.round(ctx)
	}
	return s.found, ctx.Err()
}

// maxPartitionBytes is how much of a partition is fetched at a time. A broker sends the first batch whatever its size.
const maxPartitionBytes = 4 << 20

// An endSearch looks for the last record of some partitions, from their ends backwards.
type endSearch struct {
	client *kgo.Client
	topic  kadm.TopicDetail
	tails  map[int32]*tail // partitions that are still searched
	found  map[int32]int64
}

// A tail is the last part of a partition. It is widened until there is a record in it.
type tail struct {
	start, end int64 // of the partition
	width      int64
	from, next int64 // first offset of the tail, and the next one to fetch
	last       int64 // offset of the last record found; -1: none
	separate   bool  // fetched in a request of its own
}

// widen begins with one offset, which mostly is a record; if not, the one before it nearly always is.
func (t *tail) widen() {
	t.width = max(1, 2*t.width)
	if t.width > 4 {
		t.width *= 8
	}
	t.from = max(t.start, t.end-t.width)
	t.next = t.from
}

// A fetchKey identifies a request of a round: one to each leader, and one for each partition that is fetched
// separately.
type fetchKey struct {
	leader    int32
	partition int32 // -1: all that are not fetched separately
}

// round sends the requests for the next part of each tail.
func (s *endSearch) round(ctx context.Context) {
	requests := map[fetchKey]map[int32]int64{} // offsets by partition
	for partition, t := range s.tails {
		detail := s.topic.Partitions[partition]
		if detail.Err != nil || detail.Leader < 0 {
			delete(s.tails, partition)
			continue
		}
		key := fetchKey{detail.Leader, -1}
		if t.separate {
			key.partition = partition
		}
		if requests[key] == nil {
			requests[key] = map[int32]int64{}
		}
		requests[key][partition] = t.next
	}
	for key, offsets := range requests {
		request := kmsg.NewPtrFetchRequest()
		request.MaxBytes, request.MinBytes, request.MaxWaitMillis = int32(len(offsets))*maxPartitionBytes, 0, 0
		request.IsolationLevel = 1 // read_committed
		answers, err := FetchFromLeader(ctx, s.client, key.leader, s.topic, request, offsets, maxPartitionBytes)
		if err == nil {
			for i := range answers {
				delete(offsets, answers[i].Partition)
				s.handle(&answers[i])
			}
		}
		for partition := range offsets { // without an answer
			delete(s.tails, partition)
		}
	}
}

// handle takes an answer, and ends the search of its partition when it is decided.
func (s *endSearch) handle(p *kmsg.FetchResponseTopicPartition) {
	t := s.tails[p.Partition]
	if t == nil {
		return
	}
	if p.ErrorCode != 0 || p.LastStableOffset < t.end {
		delete(s.tails, p.Partition)
		return
	}
	options := kgo.ProcessFetchPartitionOpts{
		Offset: t.next, Topic: s.topic.Topic, Partition: p.Partition,
		IsolationLevel: kgo.ReadCommitted(),
	}
	records, next := kgo.ProcessFetchPartition(options, p, kgo.DefaultDecompressor(), nil)
	if records.Err != nil {
		delete(s.tails, p.Partition)
		return
	}
	for _, r := range records.Records {
		if r.Offset < t.end {
			t.last = max(t.last, r.Offset)
		}
	}
	if next < t.end && next > t.next {
		t.next = next
		return
	}
	if next < t.end && !t.separate { // the answer may have been full: brokers have a limit of their own
		t.separate = true
		return
	}
	switch { // the tail is read to its end, or the log has nothing more
	case t.last >= 0:
		s.found[p.Partition] = t.last + 1
	case t.from <= t.start:
		s.found[p.Partition] = t.start
	default:
		t.widen()
		return
	}
	delete(s.tails, p.Partition)
}

// Package committed tells what a reader of committed records is handed of a Kafka log: up to where, and what.
//
// It promises that whoever waits for an end which it tells gets there, with transactions in the log or without. Markers of
// transactions and aborted records take offsets that are handed to nobody, so the log's own end is one that a reader may never
// reach, and goka's recovery waits for the record before it. It refuses to guess: an end that is not decided yet is not told.
package committed

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Ends answers, for partitions of a topic and an end offset of each, where a reader of committed records will stand when
// it has read all below that end: after the last record it is handed. A transaction ends with a marker that takes an offset
// and is handed to nobody, and aborted records are skipped, so whoever waits for the end itself may wait for ever.
//
// A partition in which a transaction that began below the end is undecided is left out, as is one whose leader does not
// answer.
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
		start, told := starts.Lookup(topic, partition)
		switch {
		case !told || start.Err != nil:
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

// largestAnswer is how much of a partition is asked for at a time, in bytes. A broker sends the first batch whatever its size.
const maxPartitionBytes = 4 << 20

// A search looks for the last record of some partitions, from their ends backwards.
type endSearch struct {
	client *kgo.Client
	topic  kadm.TopicDetail
	tails  map[int32]*tail // still searched
	found  map[int32]int64
}

// A tail is the end of a partition, of which more and more is read until there is a record in it.
type tail struct {
	start, end int64 // of the partition
	width      int64
	from, next int64 // read from here, and read next
	last       int64 // the last record found; -1: none
	separate   bool  // asked for in a request of its own
}

// widen reads one offset at first: mostly it is a record, and the second to last nearly always.
func (t *tail) widen() {
	t.width = max(1, 2*t.width)
	if t.width > 4 {
		t.width *= 8
	}
	t.from = max(t.start, t.end-t.width)
	t.next = t.from
}

// A question goes to a leader, about one partition only or about all others.
type fetchKey struct {
	leader    int32
	partition int32 // the partition; -1: all others
}

// round asks each leader once, and once more for each partition that is asked for alone.
func (s *endSearch) round(ctx context.Context) {
	requests := map[fetchKey]*kmsg.FetchRequest{}
	for partition, t := range s.tails {
		detail := s.topic.Partitions[partition]
		if detail.Err != nil || detail.Leader < 0 {
			delete(s.tails, partition)
			continue
		}
		q := fetchKey{detail.Leader, -1}
		if t.separate {
			q.partition = partition
		}
		if requests[q] == nil {
			requests[q] = committedFetch(s.topic)
		}
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, t.next, maxPartitionBytes
		topics := requests[q].Topics
		topics[0].Partitions = append(topics[0].Partitions, p)
		requests[q].MaxBytes += p.PartitionMaxBytes
	}
	for q, request := range requests {
		asked := map[int32]bool{}
		for _, p := range request.Topics[0].Partitions {
			asked[p.Partition] = true
		}
		response, err := s.client.Broker(int(q.leader)).RetriableRequest(ctx, request)
		if fetched, ok := response.(*kmsg.FetchResponse); ok && err == nil {
			for _, topic := range fetched.Topics {
				for i := range topic.Partitions {
					delete(asked, topic.Partitions[i].Partition)
					s.handle(&topic.Partitions[i])
				}
			}
		}
		for partition := range asked {
			delete(s.tails, partition)
		}
	}
}

func committedFetch(topic kadm.TopicDetail) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.MaxBytes, r.MinBytes, r.MaxWaitMillis, r.IsolationLevel = 0, 0, 0, 1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic.Topic, topic.ID // newer versions look at the id only
	r.Topics = append(r.Topics, t)
	return r
}

// take draws the conclusion of an answer.
func (s *endSearch) handle(p *kmsg.FetchResponseTopicPartition) {
	t := s.tails[p.Partition]
	if t == nil {
		return
	}
	if p.ErrorCode != 0 || p.LastStableOffset < t.end {
		delete(s.tails, p.Partition)
		return
	}
	options := kgo.ProcessFetchPartitionOpts{Offset: t.next, Topic: s.topic.Topic, Partition: p.Partition, IsolationLevel: kgo.ReadCommitted()}
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
	if next < t.end && !t.separate { // the answer may have been full before it came to this partition: brokers have a limit of their own
		t.separate = true
		return
	}
	switch { // read to the end, or there is nothing more in the log
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

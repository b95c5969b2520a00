package deadletters

import (
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/topology"
)

// What retention takes is not open any more, unless the same record was dead-lettered again later.
func TestCountForgetsWhatHasExpired(t *testing.T) {
	n := &count{
		queue: New(kafka.Config{}, topology.Streams{}), entries: map[Source][]counted{},
		unread: map[int32]int64{0: 3, 1: 1}, starts: map[int32]int64{},
	}
	dead := func(partition int32, offset, source int64, value, resolved string) {
		headers := []kgo.RecordHeader{
			{Key: topology.HeaderTopic, Value: []byte("events")}, {Key: topology.HeaderPartition, Value: []byte("0")}, {Key: topology.HeaderOffset, Value: strconv.AppendInt(nil, source, 10)},
		}
		if resolved != "" {
			headers = append(headers, kgo.RecordHeader{Key: topology.HeaderResolved, Value: []byte(resolved)})
		}
		n.add(&kgo.Record{Partition: partition, Offset: offset, Value: []byte(value), Headers: headers})
	}
	want := func(open int64, unread int) {
		t.Helper()
		if n.open != open || len(n.unread) != unread {
			t.Errorf("%d open, %d partitions unread; want %d, %d", n.open, len(n.unread), open, unread)
		}
	}
	dead(0, 0, 10, "a", "")
	dead(0, 1, 11, "b", "")
	dead(0, 2, 10, "a", "") // again
	want(2, 1)
	dead(0, 3, 10, "other", "") // of the recreated topic
	dead(1, 0, 12, "c", "")
	dead(1, 1, 12, "", Dropped)
	dead(1, 2, 99, "", Dropped) // its entry has expired
	want(3, 0)
	n.expire(0, 2)
	want(2, 0)
	n.expire(1, 2) // the dropped one
	want(2, 0)
	n.expire(0, 4)
	want(0, 0)
	if len(n.entries) != 0 {
		t.Errorf("remaining: %v", n.entries)
	}
	n.unread[2] = 5 // everything expired before it was read
	n.expire(2, 5)
	want(0, 0)
}

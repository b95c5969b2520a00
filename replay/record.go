package replay

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Record returns what puts an event's bytes into the events topic again: keyed and placed as its JSON says, and marked with
// from. Of the CloudEvents headers those are left out that contradict the JSON, since they would keep it from being folded.
//
// The record has no timestamp, so that it gets that of its sending: by the old one it would leave the dedupe window and the
// topic before its time. An error says why the bytes are no event.
func Record(value []byte, headers []kgo.RecordHeader, events string, partitions int, from string) (*kgo.Record, *tidemarkv1.Event, error) {
	e, err := codecs.ParseEvent(value)
	if err != nil {
		return nil, nil, err
	}
	r := &kgo.Record{
		Topic: events, Partition: kafka.Partition(e.GetWorkspaceId(), partitions),
		Key: []byte(e.GetWorkspaceId()), Value: value, Headers: Headers(headers, e, from),
	}
	return r, e, nil
}

// Headers returns the headers of a record that is put into the events topic again; e is nil when nothing is known of it.
func Headers(headers []kgo.RecordHeader, e *tidemarkv1.Event, from string) []kgo.RecordHeader {
	kept := make([]kgo.RecordHeader, 0, len(headers)+1)
	for _, h := range headers {
		again := h.Key == topology.HeaderReplay || h.Key == topology.HeaderCopied // they say of the record before where it came from
		if again || strings.HasPrefix(h.Key, topology.DeadLetterPrefix) || e != nil && !agrees(h, e) {
			continue
		}
		kept = append(kept, h)
	}
	return append(kept, kgo.RecordHeader{Key: topology.HeaderReplay, Value: []byte(from)})
}

// agrees says whether a header repeats what the JSON says, or says something that the JSON does not, or nothing: null.
func agrees(h kgo.RecordHeader, e *tidemarkv1.Event) bool {
	if h.Value == nil {
		return true
	}
	switch h.Key {
	case topology.HeaderEventID:
		return string(h.Value) == e.GetEventId()
	case topology.HeaderEventType:
		return string(h.Value) == e.GetEvent()
	case topology.HeaderFileID:
		return string(h.Value) == e.GetFileId()
	}
	return true
}

// misplaced says why a record of the events topic was not folded where it lies, or nothing: it is a dead letter, and theirs is
// the tool to send it again.
func misplaced(r *kgo.Record, again *kgo.Record) string {
	switch {
	case len(r.Key) > 0 && string(r.Key) != string(again.Key):
		return fmt.Sprintf("its key is %q, its workspace %q", r.Key, again.Key)
	case r.Partition != again.Partition:
		return fmt.Sprintf("it lies in partition %d, its workspace in %d", r.Partition, again.Partition)
	case dropped(r.Headers, again.Headers):
		return "its headers contradict it"
	}
	return ""
}

// dropped says whether Headers left out one that contradicts the JSON.
func dropped(before, after []kgo.RecordHeader) bool {
	count := func(headers []kgo.RecordHeader) (n int) {
		for _, h := range headers {
			if strings.HasPrefix(h.Key, "ce_") {
				n++
			}
		}
		return n
	}
	return count(after) < count(before)
}

package replay

import (
	"fmt"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Record returns the record that puts an event into the events topic again. The JSON decides its key and partition, and
// from is the value of its replay header. CloudEvents headers that contradict the JSON are left out, as they would make
// it a dead letter.
//
// The record has no timestamp, so it gets the time at which it is sent. With its old timestamp it would expire early,
// from the dedupe window and from the topic. An error says why the value is not an event.
func Record(
	value []byte, headers []kgo.RecordHeader, events string, partitions int, from string,
) (*kgo.Record, *tidemarkv1.Event, error) {
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

// Headers returns the headers of a record that is put into the events topic again; e is nil if the record is not an
// event.
func Headers(headers []kgo.RecordHeader, e *tidemarkv1.Event, from string) []kgo.RecordHeader {
	kept := make([]kgo.RecordHeader, 0, len(headers)+1)
	for _, h := range headers {
		origin := h.Key == topology.HeaderReplay || h.Key == topology.HeaderCopied // of the record before
		if origin || strings.HasPrefix(h.Key, topology.DeadLetterPrefix) || e != nil && !agrees(h, e) {
			continue
		}
		kept = append(kept, h)
	}
	return append(kept, kgo.RecordHeader{Key: topology.HeaderReplay, Value: []byte(from)})
}

// agrees reports whether a header does not contradict the JSON. A null value never does.
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

// contradiction returns how the key, partition or headers of a record contradict its JSON, or nothing. Such a record is
// a dead letter, which `dlq replay` sends again.
func contradiction(r *kgo.Record, again *kgo.Record) string {
	switch {
	case len(r.Key) > 0 && string(r.Key) != string(again.Key):
		return fmt.Sprintf("its key is %q, its workspace %q", r.Key, again.Key)
	case r.Partition != again.Partition:
		return fmt.Sprintf("it is in partition %d, its workspace belongs to %d", r.Partition, again.Partition)
	case cloudEvents(again.Headers) < cloudEvents(r.Headers):
		return "its headers contradict its JSON"
	}
	return ""
}

// cloudEvents counts the CloudEvents headers.
func cloudEvents(headers []kgo.RecordHeader) (n int) {
	for _, h := range headers {
		if strings.HasPrefix(h.Key, "ce_") {
			n++
		}
	}
	return n
}

// RecordSize returns an upper bound of a record's size in a batch of its own, uncompressed.
func RecordSize(r *kgo.Record) int {
	const batch, length = 128, 10 // the fields of the batch and the record; the encoding of a length
	n := batch + len(r.Key) + len(r.Value) + 2*length
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 2*length
	}
	return n
}

// Pace returns a limiter for perSecond records, 0 for no limit, and how many of them to send at a time: about a
// second's, and at most most.
func Pace(perSecond float64, most int) (*rate.Limiter, int) {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 1), most
	}
	return rate.NewLimiter(rate.Limit(perSecond), 1), int(max(1, min(float64(most), math.Ceil(perSecond))))
}

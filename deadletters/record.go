package deadletters

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/replay"
	"tidemark/topology"
)

// ReasonSinkRejected is the reason of a record that a sink's destination rejected.
const ReasonSinkRejected = "sink_rejected"

// A Failure says why a record is dead-lettered.
type Failure struct {
	Reason  string // one of a fixed set of words
	Message string // what to fix, for people
	Sink    string // the sink whose destination rejected the record; empty for a record that could not be folded
	Answer  string // what the destination answered
}

// maxRecord leaves room for what a batch adds to its only record.
const maxRecord = topology.MaxMessageBytes - 512

// NewRecord returns the dead letter of a source record, for the partition of the same number in topic. It has the
// source's key, value and headers, and headers for the failure and the source's position.
//
// Brokers limit the compressed size of a batch, so a foreign producer's record can be larger than its dead letter may
// be. The largest of value, key and headers is then left out, and the next, until the rest fits. Headers give the
// lengths of the parts that are left out. A dead letter that the brokers refuse would stop its consumer group on every
// attempt.
func NewRecord(topic string, source *kgo.Record, f Failure) *kgo.Record {
	r := &kgo.Record{Topic: topic, Partition: source.Partition, Key: source.Key, Value: source.Value}
	kept, own := withoutOwn(source.Headers), f.headers(source)
	leaveOut := func(header string, length int) {
		own = append(own, kgo.RecordHeader{Key: header, Value: strconv.AppendInt(nil, int64(length), 10)})
	}
	for {
		r.Headers = slices.Concat(kept, own)
		text := textOf(kept)
		key, value := len(r.Key), len(r.Value)
		headers := text + 10*len(kept) // each header has two lengths of up to 5 bytes
		switch largest := max(key, value, headers); {
		case largest == 0 || replay.RecordSize(r) <= maxRecord:
			return r
		case largest == value:
			r.Value = nil
			leaveOut(topology.HeaderValueOmitted, value)
		case largest == key:
			r.Key = []byte{}
			leaveOut(topology.HeaderKeyOmitted, key)
		default:
			kept = nil
			leaveOut(topology.HeaderHeadersOmitted, text)
		}
	}
}

// headers returns the headers that only the dead letter has.
func (f Failure) headers(source *kgo.Record) []kgo.RecordHeader {
	own := append(sourceHeaders(Source{source.Topic, source.Partition, source.Offset, f.Sink}), []kgo.RecordHeader{
		{Key: topology.HeaderException, Value: []byte("tidemark/" + f.Reason)},
		{Key: topology.HeaderReason, Value: []byte(f.Reason)},
		{Key: topology.HeaderMessage, Value: []byte(truncated(f.Message, maxText))},
		{Key: topology.HeaderFirstFailedAt, Value: time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)},
	}...)
	if f.Answer != "" {
		own = append(own, kgo.RecordHeader{Key: topology.HeaderAnswer, Value: []byte(truncated(f.Answer, maxText))})
	}
	if source.Key == nil {
		own = append(own, kgo.RecordHeader{Key: topology.HeaderKeyNull, Value: []byte("true")})
	}
	return own
}

// sourceHeaders returns the headers that identify an entry, on its records and on its resolution record.
func sourceHeaders(s Source) []kgo.RecordHeader {
	headers := []kgo.RecordHeader{
		{Key: topology.HeaderTopic, Value: []byte(s.Topic)},
		{Key: topology.HeaderPartition, Value: strconv.AppendInt(nil, int64(s.Partition), 10)},
		{Key: topology.HeaderOffset, Value: strconv.AppendInt(nil, s.Offset, 10)},
	}
	if s.Sink != "" {
		headers = append(headers, kgo.RecordHeader{Key: topology.HeaderSink, Value: []byte(s.Sink)})
	}
	return headers
}

// withoutOwn returns the headers that may be a source record's. A source record with dlq.resolved, for one, would not
// be listed.
func withoutOwn(headers []kgo.RecordHeader) []kgo.RecordHeader {
	kept := make([]kgo.RecordHeader, 0, len(headers))
	for _, h := range headers {
		if !strings.HasPrefix(h.Key, topology.DeadLetterPrefix) {
			kept = append(kept, h)
		}
	}
	return kept
}

// textOf returns how many bytes of names and values headers have.
func textOf(headers []kgo.RecordHeader) (n int) {
	for _, h := range headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// maxText bounds a message and an answer, in bytes: they may quote parts of the record.
const maxText = 1 << 10

func truncated(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// sourceRecord returns the record that was dead-lettered, as it was read from its topic, without a timestamp. The dead
// letter must be complete.
func sourceRecord(e *Entry, dead *kgo.Record) *kgo.Record {
	key := dead.Key
	if headersOf(dead)[topology.HeaderKeyNull] != "" {
		key = nil
	}
	return &kgo.Record{
		Topic: e.Topic, Partition: e.Partition, Offset: e.Offset,
		Key: key, Value: dead.Value, Headers: withoutOwn(dead.Headers),
	}
}

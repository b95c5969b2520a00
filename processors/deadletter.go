package processors

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A refusal is the reason why a record becomes a dead letter, and what to change.
type refusal struct{ reason, detail string }

// Reasons that are found here; codecs.EventError has those of the JSON.
const (
	reasonKeyMismatch    = "key_mismatch"
	reasonWrongPartition = "wrong_partition"
	reasonBeyondWindow   = "beyond_dedupe_window"
)

// reasons are all there are.
var reasons = []string{
	codecs.ReasonNotJSON, codecs.ReasonMissingField, codecs.ReasonBadField, codecs.ReasonFieldTooLarge,
	codecs.ReasonNullValue, reasonKeyMismatch, reasonWrongPartition, reasonBeyondWindow,
}

var beyondWindow = &refusal{
	reasonBeyondWindow,
	"the file's dedupe window is full and this event is older than all of it, so it may be a duplicate; replay it if " +
		"it is not",
}

// understand decodes a record of the events topic. It refuses a record whose key, header or partition contradicts the
// JSON.
func understand(r *sarama.ConsumerMessage, topic topology.Topic) (*tidemarkv1.Event, *refusal) {
	e, err := codecs.ParseEvent(r.Value)
	if err != nil {
		if bad, ok := errors.AsType[*codecs.EventError](err); ok {
			return nil, &refusal{bad.Reason, bad.Error()}
		}
		return nil, &refusal{codecs.ReasonNotJSON, err.Error()}
	}
	if len(r.Key) > 0 && !bytes.Equal(r.Key, []byte(e.GetWorkspaceId())) {
		return nil, &refusal{
			reasonKeyMismatch,
			fmt.Sprintf("the record's key is %.256q, the JSON's workspace %q", r.Key, e.GetWorkspaceId()),
		}
	}
	if want := kafka.Partition(e.GetWorkspaceId(), topic.Partitions); want != r.Partition {
		return nil, &refusal{reasonWrongPartition, fmt.Sprintf(
			"workspace %q belongs to partition %d of %d (murmur2 of the key), not %d",
			e.GetWorkspaceId(), want, topic.Partitions, r.Partition)}
	}
	if refused := agree(r.Headers, e); refused != nil {
		return nil, refused
	}
	if at := r.Timestamp.UnixMicro(); codecs.ValidTime(at) { // else the producer set none, or used another unit
		e.RecordedAt = at
	}
	if e.GetReceivedAt() == 0 {
		e.ReceivedAt = e.RecordedAt
	}
	return e, nil
}

// agree compares the headers with the JSON, which they repeat, and reads the replay header. It ignores headers with a
// null value.
func agree(headers []*sarama.RecordHeader, e *tidemarkv1.Event) *refusal {
	for _, h := range headers {
		if h.Value == nil {
			continue
		}
		var want string
		switch string(h.Key) {
		case topology.HeaderEventID:
			want = e.GetEventId()
		case topology.HeaderEventType:
			want = e.GetEvent()
		case topology.HeaderFileID:
			want = e.GetFileId()
		case topology.HeaderReplay:
			e.Replayed = true
			continue
		default:
			continue
		}
		if string(h.Value) != want {
			return &refusal{
				reasonKeyMismatch,
				fmt.Sprintf("the header %s is %.256q, the JSON says %q", h.Key, h.Value, want),
			}
		}
	}
	return nil
}

// deadLetter emits the dead letter of a record.
func (f *Files) deadLetter(ctx goka.Context, a *arrival, why *refusal) {
	f.metrics.dead.WithLabelValues(why.reason).Inc()
	if f.conf.TableOnly {
		return
	}
	source := &kgo.Record{
		Topic: string(ctx.Topic()), Partition: ctx.Partition(), Offset: ctx.Offset(), Key: a.key, Value: a.value,
	}
	for name, value := range ctx.Headers() {
		source.Headers = append(source.Headers, kgo.RecordHeader{Key: name, Value: value})
	}
	failure := deadletters.Failure{Reason: why.reason, Message: why.detail}
	dead := deadletters.NewRecord(f.conf.Streams.DLQ.Name, source, failure)
	headers := make(goka.Headers, len(dead.Headers))
	for _, h := range dead.Headers {
		headers[h.Key] = h.Value
	}
	var value any // a null value stays one
	if dead.Value != nil {
		value = dead.Value
	}
	epochs.Emit(ctx, goka.Stream(dead.Topic), string(dead.Key), value, headers)
}

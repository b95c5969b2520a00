package processors

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"tidemark/codecs"
	"tidemark/kafka"
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
	"the file's dedupe window is full and this event is older than all of it, so it may be a duplicate; replay it if it is not",
}

// understand decodes a record of the events topic. It refuses a record whose key, header or partition contradicts the JSON.
func understand(r *sarama.ConsumerMessage, topic topology.Topic) (*tidemarkv1.Event, *refusal) {
	e, err := codecs.ParseEvent(r.Value)
	if err != nil {
		if bad, ok := errors.AsType[*codecs.EventError](err); ok {
			return nil, &refusal{bad.Reason, bad.Error()}
		}
		return nil, &refusal{codecs.ReasonNotJSON, err.Error()}
	}
	if len(r.Key) > 0 && !bytes.Equal(r.Key, []byte(e.GetWorkspaceId())) {
		return nil, &refusal{reasonKeyMismatch, fmt.Sprintf("the record's key is %.256q, the JSON's workspace %q", r.Key, e.GetWorkspaceId())}
	}
	if want := kafka.Partition(e.GetWorkspaceId(), topic.Partitions); want != r.Partition {
		return nil, &refusal{reasonWrongPartition, fmt.Sprintf(
			"workspace %q belongs to partition %d of %d (murmur2 of the key), not %d", e.GetWorkspaceId(), want, topic.Partitions, r.Partition)}
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

// agree compares the headers with the JSON, which they repeat, and reads the replay header. It ignores headers with a null value.
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
			return &refusal{reasonKeyMismatch, fmt.Sprintf("the header %s is %.256q, the JSON says %q", h.Key, h.Value, want)}
		}
	}
	return nil
}

// deadLetter keeps the record as it came, with the reason in its headers, in the partition it came from.
func (f *Files) deadLetter(ctx goka.Context, a *arrival, why *refusal) {
	f.metrics.dead.WithLabelValues(why.reason).Inc()
	if f.conf.TableOnly {
		return
	}
	own := goka.Headers{
		topology.HeaderException:     []byte("tidemark/" + why.reason),
		topology.HeaderMessage:       []byte(brief(why.detail)),
		topology.HeaderReason:        []byte(why.reason),
		topology.HeaderTopic:         []byte(ctx.Topic()),
		topology.HeaderPartition:     strconv.AppendInt(nil, int64(ctx.Partition()), 10),
		topology.HeaderOffset:        strconv.AppendInt(nil, ctx.Offset(), 10),
		topology.HeaderFirstFailedAt: time.Now().UTC().AppendFormat(nil, time.RFC3339Nano),
	}
	if a.key == nil {
		own[topology.HeaderKeyNull] = []byte("true")
	}
	l := letter{key: a.key, value: a.value, headers: foreign(ctx.Headers()), own: own}
	l.fit(topology.MaxMessageBytes)
	var value any // a null value stays one
	if l.value != nil {
		value = l.value
	}
	ctx.Emit(goka.Stream(f.conf.Streams.DLQ.Name), string(l.key), value, goka.WithCtxEmitHeaders(l.headers.Merged(l.own)))
}

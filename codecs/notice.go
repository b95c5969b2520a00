package codecs

import (
	"fmt"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// Index encodes a *tidemarkv1.IndexOp as JSON. It implements goka.Codec.
type Index struct{}

// Encode returns the JSON of value, which must be a *tidemarkv1.IndexOp.
func (Index) Encode(value any) ([]byte, error) {
	return Index{}.Append(nil, value)
}

// Append appends the JSON of value, which must be a *tidemarkv1.IndexOp. It implements epochs.Appender.
func (Index) Append(b []byte, value any) ([]byte, error) {
	op, ok := value.(*tidemarkv1.IndexOp)
	if !ok {
		return nil, fmt.Errorf("encode index record: got a %T, want a *tidemarkv1.IndexOp", value)
	}
	return appendIndex(b, op), nil
}

// Decode returns a *tidemarkv1.IndexOp.
func (Index) Decode(data []byte) (any, error) {
	op, err := parseIndex(data)
	if err != nil {
		return nil, fmt.Errorf("decode index record: %w", err)
	}
	return op, nil
}

// ops are the JSON values of tidemarkv1.IndexOp_Op, by number.
var ops = [...]string{"", "upsert", "delete"}

// appendIndex appends the JSON of an index record.
func appendIndex(b []byte, op *tidemarkv1.IndexOp) []byte {
	o := object{b: append(b, '{')}
	o.text("op", word(ops[:], op.GetOp()))
	o.text("id", op.GetId())
	o.text("workspace_id", op.GetWorkspaceId())
	o.text("file_id", op.GetFileId())
	o.int("version", op.GetVersion())
	o.position(op.GetPosition())
	if op.GetFile() != nil {
		o.name("file")
		o.b = AppendFile(o.b, op.GetFile())
	}
	return append(o.b, '}')
}

// Notice encodes a *tidemarkv1.Notice as JSON. It implements goka.Codec.
type Notice struct{}

// maxNotice is the largest notice with a payload, in bytes. A larger one has payload_omitted in its place.
const maxNotice = 1 << 20

// Encode returns the JSON of value, which must be a *tidemarkv1.Notice.
func (Notice) Encode(value any) ([]byte, error) {
	return Notice{}.Append(nil, value)
}

// Append appends the JSON of value, which must be a *tidemarkv1.Notice. It implements epochs.Appender.
func (Notice) Append(b []byte, value any) ([]byte, error) {
	n, ok := value.(*tidemarkv1.Notice)
	if !ok {
		return nil, fmt.Errorf("encode notice: got a %T, want a *tidemarkv1.Notice", value)
	}
	return appendNotice(b, n), nil
}

// Decode returns a *tidemarkv1.Notice, whose payload aliases data.
func (Notice) Decode(data []byte) (any, error) {
	n, err := parseNotice(data)
	if err != nil {
		return nil, fmt.Errorf("decode notice: %w", err)
	}
	return n, nil
}

// appendNotice appends the JSON of a notice. Its payload must be valid JSON.
func appendNotice(b []byte, n *tidemarkv1.Notice) []byte {
	start := len(b)
	o := object{b: append(b, '{')}
	o.text("op_id", n.GetOpId())
	o.text("event", n.GetEvent())
	o.text("event_id", n.GetEventId())
	o.text("workspace_id", n.GetWorkspaceId())
	o.text("file_id", n.GetFileId())
	if n.Version != nil {
		o.int("version", n.GetVersion())
	}
	o.position(n.GetPosition())
	o.bool("late", n.GetLate())
	if names := n.GetUnreadable(); len(names) > 0 {
		o.name("unreadable")
		o.b = appendStrings(o.b, names)
	}
	if c := n.GetCause(); c != nil {
		o.name("cause")
		o.b = appendCause(o.b, c)
	}
	o.text("actor_id", n.GetActorId())
	if m := n.GetMember(); m != nil {
		o.name("member")
		o.b = appendMember(o.b, m)
	}
	o.name("at")
	o.b = appendTime(o.b, n.GetAt())
	if n.GetAfter() != nil {
		if n.GetBefore() == nil {
			o.null("before")
		} else {
			o.name("before")
			o.b = AppendFile(o.b, n.GetBefore())
		}
		o.name("after")
		o.b = AppendFile(o.b, n.GetAfter())
	}
	const around = len(`,"payload":}`)
	switch payload := n.GetPayload(); {
	case n.GetPayloadOmitted(), len(o.b)-start+around+len(payload) > maxNotice:
		o.bool("payload_omitted", true)
	case len(payload) > 0:
		o.name("payload")
		o.b = append(o.b, payload...)
	}
	return append(o.b, '}')
}

// appendCause appends the folder's event that this one was derived from. What the entry inherits is in its row.
func appendCause(b []byte, c *tidemarkv1.Cause) []byte {
	o := object{b: append(b, '{')}
	o.text("event", c.GetEvent())
	o.text("event_id", c.GetEventId())
	o.text("folder_id", c.GetInherited().GetFolderId())
	o.position(c.GetPosition())
	return append(o.b, '}')
}

// appendMember appends a member without the offset, which is that of the notice's position.
func appendMember(b []byte, m *tidemarkv1.Member) []byte {
	o := object{b: append(b, '{')}
	o.text("id", m.GetId())
	o.bool("left", m.GetLeft())
	if at := m.GetAt(); at != 0 {
		o.time("at", &at)
	}
	return append(o.b, '}')
}

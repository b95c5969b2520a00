package codecs

import (
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// AppendDerived appends the record of an event that was derived for an entry of a folder: the JSON of a webhook, which
// ParseEvent reads, with the cause and what the entry inherits, which ParseCause reads.
func AppendDerived(b []byte, e *tidemarkv1.Event) []byte {
	o := object{b: append(b, '{')}
	o.text("event", e.GetEvent())
	o.text("event_id", e.GetEventId())
	o.text("workspace_id", e.GetWorkspaceId())
	o.text("object_id", e.GetFileId())
	if len(e.GetPath()) <= maxText { // for humans: the fold uses what is inherited
		o.text("path", e.GetPath())
	}
	o.text("actor_id", e.GetActorId())
	o.time("created", e.OccurredAt)
	if c := e.GetCause(); c != nil {
		o.name("cause")
		o.b = appendCause(o.b, c)
		o.name("inherited")
		o.b = appendInherited(o.b, c.GetInherited())
	}
	if e.GetReceivedAt() != 0 {
		o.name("received_at")
		o.b = appendMicros(o.b, e.GetReceivedAt())
	}
	o.text("partition_key", e.GetWorkspaceId())
	return append(o.b, '}')
}

func appendInherited(b []byte, in *tidemarkv1.Inherited) []byte {
	o := object{b: append(b, '{')}
	o.text("folder_id", in.GetFolderId())
	o.int("stamp", in.GetStamp())
	o.text("path", in.GetPath())
	o.since("path_since", in.GetPathSince())
	o.text("from_path", in.GetFromPath())
	o.since("from_until", in.GetFromUntil())
	o.bool("trashed", in.GetTrashed())
	o.since("trashed_since", in.GetTrashedSince())
	o.since("restored_since", in.GetRestoredSince())
	for i, id := range in.GetAbove() {
		if i == 0 {
			o.name("above")
			o.b = append(o.b, '[')
		} else {
			o.b = append(o.b, ',')
		}
		o.b = appendString(o.b, id)
	}
	if len(in.GetAbove()) > 0 {
		o.b = append(o.b, ']')
	}
	return append(o.b, '}')
}

// since adds the time of an event: the sender's, if it gave one, and that of its arrival.
func (o *object) since(name string, s *tidemarkv1.EventTime) {
	if s == nil {
		return
	}
	o.name(name)
	t := object{b: append(o.b, '{')}
	if at := s.GetAt(); at != 0 {
		t.time("at", &at)
	}
	if arrived := s.GetArrived(); arrived != 0 {
		t.time("arrived", &arrived)
	}
	o.b = append(t.b, '}')
}

// ParseCause reads the cause and what is inherited from a record that AppendDerived wrote. e is the event parsed from
// it.
func ParseCause(value []byte, e *tidemarkv1.Event) (c *tidemarkv1.Cause, err error) {
	var in *tidemarkv1.Inherited
	r := newReader(value)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "cause":
			c = r.cause()
		case "inherited":
			in = r.inherited()
		default:
			r.value()
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if c.GetEventId() == "" || in.GetFolderId() == "" {
		return nil, missingField("cause",
			"a derived event needs the id of its folder's event, and what the entry inherits")
	}
	c.Inherited, c.Time, c.ActorId = in, &tidemarkv1.EventTime{
		At:      e.GetOccurredAt(),
		Arrived: e.GetReceivedAt(),
	}, e.GetActorId()
	return c, nil
}

func (r *reader) inherited() *tidemarkv1.Inherited {
	in := new(tidemarkv1.Inherited)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "folder_id":
			in.FolderId = r.text()
		case "stamp":
			in.Stamp = r.int()
		case "path":
			in.Path = r.text()
		case "path_since":
			in.PathSince = r.since()
		case "from_path":
			in.FromPath = r.text()
		case "from_until":
			in.FromUntil = r.since()
		case "trashed":
			in.Trashed = r.bool()
		case "trashed_since":
			in.TrashedSince = r.since()
		case "restored_since":
			in.RestoredSince = r.since()
		case "above":
			in.Above = r.texts()
		default:
			r.value()
		}
	}
	return in
}

func (r *reader) since() *tidemarkv1.EventTime {
	s, at := new(tidemarkv1.EventTime), int64(0)
	for r.open(); r.next(); {
		switch string(r.name) {
		case "at":
			if r.time(&at) != nil {
				s.At = at
			}
		case "arrived":
			if r.time(&at) != nil {
				s.Arrived = at
			}
		default:
			r.value()
		}
	}
	return s
}

package codecs

import (
	"cmp"
	"time"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// WithEnvelope returns value, from which e was parsed, as the record for the events topic. received_at and
// partition_key replace the sender's. event, event_id and workspace_id are added where the sender used another
// spelling. An event with a sent_event also gets canonical_event, so that every reader of the topic gives it the same
// meaning. New members are added at the end of the object; every other byte stays as the sender wrote it.
func WithEnvelope(value []byte, e *tidemarkv1.Event, receivedAt time.Time) ([]byte, error) {
	w := splice{value: value, out: make([]byte, 0, len(value)+192+len(e.GetWorkspaceId()))}
	var has struct{ event, eventID, workspace bool }
	var s scanner
	s.init(value)
	for s.open(); s.next(); {
		name, start, kind := s.name, s.start, s.kind
		s.value()
		keep := true
		switch string(name) {
		case "received_at", "partition_key", canonicalName:
			keep = false
		case "event":
			keep = kind != 'n' // a null counts as absent, and the name must not occur twice
			has.event = keep
		case "event_id":
			keep = kind != 'n'
			has.eventID = keep
		case "workspace_id":
			keep = kind != 'n'
			has.workspace = keep
		}
		w.member(start, s.at, keep)
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	if w.tail == 0 {
		return nil, missingField("event", "the object is empty")
	}
	if !has.event {
		w.add("event", cmp.Or(e.GetSentEvent(), e.GetEvent()))
	}
	if !has.workspace {
		w.add("workspace_id", e.GetWorkspaceId())
	}
	if !has.eventID {
		w.add("event_id", e.GetEventId())
	}
	if e.GetSentEvent() != "" {
		w.add(canonicalName, e.GetEvent())
	}
	w.name("received_at")
	w.out = appendMicros(w.out, receivedAt.UnixMicro())
	w.add("partition_key", e.GetWorkspaceId())
	return append(w.out, value[w.tail:]...), nil
}

// A splice copies an object without some of its members, and appends others.
type splice struct {
	value, out []byte
	kept       bool // a member was copied or added
	from       int  // offset of the first byte of value that was not copied yet
	tail       int  // offset of the byte after the last member
}

// member handles the member at value[start:end]. A member that is left out takes exactly one comma with it: the one
// before it, or the one after it when no member was kept so far.
func (w *splice) member(start, end int, keep bool) {
	w.tail = end
	if w.from == 0 { // the first member: copy the brace before it
		w.out = append(w.out, w.value[:start]...)
		w.from = start
	}
	switch {
	case !keep:
		if w.kept {
			w.from = end
		}
	case w.kept:
		w.out = append(w.out, w.value[w.from:end]...)
		w.from = end
	default:
		w.out = append(w.out, w.value[start:end]...)
		w.from, w.kept = end, true
	}
}

func (w *splice) name(name string) {
	if w.kept {
		w.out = append(w.out, ',')
	}
	w.kept = true
	w.out = append(w.out, '"')
	w.out = append(w.out, name...)
	w.out = append(w.out, '"', ':')
}

func (w *splice) add(name, value string) {
	w.name(name)
	w.out = appendString(w.out, value)
}

package oracle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// A row is what the model holds of a file.
type row struct {
	scope, object string

	texts map[string]string // name, path, parent_id, mime, hash
	size  *int64

	status     string
	incomplete bool
	version    int64
	position   string

	actor, lastEvent, lastID string

	created, updated, deleted *int64

	// The sender's time of what each group was taken from.
	placeAt, contentAt, statusAt, newestAt *int64

	seen []seenID
}

// A seenID is one event id of the window. Times are whole seconds, as the sender's are.
type seenID struct {
	id             string
	sent, recorded int64
}

const (
	windowIDs = 256
	windowAge = 7 * 24 * 60 * 60
)

const second = 1_000_000 // in µs

// remembers reports whether an event id is in the window, and whether an unknown one is too old to be told from one that
// was forgotten: the window holds the newest ids by the sender's time.
func (r *row) remembers(e *event) (duplicate, beyond bool) {
	for _, s := range r.seen {
		if s.id == e.id {
			return true, false
		}
	}
	at := e.believed()
	if len(r.seen) < windowIDs || at == nil {
		return false, false
	}
	oldest, newest := r.seen[0].sent, r.seen[windowIDs-1].sent
	return false, *at/second < oldest || *at/second == oldest && oldest < newest // one of that second may have been forgotten
}

// filledBySecondOf says that the window is full of events of the same second as this one.
func (r *row) filledBySecondOf(e *event) bool {
	at := e.believed()
	return r != nil && at != nil && len(r.seen) == windowIDs && r.seen[0].sent == *at/second && r.seen[windowIDs-1].sent == *at/second
}

// apply folds an accepted event into a copy of the row; nil is a file never seen. It reports whether the event came late.
func (r *row) apply(e *event, position string) (after *row, late bool) {
	after = &row{scope: e.scope, object: e.object, texts: map[string]string{}, status: "active", incomplete: true}
	if r != nil {
		*after = *r
		after.texts = maps.Clone(r.texts)
	}
	when := e.believed()

	place := pickTexts(e.texts, "name", "path", "parent_id")
	if len(place) > 0 {
		if newer(when, &after.placeAt) {
			maps.Copy(after.texts, place)
		} else {
			late = true
		}
	}
	content := pickTexts(e.texts, "mime", "hash")
	if len(content) > 0 || e.size != nil {
		if newer(when, &after.contentAt) {
			maps.Copy(after.texts, content)
			if e.size != nil {
				after.size = e.size
			}
		} else {
			late = true
		}
	}
	if !after.applyStatus(e, when) {
		late = true
	}
	if newer(when, &after.newestAt) {
		at := e.at()
		after.lastEvent, after.lastID, after.updated = e.name, e.id, &at
		if e.actor != "" {
			after.actor = e.actor
		}
	}
	after.version++
	after.position = position
	after.remember(e)
	return after, late
}

// applyStatus writes the status group, and reports false when the event came too late to.
func (r *row) applyStatus(e *event, when *int64) bool {
	at := e.at()
	switch e.meaning() {
	case "added":
		r.incomplete = false
		if r.created == nil || at < *r.created {
			r.created = &at
		}
	case "restored":
	case "deleted":
		if !newer(when, &r.statusAt) {
			return false
		}
		r.status, r.deleted = "trashed", &at
		return true
	default:
		return true
	}
	if !newer(when, &r.statusAt) {
		return false
	}
	r.status, r.deleted = "active", nil
	return true
}

// newer reports whether an event may write a group, and if so notes its time: equal times go by the log's order, and an
// event without a time counts as newest and leaves the group's as it was.
func newer(when *int64, held **int64) bool {
	if when == nil {
		return true
	}
	if *held != nil && *when < **held {
		return false
	}
	*held = when
	return true
}

// remember adds the event to the window, which is ordered by the sender's time; an event without one stands at the newest's.
func (r *row) remember(e *event) {
	new := seenID{id: e.id, recorded: e.recorded / second}
	var kept []seenID
	for _, s := range r.seen {
		if s.recorded >= new.recorded-windowAge {
			kept = append(kept, s)
		}
	}
	switch at := e.believed(); {
	case at != nil:
		new.sent = *at / second
	case len(kept) > 0:
		new.sent = kept[len(kept)-1].sent
	}
	if e.replayed && len(kept) > 0 { // its age says nothing
		new.sent = max(new.sent, kept[len(kept)-1].sent)
	}
	place := len(kept)
	for place > 0 && kept[place-1].sent > new.sent {
		place--
	}
	kept = slices.Insert(kept, place, new)
	r.seen = kept[max(0, len(kept)-windowIDs):]
}

func pickTexts(from map[string]string, names ...string) map[string]string {
	out := map[string]string{}
	for _, name := range names {
		if v, ok := from[name]; ok {
			out[name] = v
		}
	}
	return out
}

// doc is the row as the design's JSON shows it.
func (r *row) doc() doc {
	if r == nil {
		return nil
	}
	d := doc{
		"workspace_id": text(r.scope), "file_id": text(r.object), "status": text(r.status),
		"incomplete": boolean(r.incomplete), "version": number(r.version), "position": text(r.position),
	}
	for name, value := range r.texts {
		d.put(name, value)
	}
	if r.size != nil {
		d["size"] = number(*r.size)
	}
	d.put("actor_id", r.actor)
	d.put("last_event", r.lastEvent)
	d.put("last_event_id", r.lastID)
	d.putTime("created_at", r.created)
	d.putTime("updated_at", r.updated)
	d.putTime("deleted_at", r.deleted)
	return d
}

// bookkeeping is what later folds go by, in the form of FileState.
func (r *row) bookkeeping() doc {
	var seen []byte
	for _, s := range r.seen {
		sum := sha256.Sum256([]byte(s.id))
		seen = append(seen, sum[:16]...)
		seen = binary.BigEndian.AppendUint32(seen, uint32(s.sent))
		seen = binary.BigEndian.AppendUint32(seen, uint32(s.recorded))
	}
	d := doc{"seen": text(string(seen))}
	d.putTime("place_at", r.placeAt)
	d.putTime("content_at", r.contentAt)
	d.putTime("status_at", r.statusAt)
	d.putTime("last_at", r.newestAt)
	return d
}

func position(partition int32, offset int64) string { return fmt.Sprintf("%d:%d", partition, offset) }

package oracle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A row is the state of a file or a folder in the model.
type row struct {
	scope, object string
	folder        bool

	texts map[string]string // displayed: name, path, parent_id, mime, hash
	size  *int64

	status     string
	incomplete bool
	version    int64
	position   string

	actor, lastEvent, lastID string

	created, updated, deleted *int64

	times    [8]int64 // see dated; the sender's time, µs
	newestAt *int64   // that of the newest event

	own       own
	inherited *inherited

	silent, silentOffset int64 // folds without a displayed change, and the offset of the last one

	seen []seenID
}

// own has the fields of the row's own events for which the row may display those of its folder.
type own struct {
	path       string // as it was sent
	named      bool   // the name is newer than the path
	pathParent string // the parent that came with the path
	stalePath  bool   // by a newer event with another parent
	status     string
	deleted    *int64
	// The arrival of the event that wrote the path, and the status, if that has no time; else 0.
	pathArrived, statusArrived int64
}

// dated are the fields with a time, in the order of FileState.field_times.
var dated = [...]string{"name", "path", "parent_id", "size", "mime", "hash", "status", "actor_id"}

// time returns the time of a field; 0 when no dated event wrote it.
func (r *row) time(field string) *int64 { return &r.times[slices.Index(dated[:], field)] }

// A seenID is one event id of the window. Times are in whole seconds, as the sender's.
type seenID struct {
	id             string
	sent, recorded int64
}

const (
	windowIDs = 256
	windowAge = 7 * 24 * 60 * 60
)

const second = 1_000_000 // in µs

// remembers reports whether an event id is in the window, and whether an unknown id is so old that the window may
// have dropped it: the window has the newest ids by the sender's time.
func (r *row) remembers(e *event) (duplicate, beyond bool) {
	for _, s := range r.seen {
		if s.id == e.id {
			return true, false
		}
	}
	at := e.orderTime()
	if len(r.seen) < windowIDs || at == nil {
		return false, false
	}
	oldest, newest := r.seen[0].sent, r.seen[windowIDs-1].sent
	// an id of that second may have been dropped
	return false, *at/second < oldest || *at/second == oldest && oldest < newest
}

// filledBySecondOf reports whether the window is full of events of the same second as this one.
func (r *row) filledBySecondOf(e *event) bool {
	at := e.orderTime()
	return r != nil && at != nil && len(r.seen) == windowIDs && r.seen[0].sent == *at/second &&
		r.seen[windowIDs-1].sent == *at/second
}

// apply folds an accepted event into a copy of the row; nil is a new file. It reports whether the event came late,
// and whether it was silent: no displayed change and no new version. It returns the row itself when the event changes
// nothing at all.
func (r *row) apply(e *event, partition int32, offset int64) (after *row, late, silent bool) {
	after = &row{
		scope: e.scope, object: e.object, texts: map[string]string{}, incomplete: true,
		own: own{status: "active"},
	}
	if r != nil {
		*after = *r
		after.texts = maps.Clone(r.texts)
	}
	if e.inherits == nil {
		after.folder = after.folder || e.meaning().folder
		late = after.write(e)
	} else if after.inherit(e.inherits); r != nil && after.inherited == r.inherited {
		return r, false, true
	}
	after.setLastEvent(e)
	after.show()
	after.remember(e)
	if r != nil && (e.inherits != nil || e.meaning().ofEach && after.inItsFolder()) && after.showsWhat(r) {
		after.lastEvent, after.lastID, after.updated, after.actor = r.lastEvent, r.lastID, r.updated, r.actor
		*after.time("actor_id") = *r.time("actor_id")
		after.silent, after.silentOffset = r.silent+1, offset
		return after, false, true
	}
	after.version++
	after.position, after.silentOffset = position(partition, offset), 0
	return after, late, false
}

// walked is a folder's row after a record of a walk over its entries.
func (r *row) walked(offset int64) *row {
	after := *r
	after.silent, after.silentOffset = r.silent+1, offset
	return &after
}

// write writes the event's fields, each by its own time, and reports whether an older one was ignored.
func (r *row) write(e *event) (late bool) {
	when := e.orderTime()
	late = !r.writeStatus(e, when)
	wrote := func(field string) bool {
		if e.texts[field] == "" {
			return false
		}
		if !r.takes(field, when) {
			late = true
			return false
		}
		if field != "path" {
			r.texts[field] = e.texts[field]
		}
		return true
	}
	if wrote("path") {
		r.writePath(e, when)
	}
	beyond := when == nil && e.texts["path"] == "" || when != nil && *when > *r.time("path") // newer than the path
	if wrote("name") && beyond {
		r.own.named = true
	}
	if wrote("parent_id") {
		r.own.stalePath = beyond && e.texts["parent_id"] != r.own.pathParent
	}
	wrote("mime")
	if wrote("hash") && when != nil && *r.time("size") > *when { // the hash is that of older content
		delete(r.texts, "hash")
		late = true
	}
	switch {
	case e.size == nil:
	case !r.takes("size", when):
		late = true
	default:
		r.size = e.size
		if when == nil && e.texts["hash"] == "" || when != nil && *r.time("hash") < *when {
			delete(r.texts, "hash")
		}
	}
	return late
}

// writePath writes a path. A newer name or parent overrides it, also one that arrived before; what a folder gave
// earlier does not.
func (r *row) writePath(e *event, when *int64) {
	path := e.texts["path"]
	for r.folder && len(path) > 1 && strings.HasSuffix(path, "/") {
		path = strings.TrimSuffix(path, "/")
	}
	r.own.path, r.own.named, r.own.stalePath = path, false, false
	r.own.pathParent, r.own.pathArrived = e.texts["parent_id"], e.received
	if when != nil {
		r.own.pathArrived = 0
		r.own.stalePath = *r.time("parent_id") > *when && r.texts["parent_id"] != r.own.pathParent
		r.own.named = *r.time("name") > *when
	}
	if in := r.inherited; in != nil && in.pathSince != nil && (when == nil || in.pathSince.at <= *when) {
		without := *in
		without.pathSince = nil
		r.inherited = &without
	}
}

// takes reports whether an event may write a field, and if so sets the field's time: of equal times the later record
// wins, and an event without a time wins and leaves the field's time as it was.
func (r *row) takes(field string, when *int64) bool {
	held := r.time(field)
	if when != nil && *when < *held {
		return false
	}
	if when != nil {
		*held = *when
	}
	return true
}

// setLastEvent sets the newest event and its actor. An older event of the folder does not replace an entry's newer one.
func (r *row) setLastEvent(e *event) {
	if at := e.at(); newer(e.orderTime(), &r.newestAt) {
		if e.inherits != nil && r.updated != nil && at < *r.updated {
			return
		}
		r.lastEvent, r.lastID, r.updated = e.name, e.id, &at
	}
	if e.actor != "" && r.takes("actor_id", e.orderTime()) {
		r.actor = e.actor
	}
}

// writeStatus writes the status, and reports false when the event came too late.
func (r *row) writeStatus(e *event, when *int64) bool {
	what, at := e.meaning().what, e.at()
	if what == "updated" {
		return true
	}
	inTrash := r.inItsFolder() && r.inherited.trashed
	written := r.takes("status", when)
	arrived := e.received
	if when != nil {
		arrived = 0
	}
	switch {
	case !written || what == "deleted" && when == nil && inTrash: // it is in the trash already, with its folder
	case what == "deleted":
		r.own.status, r.own.deleted, r.own.statusArrived = "trashed", &at, arrived
	default:
		r.own.status, r.own.deleted, r.own.statusArrived = "active", nil, arrived
		if inTrash && sinceOf(e).notBefore(r.inherited.trashedSince) { // it was restored without its folder
			without := *r.inherited
			without.trashed = false
			r.inherited = &without
		}
	}
	if what == "added" {
		r.incomplete = false
		if r.created == nil || at < *r.created {
			r.created = &at
		}
	}
	return written
}

// newer reports whether an event is the newest of its kind, and if so sets its time: of equal times the later record
// wins, and an event without a time wins and leaves the time as it was.
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

// remember adds the event to the window, which is ordered by the sender's time; an event without a time gets the
// newest one's.
func (r *row) remember(e *event) {
	new := seenID{id: e.id, recorded: e.recorded / second}
	var kept []seenID
	for _, s := range r.seen {
		if s.recorded >= new.recorded-windowAge {
			kept = append(kept, s)
		}
	}
	switch at := e.orderTime(); {
	case at != nil:
		new.sent = *at / second
	case len(kept) > 0:
		new.sent = kept[len(kept)-1].sent
	}
	if (e.replayed || e.inherits != nil) && len(kept) > 0 { // its own time is old
		new.sent = max(new.sent, kept[len(kept)-1].sent)
	}
	place := len(kept)
	for place > 0 && kept[place-1].sent > new.sent {
		place--
	}
	kept = slices.Insert(kept, place, new)
	r.seen = kept[max(0, len(kept)-windowIDs):]
}

// doc is the row in the form of the design's JSON.
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
	if r.folder {
		d["kind"] = text("folder")
	}
	d.put("actor_id", r.actor)
	d.put("last_event", r.lastEvent)
	d.put("last_event_id", r.lastID)
	d.putTime("created_at", r.created)
	d.putTime("updated_at", r.updated)
	d.putTime("deleted_at", r.deleted)
	return d
}

// bookkeeping has the fields that only later folds use, in the form of FileState.
func (r *row) bookkeeping() doc {
	var seen []byte
	for _, s := range r.seen {
		sum := sha256.Sum256([]byte(s.id))
		seen = append(seen, sum[:16]...)
		seen = binary.BigEndian.AppendUint32(seen, uint32(s.sent))
		seen = binary.BigEndian.AppendUint32(seen, uint32(s.recorded))
	}
	d := doc{"seen": text(string(seen)), "silent": number(r.silent), "silent_offset": number(r.silentOffset)}
	for i, at := range r.times {
		if at != 0 {
			d["time of "+dated[i]] = instant(at)
		}
	}
	d.putTime("last_at", r.newestAt)
	return d
}

func position(partition int32, offset int64) string { return fmt.Sprintf("%d:%d", partition, offset) }

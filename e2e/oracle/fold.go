package oracle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A row is what the model holds of a file or a folder.
type row struct {
	scope, object string
	folder        bool

	texts map[string]string // name, path, parent_id, mime, hash, as they are shown
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

	silent, silentOffset int64 // folds that changed nothing shown, and where the last of them lies

	seen []seenID
}

// An own is what the row's events said themselves, where the row may show something of its folder's.
type own struct {
	path    string // as it was sent
	named   bool   // the name is newer than the path
	beside  string // the parent that came with the path
	adrift  bool   // the parent is newer, and another
	status  string
	deleted *int64
	// When the event that wrote the path, and the status, arrived, if it had no time; else 0.
	pathArrived, statusArrived int64
}

// dated are the fields that have a time each, in the order of FileState.field_times.
var dated = [...]string{"name", "path", "parent_id", "size", "mime", "hash", "status", "actor_id"}

// time is where the time of a field is held; 0 when no dated event wrote it.
func (r *row) time(field string) *int64 { return &r.times[slices.Index(dated[:], field)] }

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

// apply folds an accepted event into a copy of the row; nil is a file never seen. It reports whether the event came late, and
// whether it was silent: it changed nothing shown and raised no version. When it gives the row nothing, that is the row before.
func (r *row) apply(e *event, partition int32, offset int64) (after *row, late, silent bool) {
	after = &row{scope: e.scope, object: e.object, texts: map[string]string{}, incomplete: true, own: own{status: "active"}}
	if r != nil {
		*after = *r
		after.texts = maps.Clone(r.texts)
	}
	if e.passed == nil {
		after.folder = after.folder || e.meaning().folder
		late = after.write(e)
	} else if after.inherit(e.passed); r != nil && after.inherited == r.inherited {
		return r, false, true
	}
	after.headline(e)
	after.show()
	after.remember(e)
	if r != nil && (e.passed != nil || e.meaning().ofEach && after.heir()) && after.showsWhat(r) {
		after.lastEvent, after.lastID, after.updated, after.actor = r.lastEvent, r.lastID, r.updated, r.actor
		*after.time("actor_id") = *r.time("actor_id")
		after.silent, after.silentOffset = r.silent+1, offset
		return after, false, true
	}
	after.version++
	after.position, after.silentOffset = position(partition, offset), 0
	return after, late, false
}

// visited is a folder's row after a record by which its entries are visited.
func (r *row) visited(offset int64) *row {
	after := *r
	after.silent, after.silentOffset = r.silent+1, offset
	return &after
}

// write puts into the row what the event carries, each field by its own time, and reports whether one was held back.
func (r *row) write(e *event) (late bool) {
	when := e.believed()
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
		r.own.adrift = beyond && e.texts["parent_id"] != r.own.beside
	}
	wrote("mime")
	if wrote("hash") && when != nil && *r.time("size") > *when { // it is of another content
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

// writePath takes over a path. A name or a parent that is newer, though it came before, holds against it, and what a folder gave
// until then does not.
func (r *row) writePath(e *event, when *int64) {
	path := e.texts["path"]
	for r.folder && len(path) > 1 && strings.HasSuffix(path, "/") {
		path = strings.TrimSuffix(path, "/")
	}
	r.own.path, r.own.named, r.own.beside, r.own.adrift, r.own.pathArrived = path, false, e.texts["parent_id"], false, e.received
	if when != nil {
		r.own.pathArrived = 0
		r.own.adrift = *r.time("parent_id") > *when && r.texts["parent_id"] != r.own.beside
		r.own.named = *r.time("name") > *when
	}
	if in := r.inherited; in != nil && in.pathSince != nil && (when == nil || in.pathSince.at <= *when) {
		without := *in
		without.pathSince = nil
		r.inherited = &without
	}
}

// takes reports whether an event may write a field, and if so notes its time: equal times go by the log's order, and an event
// without a time counts as newest and leaves the field's as it was.
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

// headline notes the newest event and who acted last. An older event of a folder is no news to an entry that has a newer one.
func (r *row) headline(e *event) {
	if at := e.at(); newer(e.believed(), &r.newestAt) {
		if e.passed != nil && r.updated != nil && at < *r.updated {
			return
		}
		r.lastEvent, r.lastID, r.updated = e.name, e.id, &at
	}
	if e.actor != "" && r.takes("actor_id", e.believed()) {
		r.actor = e.actor
	}
}

// writeStatus writes the status, and reports false when the event came too late to.
func (r *row) writeStatus(e *event, when *int64) bool {
	what, at := e.meaning().what, e.at()
	if what == "updated" {
		return true
	}
	inTrash := r.heir() && r.inherited.trashed
	written := r.takes("status", when)
	arrived := e.received
	if when != nil {
		arrived = 0
	}
	switch {
	case !written || what == "deleted" && when == nil && inTrash: // it is in the trash, with its folder
	case what == "deleted":
		r.own.status, r.own.deleted, r.own.statusArrived = "trashed", &at, arrived
	default:
		r.own.status, r.own.deleted, r.own.statusArrived = "active", nil, arrived
		if inTrash && sinceOf(e).notBefore(r.inherited.trashedSince) { // it is back, and its folder is not
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

// newer reports whether an event is the newest of its kind, and if so notes its time: equal times go by the log's order, and an
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
	if (e.replayed || e.passed != nil) && len(kept) > 0 { // its age says nothing
		new.sent = max(new.sent, kept[len(kept)-1].sent)
	}
	place := len(kept)
	for place > 0 && kept[place-1].sent > new.sent {
		place--
	}
	kept = slices.Insert(kept, place, new)
	r.seen = kept[max(0, len(kept)-windowIDs):]
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

// bookkeeping is what later folds go by, in the form of FileState.
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

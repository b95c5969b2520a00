package oracle

import (
	"encoding/json"
	"maps"
	"strings"
)

// inherited is what an entry inherits from its folder, by the record that the files group wrote for it.
type inherited struct {
	folder        string
	stamp         int64 // of one folder, the higher one is newer
	path          string
	pathSince     *since
	from          string // for an entry that is in the folder by its path alone: the folder's path
	fromUntil     *since // when the folder left that path; nil while it has it
	trashed       bool
	trashedSince  *since // the folder's delete
	restoredSince *since // and its restore after that
}

// A since is the time of an event in µs: the sender's, 0 without one, and that of its arrival.
type since struct{ at, arrived int64 }

func sinceOf(e *event) *since {
	s := &since{arrived: e.received}
	if when := e.orderTime(); when != nil {
		s.at = *when
	}
	return s
}

// notBefore compares by the senders' times; where one has none, by arrival.
func (s *since) notBefore(other *since) bool {
	switch {
	case s == nil || other == nil:
		return other == nil
	case s.at == 0 || other.at == 0:
		return s.arrived >= other.arrived
	}
	return s.at >= other.at
}

// overrides reports whether what a folder gives since then is displayed instead of the row's own field, which was
// written at that time, or, without one, upon arrival.
func (s *since) overrides(at, arrived int64) bool {
	switch {
	case s == nil:
		return false
	case arrived != 0:
		return s.arrived >= arrived
	}
	return s.at == 0 || s.at >= at
}

// follow reads the members that the JSON of an entry's record has in addition to a webhook's; the reason is empty
// when it names its cause.
func (e *event) follow(value []byte) (reason string) {
	object, err := strictObject(value)
	if err != nil {
		return notJSON
	}
	given, _ := object["inherited"].(map[string]any)
	e.cause, _ = object["cause"].(map[string]any)
	in := &inherited{
		folder: member(given, "folder_id"), path: member(given, "path"), from: member(given, "from_path"),
		pathSince: sinceIn(given, "path_since"), fromUntil: sinceIn(given, "from_until"),
		trashedSince: sinceIn(given, "trashed_since"), restoredSince: sinceIn(given, "restored_since"),
	}
	in.trashed, _ = given["trashed"].(bool)
	if n, ok := given["stamp"].(json.Number); ok {
		in.stamp, err = n.Int64()
	}
	if err != nil || in.folder == "" || member(e.cause, "event_id") == "" {
		return badField
	}
	e.inherits = in
	return ""
}

func member(object map[string]any, name string) string {
	s, _ := object[name].(string)
	return s
}

func sinceIn(object map[string]any, name string) *since {
	times, ok := object[name].(map[string]any)
	if !ok {
		return nil
	}
	s := &since{}
	if at := instantOf(times["at"]); at != nil {
		s.at = *at
	}
	if at := instantOf(times["arrived"]); at != nil {
		s.arrived = *at
	}
	return s
}

// inItsFolder reports whether the row is still in the folder that it has inherited from.
func (r *row) inItsFolder() bool {
	switch in := r.inherited; {
	case in == nil:
		return false
	case in.from != "":
		return !r.own.stalePath && lies(r.own.path, in.from) &&
			(in.fromUntil == nil || in.fromUntil.overrides(*r.time("path"), r.own.pathArrived))
	default:
		return in.folder == r.texts["parent_id"]
	}
}

// lies reports whether a path is below a folder's.
func lies(path, folder string) bool {
	return len(path) > len(below(folder, "")) && strings.HasPrefix(path, below(folder, ""))
}

func below(folder, rest string) string { return strings.TrimSuffix(folder, "/") + "/" + rest }

// inherit sets what a folder gives, unless the row has left it, or has something newer or of a nearer folder.
func (r *row) inherit(in *inherited) {
	held := r.inherited
	byParent := in.from == ""
	switch {
	case byParent && in.folder != r.texts["parent_id"]:
		return
	case held == nil:
	case held.folder == in.folder:
		// It may have left the folder for which it was given.
		has := in.stamp < held.stamp || in.stamp == held.stamp && r.inItsFolder()
		if has && (held.from == "" || !byParent) {
			return
		}
	case !byParent && r.inItsFolder() && held.nearerThan(in):
		return
	}
	r.inherited = in
}

// nearerThan compares two folders, the other of which is known by its path; equal paths are ordered by id.
func (in *inherited) nearerThan(other *inherited) bool {
	switch {
	case in.from == "":
		return true
	case len(in.from) == len(other.from):
		return in.folder > other.folder
	}
	return len(in.from) > len(other.from)
}

// show derives the displayed path and status.
func (r *row) show() {
	path := r.shownPath()
	if r.texts["path"] = path; path == "" {
		delete(r.texts, "path")
	}
	r.status, r.deleted = r.shownStatus()
}

func (r *row) shownPath() string {
	in, own := r.inherited, r.own.path
	dir, last := own[:strings.LastIndex(own, "/")+1], own[strings.LastIndex(own, "/")+1:]
	if own == "" || r.own.named {
		last = r.texts["name"]
	}
	if own != "" {
		own = dir + last
	}
	known := r.inItsFolder() && in.path != "" && last != ""
	switch {
	case r.own.stalePath && known:
		return below(in.path, last)
	case r.own.stalePath:
		return ""
	case own == "" || !known || !in.pathSince.overrides(*r.time("path"), r.own.pathArrived):
		return own
	case in.from == "":
		return below(in.path, last)
	}
	return below(in.path, strings.TrimPrefix(own, below(in.from, "")))
}

func (r *row) shownStatus() (status string, deleted *int64) {
	in, trashed := r.inherited, r.own.status == "trashed"
	status, deleted = r.own.status, r.own.deleted
	if !r.inItsFolder() {
		return status, deleted
	}
	by, at, arrived := in.trashedSince, *r.time("status"), r.own.statusArrived
	switch {
	case in.trashed && by.overrides(at, arrived) != trashed: // neither deleted before nor restored after
		when := by.at
		if when == 0 {
			when = by.arrived
		}
		return "trashed", &when
	case !in.trashed && trashed && r.wasIn(by) && withinTrash(by, in.restoredSince, at, arrived):
		return "active", nil
	}
	return status, deleted
}

// wasIn reports whether the row was in its folder when that was deleted.
func (r *row) wasIn(deleted *since) bool {
	entered := "parent_id"
	if r.inherited.from != "" {
		entered = "path"
	}
	return deleted != nil && (deleted.at == 0 || *r.time(entered) <= deleted.at)
}

// withinTrash reports whether an event came between the delete and the restore of a folder.
func withinTrash(deleted, restored *since, at, arrived int64) bool {
	if restored == nil {
		return false
	}
	if arrived != 0 {
		return deleted.arrived <= arrived && arrived <= restored.arrived
	}
	return deleted.at != 0 && deleted.at <= at && at <= restored.at
}

// showsWhat reports whether two rows display the same, apart from version, position and the last event.
func (r *row) showsWhat(other *row) bool {
	a, b := r.doc(), other.doc()
	for _, name := range []string{"version", "position", "last_event", "last_event_id", "actor_id", "updated_at"} {
		delete(a, name)
		delete(b, name)
	}
	return maps.Equal(a, b)
}

// judgeGroupRecords requires that each record that the files group wrote to the events topic names as its cause a
// folder's event before it that was folded, and is about an entry or a folder that exists by then.
func (m *Model) judgeGroupRecords(r *Report) {
	const wrong = "records of the group without a cause"
	r.check(wrong)
	known := map[string]bool{} // by key: whether it is a folder
	for _, rec := range m.log {
		at, e := position(rec.Partition, rec.Offset), rec.event
		if e == nil || m.dead[at] != nil || !e.walk && !e.touches() {
			continue
		}
		key := joinKey(e.scope, e.object)
		folder, seen := known[key]
		switch {
		case e.walk && !folder:
			r.Violate(wrong, "%s goes on with the entries of %q, which is no folder yet", at, key)
		case e.inherits != nil && !seen:
			r.Violate(wrong, "%s is of an entry %q that is not known yet", at, key)
		case e.inherits != nil:
			if d := m.causeOf(rec); d != "" {
				r.Violate(wrong, "%s: %s: %q", at, d, short(rec.Value))
			}
		}
		known[key] = folder || e.meaning().folder
	}
}

// causeOf describes what is wrong with the cause of a record; empty when it is right.
func (m *Model) causeOf(rec *entry) string {
	e := rec.event
	at := member(e.cause, "position")
	cause := m.events[at]
	switch {
	case at != header(rec.Record, "tidemark-cause"):
		return "header and JSON name different causes"
	case cause == nil || m.notices[at] == nil || cause.Offset >= rec.Offset:
		return "its cause is no event that was folded before it"
	case cause.event.inherits != nil || cause.event.scope != e.scope,
		cause.event.id != member(e.cause, "event_id") || cause.event.name != member(e.cause, "event"):
		return "its cause is another event than it says"
	case member(e.cause, "folder_id") != e.inherits.folder:
		return "it inherits from another folder than it says"
	}
	return ""
}

package oracle

import (
	"encoding/json"
	"maps"
	"strings"
)

// An inherited is what a record of an entry says that the folder gives it.
type inherited struct {
	folder        string
	stamp         int64 // of one folder, the higher one is newer
	path          string
	pathSince     *since
	from          string // for an entry that is in the folder by its path alone: the folder's path that this lies in
	fromUntil     *since // when the folder left that; nil while it is there
	trashed       bool
	trashedSince  *since // the folder's delete
	restoredSince *since // and its restore after that
}

// A since is the time of an event in µs: the sender's, 0 without one, and that of its arrival.
type since struct{ at, arrived int64 }

func sinceOf(e *event) *since {
	s := &since{arrived: e.received}
	if when := e.believed(); when != nil {
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

// holdsAgainst says whether what a folder gives since then is shown in the place of what the row's own event said at
// that time, or, when it had none, upon its arrival.
func (s *since) holdsAgainst(at, arrived int64) bool {
	switch {
	case s == nil:
		return false
	case arrived != 0:
		return s.arrived >= arrived
	}
	return s.at == 0 || s.at >= at
}

// follow reads what the JSON of a record of an entry has beside a webhook's; the reason is empty when it names its
// cause.
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
	e.passed = in
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

// heir says whether what the row has inherited is of the folder that it is in now.
func (r *row) heir() bool {
	switch in := r.inherited; {
	case in == nil:
		return false
	case in.from != "":
		return !r.own.adrift && lies(r.own.path, in.from) && (in.fromUntil == nil || in.fromUntil.holdsAgainst(*r.time("path"), r.own.pathArrived))
	default:
		return in.folder == r.texts["parent_id"]
	}
}

// lies says whether a path is below a folder's.
func lies(path, folder string) bool {
	return len(path) > len(below(folder, "")) && strings.HasPrefix(path, below(folder, ""))
}

func below(folder, rest string) string { return strings.TrimSuffix(folder, "/") + "/" + rest }

// inherit takes over what a folder gives, unless the row is not in it any more, or has newer, or has a nearer folder's.
func (r *row) inherit(in *inherited) {
	held := r.inherited
	byParent := in.from == ""
	switch {
	case byParent && in.folder != r.texts["parent_id"]:
		return
	case held == nil:
	case held.folder == in.folder:
		// What it has may be of a place that it has left.
		has := in.stamp < held.stamp || in.stamp == held.stamp && r.heir()
		if has && (held.from == "" || !byParent) {
			return
		}
	case !byParent && r.heir() && held.nearerThan(in):
		return
	}
	r.inherited = in
}

// nearerThan compares two folders, the other of which is known by its path; of equal paths one is chosen.
func (in *inherited) nearerThan(other *inherited) bool {
	switch {
	case in.from == "":
		return true
	case len(in.from) == len(other.from):
		return in.folder > other.folder
	}
	return len(in.from) > len(other.from)
}

// show derives what is shown of path and status.
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
	known := r.heir() && in.path != "" && last != ""
	switch {
	case r.own.adrift && known:
		return below(in.path, last)
	case r.own.adrift:
		return ""
	case own == "" || !known || !in.pathSince.holdsAgainst(*r.time("path"), r.own.pathArrived):
		return own
	case in.from == "":
		return below(in.path, last)
	}
	return below(in.path, strings.TrimPrefix(own, below(in.from, "")))
}

func (r *row) shownStatus() (status string, deleted *int64) {
	in, trashed := r.inherited, r.own.status == "trashed"
	status, deleted = r.own.status, r.own.deleted
	if !r.heir() {
		return status, deleted
	}
	by, at, arrived := in.trashedSince, *r.time("status"), r.own.statusArrived
	switch {
	case in.trashed && by.holdsAgainst(at, arrived) != trashed: // neither deleted before nor brought back after
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

// wasIn says whether the row was in its folder when that was deleted.
func (r *row) wasIn(deleted *since) bool {
	entered := "parent_id"
	if r.inherited.from != "" {
		entered = "path"
	}
	return deleted != nil && (deleted.at == 0 || *r.time(entered) <= deleted.at)
}

// withinTrash says whether an event came between the delete and the restore of a folder.
func withinTrash(deleted, restored *since, at, arrived int64) bool {
	if restored == nil {
		return false
	}
	if arrived != 0 {
		return deleted.arrived <= arrived && arrived <= restored.arrived
	}
	return deleted.at != 0 && deleted.at <= at && at <= restored.at
}

// showsWhat says whether two rows show the same, apart from version and position and what is said of the last event.
func (r *row) showsWhat(other *row) bool {
	a, b := r.doc(), other.doc()
	for _, name := range []string{"version", "position", "last_event", "last_event_id", "actor_id", "updated_at"} {
		delete(a, name)
		delete(b, name)
	}
	return maps.Equal(a, b)
}

// judgeOwn wants each record that the files group wrote itself to follow from an event of a folder that lies before
// it and was folded, and to be about an entry or a folder that was known by then.
func (m *Model) judgeOwn(r *Report) {
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
		case e.passed != nil && !seen:
			r.Violate(wrong, "%s is of an entry %q that is not known yet", at, key)
		case e.passed != nil:
			if d := m.causeOf(rec); d != "" {
				r.Violate(wrong, "%s: %s: %q", at, d, short(rec.Value))
			}
		}
		known[key] = folder || e.meaning().folder
	}
}

// causeOf says what is wrong with the cause that a record names.
func (m *Model) causeOf(rec *entry) string {
	e := rec.event
	at := member(e.cause, "position")
	cause := m.events[at]
	switch {
	case at != header(rec.Record, "tidemark-cause"):
		return "header and JSON name different causes"
	case cause == nil || m.notices[at] == nil || cause.Offset >= rec.Offset:
		return "its cause is no event that was folded before it"
	case cause.event.passed != nil || cause.event.scope != e.scope,
		cause.event.id != member(e.cause, "event_id") || cause.event.name != member(e.cause, "event"):
		return "its cause is another event than it says"
	case member(e.cause, "folder_id") != e.passed.folder:
		return "it inherits from another folder than it says"
	}
	return ""
}

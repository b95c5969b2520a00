package oracle

import (
	"cmp"
	"slices"
	"strings"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// This file computes the final path and status of each file and folder from the provider's events alone, in the
// order of their times: records that the files group wrote itself do not count. So a step of a folder's change that
// was lost, applied twice or applied out of order is found, although every row follows from the log.
//
// Rows with events without a usable time, or with two events of the same time, are not judged, nor are their
// entries. Not judged either are rows with a slash in their name, because the start of the path's last element is
// ambiguous then, and entries known by their path alone in a folder that has had more paths than a row remembers.

// A node is a file or a folder by its own events.
type node struct {
	id     string
	folder bool
	sure   bool // it can be judged

	name, path, parent string
	pathParent         string // the parent that came with the path
	stalePath          bool   // by a newer event with another parent
	named, put, moved  int64  // the times of name, path and parent, µs; 0 for none

	trashed           bool
	decided           int64 // the time of the status
	deleted, restored int64 // that of the newest delete, and of the newest event that brings it back

	paths   []string // that it had by its own events
	inOrder bool     // its events came in the order of their times
	said    []*event // in the order of the log
	dated   []*event // of them, those with a time
	times   map[int64]bool
	result  *outcome
}

// An outcome is the final path and status of a node, and what its entries inherit.
type outcome struct {
	path    string
	since   int64 // of the path, µs
	trashed bool
	// The delete by which its entries are in the trash, or were before that restore, µs.
	deleted, restored int64
	above             *node
	sure              bool
}

// judgeEntries compares paths and status of the last rows with the outcomes.
func (m *Model) judgeEntries(last map[string]*tidemarkv1.FileState, r *Report) {
	const where, how = "entries not where their folder is", "entries not as their folder is"
	r.check(where, how)
	judged, inside, skipped := 0, 0, 0
	for scope, nodes := range m.nodes() {
		t := newTree(nodes)
		for _, n := range nodes {
			row := last[joinKey(scope, n.id)]
			want := t.resolve(n)
			if !want.sure || row == nil { // a row that is missing is found elsewhere
				skipped++
				continue
			}
			judged++
			if want.above != nil {
				inside++
			}
			if row.GetPath() != want.path {
				r.Violate(where, "%q/%q: at %q, wanted %q", scope, n.id, row.GetPath(), want.path)
			}
			if trashed := row.GetStatus() == tidemarkv1.Status_STATUS_TRASHED; trashed != want.trashed {
				r.Violate(how, "%q/%q: in the trash: %t, wanted %t", scope, n.id, trashed, want.trashed)
			}
		}
	}
	r.count("entries: judged by the provider's events alone / in folders / not judged", judged, inside, skipped)
}

// nodes reads the provider's events, by scope and id.
func (m *Model) nodes() map[string]map[string]*node {
	all := map[string]map[string]*node{}
	seen := map[string]bool{}
	for _, rec := range m.log {
		e := rec.event
		if e == nil || e.walk || e.inherits != nil || !e.touches() ||
			m.dead[position(rec.Partition, rec.Offset)] != nil {
			continue
		}
		once := joinKey(e.scope, e.object) + "\x00" + e.id
		if seen[once] {
			continue
		}
		seen[once] = true
		if all[e.scope] == nil {
			all[e.scope] = map[string]*node{}
		}
		n := all[e.scope][e.object]
		if n == nil {
			n = &node{id: e.object, sure: true, times: map[int64]bool{}}
			all[e.scope][e.object] = n
		}
		n.hear(e)
	}
	for _, nodes := range all {
		for _, n := range nodes {
			n.settle()
		}
	}
	return all
}

// hear adds an event. A row with many events cannot be judged: it forgets ids, and folds them again.
func (n *node) hear(e *event) {
	when := e.orderTime()
	n.said = append(n.said, e)
	if when == nil {
		n.sure = false
		return
	}
	n.sure = n.sure && !n.times[*when] && len(n.dated) < windowIDs-1 && !strings.Contains(e.texts["name"], "/")
	n.times[*when] = true
	n.dated = append(n.dated, e)
}

// settle applies the events in the order of their times. The node's former paths are only known when the events also
// arrived in that order: else it may have had any of the names in any of the folders.
func (n *node) settle() {
	byTime := func(a, b *event) int { return cmp.Compare(*a.orderTime(), *b.orderTime()) }
	n.inOrder = slices.IsSortedFunc(n.dated, byTime)
	slices.SortStableFunc(n.dated, byTime)
	for _, e := range n.dated {
		n.take(e)
	}
	n.folder = slices.ContainsFunc(n.said, func(e *event) bool { return e.meaning().folder })
	if n.folder && (!n.sure || !n.inOrder) {
		for _, place := range n.said {
			for _, e := range n.said {
				if path := place.texts["path"]; path != "" {
					n.paths = append(n.paths, path)
					if name := e.texts["name"]; name != "" {
						n.paths = append(n.paths, withLast(path, name))
					}
				}
			}
		}
	}
	slices.Sort(n.paths)
	n.paths = slices.Compact(n.paths)
	n.said, n.dated = nil, nil
}

// take applies an event; no event before it is newer.
func (n *node) take(e *event) {
	at, m := *e.orderTime(), e.meaning()
	path, name, parent := e.texts["path"], e.texts["name"], e.texts["parent_id"]
	if path != "" {
		n.path, n.pathParent, n.stalePath, n.put = path, parent, false, at
	}
	if name != "" {
		n.name, n.named = name, at
		if path == "" {
			n.path = withLast(n.path, name)
		}
	}
	if parent != "" {
		n.parent, n.moved = parent, at
		n.stalePath = path == "" && parent != n.pathParent
	}
	if n.path != "" {
		n.paths = append(n.paths, n.path)
	}
	switch m.what {
	case "updated":
	case "deleted":
		n.trashed, n.decided, n.deleted = true, at, at
	default:
		n.trashed, n.decided, n.restored = false, at, at
	}
}

// formerPaths is how many paths that a folder had before are remembered.
const formerPaths = 8

// A tree has the files and folders of a workspace.
type tree struct {
	nodes  map[string]*node
	places map[string][]place // by what the paths in them begin with, the nearest first
}

// A place is a path that a folder has or had.
type place struct {
	folder *node
	path   string
}

func newTree(nodes map[string]*node) tree {
	t := tree{nodes: nodes, places: map[string][]place{}}
	for _, n := range nodes {
		if !n.folder {
			continue
		}
		for _, p := range n.paths {
			t.places[below(p, "")] = append(t.places[below(p, "")], place{n, p})
		}
	}
	for _, all := range t.places {
		slices.SortFunc(all, func(a, b place) int {
			return cmp.Or(cmp.Compare(len(b.path), len(a.path)), cmp.Compare(b.folder.id, a.folder.id))
		})
	}
	return t
}

// in returns the folder of a node: its parent, else the nearest folder that its path is in. The former paths of that
// folder are only sure if it is in no folder itself and its events arrived in order.
func (t tree) in(n *node) (folder *node, from string, sure bool) {
	if f := t.parent(n); f != nil {
		return f, "", true
	}
	folder, from = t.around(n)
	if folder == nil {
		return nil, "", true
	}
	above := t.parent(folder)
	if above == nil {
		above, _ = t.around(folder)
	}
	return folder, from, above == nil && folder.inOrder && n.inOrder && len(folder.paths) <= formerPaths
}

func (t tree) parent(n *node) *node {
	if f := t.nodes[n.parent]; f != nil && f.folder {
		return f
	}
	return nil
}

// around returns the nearest folder that has, or had, a path that the node's path is in, and that path.
func (t tree) around(n *node) (folder *node, from string) {
	if n.stalePath {
		return nil, ""
	}
	for i := len(n.path) - 2; i >= 0; i-- {
		if n.path[i] != '/' {
			continue
		}
		for _, p := range t.places[n.path[:i+1]] {
			if p.folder != n {
				return p.folder, p.path
			}
		}
	}
	return nil, ""
}

// resolve computes the outcome of a node, after those of the folders above it.
func (t tree) resolve(n *node) *outcome {
	if n.result != nil {
		return n.result
	}
	n.result = &outcome{} // a cycle of folders is not judged
	folder, from, sure := t.in(n)
	o := &outcome{
		path: n.path, since: max(n.put, n.named, n.moved), trashed: n.trashed, deleted: n.deleted, restored: n.restored,
		above: folder, sure: sure && n.sure,
	}
	if n.stalePath {
		o.path = ""
	}
	if folder != nil {
		f := t.resolve(folder)
		for up := folder; up != nil && o.sure; up = up.result.above {
			o.sure = up.result.sure
			for at := range n.times {
				o.sure = o.sure && !up.times[at]
			}
		}
		n.follow(f, from, o)
	}
	n.result = o
	return o
}

// follow applies the folder's outcome to a node's.
func (n *node) follow(f *outcome, from string, o *outcome) {
	last := n.path[strings.LastIndex(n.path, "/")+1:]
	if last == "" {
		last = n.name
	}
	if f.path != "" && last != "" && (n.stalePath || n.path != "" && f.since > n.put) {
		o.path, o.since = below(f.path, last), max(o.since, f.since)
		if from != "" {
			o.path = below(f.path, strings.TrimPrefix(n.path, below(from, "")))
		}
	}
	entered := n.moved
	if from != "" {
		entered = n.put
	}
	wasIn := f.deleted != 0 && entered <= f.deleted
	switch {
	case f.trashed:
		o.trashed = n.trashed || f.deleted > n.decided
	case n.trashed:
		o.trashed = !wasIn || n.decided < f.deleted || n.decided > f.restored
	}
	switch {
	case o.trashed && !n.trashed:
		o.deleted, o.restored = f.deleted, f.restored
	case o.trashed && f.trashed:
		o.deleted = max(o.deleted, f.deleted)
	case !o.trashed && wasIn && f.restored > o.restored:
		o.deleted, o.restored = f.deleted, f.restored
	}
}

// withLast replaces a path's last element by a name.
func withLast(path, name string) string {
	if path == "" {
		return ""
	}
	return path[:strings.LastIndex(path, "/")+1] + name
}

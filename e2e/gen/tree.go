package gen

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// How large a tree of folders grows: what happens to a folder happens to all below it, so a larger one would give
// more records than all senders.
const (
	treeFolders = 6
	treeFiles   = 24
)

// A treeSim is a folder at the root with the folders and files below it, as they truly are. Its events have times of
// their own, to the microsecond: which of two of one second came first would depend on when the receiver looks.
type treeSim struct {
	nodes   []*nodeSim // the root first
	pending []event    // of entries, beside that of their folder
}

type nodeSim struct {
	id, name string
	parent   *nodeSim // nil: the root, and files that are known by their path alone
	dir      string   // of those
	folder   bool
	trashed  time.Time // when it was deleted; zero when it is not
}

func (n *nodeSim) path(root *nodeSim) string {
	switch {
	case n.parent != nil:
		return n.parent.path(root) + "/" + n.name
	case n == root:
		return n.dir + "/" + n.name
	}
	return root.path(root) + n.dir + "/" + n.name
}

func (n *nodeSim) inTrash() bool { return n != nil && (!n.trashed.IsZero() || n.parent.inTrash()) }

func (n *nodeSim) inside(of *nodeSim) bool { return n != nil && (n == of || n.parent.inside(of)) }

// pick returns one of the nodes that are wanted, nil if there is none.
func (t *treeSim) pick(g *generator, wanted func(*nodeSim) bool) *nodeSim {
	var found []*nodeSim
	for _, n := range t.nodes {
		if wanted(n) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return pick(g.rnd, found)
}

func (t *treeSim) count(folder bool) (n int) {
	for _, node := range t.nodes {
		if node.folder == folder {
			n++
		}
	}
	return n
}

// What happens in a tree.
var inTree = []lot{
	{"create", 12},
	{"add", 30},
	{"add_late", 4},
	{"move_folder", 10},
	{"rename_folder", 8},
	{"delete_folder", 11},
	{"restore_folder", 11},
	{"update", 14},
	{"move", 6},
	{"delete", 6},
	{"restore", 5},
	{"any", 3},
}

// tree makes an event of a folder, or of a file in one.
func (g *generator) tree(s *scope, created time.Time) event {
	if s.tree == nil || len(s.tree.nodes) >= treeFolders+treeFiles && len(s.tree.pending) == 0 && g.chance(0.2) {
		root := &nodeSim{id: fileID(g.serial, g.rnd), folder: true, name: g.folderName()}
		root.dir = pick(g.rnd, []string{"", "/reports", "/Ünï/čödé", "/100%"})
		s.tree = &treeSim{nodes: []*nodeSim{root}}
		return g.say(s, root, "folder_created", created, true, true)
	}
	if t := s.tree; len(t.pending) > 0 {
		e := t.pending[0]
		t.pending = t.pending[1:]
		e.created = created
		return e
	}
	e, ok := g.inTree(s, created)
	for !ok { // nothing is there that this could happen to
		e, ok = g.inTree(s, created)
	}
	if g.chance(0.25) { // fewer than elsewhere: an undated event makes what is below it uncertain
		e.created, e.clock = g.when(e.created), g.clock()
	}
	return e
}

func (g *generator) inTree(s *scope, created time.Time) (e event, ok bool) {
	t, what := s.tree, g.draw(inTree)
	root := t.nodes[0]
	live := func(n *nodeSim) bool { return !n.inTrash() }
	liveFolder := func(n *nodeSim) bool { return n.folder && live(n) }
	liveFile := func(n *nodeSim) bool { return !n.folder && live(n) }
	deleted := func(n *nodeSim) bool { return !n.trashed.IsZero() }
	switch what {
	case "create":
		if in := t.pick(g, liveFolder); in != nil && t.count(true) < treeFolders {
			n := &nodeSim{id: fileID(g.serial, g.rnd), folder: true, name: g.folderName(), parent: in}
			t.nodes = append(t.nodes, n)
			return g.say(s, n, "folder_created", created, g.chance(0.8), true), true
		}
	case "add":
		if in := t.pick(g, liveFolder); in != nil {
			return g.add(s, in, created)
		}
	case "add_late": // retried for so long that the folder was deleted meanwhile
		in := t.pick(g, func(n *nodeSim) bool { return n.folder && deleted(n) })
		if in == nil {
			return e, false
		}
		return g.add(s, in, in.trashed.Add(-time.Microsecond))
	case "move_folder", "move":
		wanted := map[bool]func(*nodeSim) bool{true: liveFolder, false: liveFile}[what == "move_folder"]
		n := t.pick(g, wanted)
		to := t.pick(g, func(to *nodeSim) bool { return liveFolder(to) && n != nil && !to.inside(n) })
		if n == nil || n != root && to == nil {
			return e, false
		}
		return g.move(s, n, to, created), true
	case "rename_folder":
		if n := t.pick(g, liveFolder); n != nil {
			n.name = g.folderName()
			what := pick(g.rnd, []string{"folder_renamed", "folder_updated"})
			return g.beside(s, n, g.say(s, n, what, created, g.chance(0.5), true), "moved"), true
		}
	case "delete_folder", "delete":
		wanted := map[bool]func(*nodeSim) bool{true: liveFolder, false: liveFile}[what == "delete_folder"]
		if n := t.pick(g, wanted); n != nil && (n != root || g.chance(0.5)) {
			n.trashed = created
			return g.beside(s, n, g.say(s, n, n.kind()+"_deleted", created, false, g.chance(0.2)), "deleted"), true
		}
	case "restore_folder", "restore":
		folder := what == "restore_folder"
		if n := t.pick(g, func(n *nodeSim) bool { return n.folder == folder && deleted(n) }); n != nil {
			n.trashed = time.Time{}
			return g.beside(s, n, g.say(s, n, n.kind()+"_restored", created, false, g.chance(0.2)), "restored"), true
		}
	case "update":
		if n := t.pick(g, liveFile); n != nil {
			e := g.say(s, n, "file_updated", created, g.chance(0.3), g.chance(0.3))
			e.fields = append(e.fields, field{"size", g.size()}, field{"mime", "text/plain"})
			return e, true
		}
	case "any": // whether it makes sense or not
		n := pick(g.rnd, t.nodes)
		verb := pick(g.rnd, []string{"deleted", "restored", "updated"})
		return g.say(s, n, n.kind()+"_"+verb, created, false, g.chance(0.5)), true
	}
	return e, false
}

// add makes a file in a folder. Some are known by their path alone, below the root.
func (g *generator) add(s *scope, in *nodeSim, created time.Time) (event, bool) {
	t := s.tree
	if t.count(false) >= treeFiles {
		return event{}, false
	}
	g.serial++
	n := &nodeSim{id: fileID(g.serial, g.rnd), name: fileName(g.serial, g.rnd), parent: in}
	if g.chance(0.9) { // else no path says where the name begins
		n.name = strings.ReplaceAll(n.name, "/", "-")
	}
	if in == t.nodes[0] && g.chance(0.4) {
		n.parent, n.dir = nil, pick(g.rnd, []string{"", fmt.Sprintf("/sub-%d", g.serial), "/a/b"})
	}
	t.nodes = append(t.nodes, n)
	e := g.say(s, n, "file_added", created, n.parent == nil || g.chance(0.7), true)
	e.fields = append(e.fields, field{"size", g.size()})
	return e, true
}

func (g *generator) move(s *scope, n, to *nodeSim, created time.Time) event {
	whole := g.chance(0.5)
	switch {
	case n.parent != nil:
		n.parent = to
	case n == s.tree.nodes[0]:
		n.name, whole = g.folderName(), true
	default:
		n.dir, whole = fmt.Sprintf("/moved-%d", g.serial), true
	}
	if g.chance(0.2) {
		n.name = n.name[:len(n.name)-1] + "z"
	}
	return g.beside(s, n, g.say(s, n, n.kind()+"_moved", created, whole, true), "moved")
}

func (n *nodeSim) kind() string {
	if n.folder {
		return "folder"
	}
	return "file"
}

// say makes an event of a node as it is now. With a full place it has the path; without a named one it has none of
// path, name and parent.
func (g *generator) say(s *scope, n *nodeSim, what string, created time.Time, full, named bool) event {
	g.serial++
	scoped := "workspace_storage_"
	if s.kind == byShare {
		scoped = "share_storage_"
	}
	e := event{name: scoped + what, id: g.eventID(), object: n.id, created: created}
	if full {
		e.fields = append(e.fields, field{"path", n.path(s.tree.nodes[0])})
	}
	if named {
		e.fields = append(e.fields, field{"name", n.name})
		if n.parent != nil {
			e.fields = append(e.fields, field{"parent_id", n.parent.id})
		}
	}
	if g.chance(0.6) {
		e.fields = append(e.fields, field{"calling_user_id", fmt.Sprintf("usr_%d", g.rnd.IntN(20))})
	}
	return e
}

// beside sometimes lets the provider send an event for each entry too, before or after that of the folder. They come
// next in their workspace.
func (g *generator) beside(s *scope, n *nodeSim, e event, verb string) event {
	t := s.tree
	if !n.folder || !g.chance(0.3) {
		return e
	}
	all := []event{e}
	for _, entry := range t.nodes {
		if entry != n && entry.parent == n && entry.trashed.IsZero() && g.chance(0.8) {
			moves := verb == "moved"
			all = append(all, g.say(s, entry, entry.kind()+"_"+verb, e.created, moves, moves))
		}
	}
	if len(all) > 1 && g.chance(0.4) {
		last := len(all) - 1
		all[0], all[last] = all[last], all[0]
	}
	t.pending = all[1:]
	first := all[0]
	first.created = e.created
	return first
}

// folderName makes a name without a slash, so that a path says which folders it is in.
func (g *generator) folderName() string {
	g.serial++
	return fmt.Sprintf("%s-%d", pick(g.rnd, []string{"docs", "Ablage für März", "数据", "x%20y", "100%", "_f"}), g.serial)
}

// hasTree says whether a workspace has folders: about a quarter of them, of each kind.
func hasTree(i int) bool { return slices.Contains([]int{0, 3, 6, 8}, i%16) }

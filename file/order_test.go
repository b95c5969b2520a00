package file

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A drive makes a history of dated events of distinct times, each of which says some of what is true after it.
type drive struct {
	r      *rand.Rand
	nodes  map[string]*node
	ids    []string // in the order they were made
	second int
	events []*tidemarkv1.Event
}

type node struct {
	id, name, parent string
	folder           bool
	trashed          bool
}

func newDrive(r *rand.Rand) *drive { return &drive{r: r, nodes: map[string]*node{}} }

// path is where a node lies, as a provider would say it.
func (d *drive) path(n *node) string {
	if n == nil {
		return ""
	}
	return d.path(d.nodes[n.parent]) + "/" + n.name
}

// inTrash says whether a node or a folder above it is in the trash.
func (d *drive) inTrash(n *node) bool { return n != nil && (n.trashed || d.inTrash(d.nodes[n.parent])) }

func (d *drive) inside(n, of *node) bool {
	return n != nil && (n == of || d.inside(d.nodes[n.parent], of))
}

func (d *drive) pick(keep func(*node) bool) *node {
	var found []*node
	for _, id := range d.ids {
		if n := d.nodes[id]; keep(n) && !d.inTrash(d.nodes[n.parent]) {
			found = append(found, n)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[d.r.IntN(len(found))]
}

func (d *drive) step() {
	d.second++
	switch k := d.r.IntN(12); {
	case k < 5 || len(d.ids) < 3:
		n := &node{
			id: fmt.Sprintf("n%d", len(d.ids)), name: fmt.Sprintf("name%d", d.second),
			folder: d.r.IntN(3) == 0 || len(d.ids) < 2,
		}
		if in := d.pick(func(n *node) bool { return n.folder && !n.trashed }); in != nil {
			n.parent = in.id
		}
		d.nodes[n.id] = n
		d.ids = append(d.ids, n.id)
		d.tell(n, map[bool]string{true: "folder_created", false: "file_added"}[n.folder], true, true, true)
	case k < 7:
		n := d.pick(func(n *node) bool { return !n.trashed })
		to := d.pick(func(to *node) bool { return to.folder && !to.trashed && n != nil && !d.inside(to, n) })
		if to != nil {
			n.parent = to.id
			d.tell(n, kind(n)+"_moved", d.r.IntN(2) == 0, d.r.IntN(2) == 0, true)
		}
	case k < 9:
		if n := d.pick(func(n *node) bool { return !n.trashed }); n != nil {
			n.name = fmt.Sprintf("name%d", d.second)
			d.tell(n, kind(n)+"_updated", true, d.r.IntN(2) == 0, d.r.IntN(2) == 0)
		}
	case k < 11:
		if n := d.pick(func(n *node) bool { return !n.trashed }); n != nil {
			n.trashed = true
			d.tell(n, kind(n)+"_deleted", false, false, false)
		}
	default:
		if n := d.pick(func(n *node) bool { return n.trashed }); n != nil {
			n.trashed = false
			d.tell(n, kind(n)+"_restored", false, false, false)
		}
	}
}

func kind(n *node) string {
	if n.folder {
		return "folder"
	}
	return "file"
}

func (d *drive) tell(n *node, event string, name, path, parent bool) {
	at := noon + int64(d.second)*1e6
	e := &tidemarkv1.Event{
		Event: "workspace_storage_" + event, EventId: fmt.Sprintf("e%d", d.second), WorkspaceId: "ws", FileId: n.id,
		OccurredAt: &at, Payload: []byte("{}"),
	}
	if name {
		e.Name = n.name
	}
	if path {
		e.Path = d.path(n)
	}
	if parent {
		e.ParentId = n.parent
	}
	if d.r.IntN(2) == 0 && !n.folder {
		size := int64(d.second)
		e.Size, e.Mime = &size, "text/plain"
	}
	if d.r.IntN(3) == 0 && !n.folder {
		e.Hash = fmt.Sprint("h", d.second)
	}
	d.events = append(d.events, e)
}

// shown is what a world's rows show, but for what may depend on the order.
func (w *world) shown() string {
	var all strings.Builder
	for _, id := range slices.Sorted(maps.Keys(w.rows)) {
		s := proto.CloneOf(w.rows[id])
		s.Version, s.Position, s.LastEvent, s.LastEventId, s.ActorId, s.UpdatedAt = 0, nil, "", "", "", nil
		fmt.Fprintf(&all, "%s\n", codecs.AppendFile(nil, s))
	}
	return all.String()
}

// A row is a function of its events, and of its folders', not of their order: every order of dated events, with
// resends, shows the same.
func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 7))
		d := newDrive(r)
		for range 4 + r.IntN(40) {
			d.step()
		}
		first := ""
		for order := range 6 {
			events := slices.Clone(d.events)
			if order > 0 {
				r.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			}
			w := newWorld(t)
			for i, e := range events {
				w.send(e)
				if r.IntN(4) == 0 {
					w.send(events[r.IntN(i+1)])
				}
			}
			got := w.shown()
			if first == "" {
				first = got
				d.compare(t, seed, w)
			}
			if got != first {
				t.Fatalf("seed %d (-as they happened +in another order):\n%s\n%s\nas they happened:\n%s", seed,
					cmp.Diff(first, got), ids(events), ids(d.events))
			}
		}
	}
}

// compare holds the rows against what is true, where they can know it.
func (d *drive) compare(t *testing.T, seed uint64, w *world) {
	t.Helper()
	for id, n := range d.nodes {
		row := w.rows[id]
		if trashed := row.GetStatus() == tidemarkv1.Status_STATUS_TRASHED; trashed != d.inTrash(n) {
			t.Fatalf("seed %d: %s in the trash: %v, want %v\n%s", seed, id, trashed, d.inTrash(n), ids(d.events))
		}
		if path := d.path(n); row.GetPath() != path {
			t.Fatalf("seed %d: %s at %q, want %q\n%s", seed, id, row.GetPath(), path, ids(d.events))
		}
	}
}

func ids(events []*tidemarkv1.Event) string {
	var all strings.Builder
	for _, e := range events {
		fmt.Fprintf(&all, "%s %s %s name=%s path=%s parent=%s\n", e.GetEventId(),
			strings.TrimPrefix(e.GetEvent(),
				"workspace_storage_"), e.GetFileId(), e.GetName(), e.GetPath(), e.GetParentId())
	}
	return all.String()
}

func (w *world) send(e *tidemarkv1.Event) {
	e = proto.CloneOf(e)
	w.offset, w.recorded = w.offset+1, w.recorded.Add(1e9)
	e.RecordedAt = w.recorded.UnixMicro()
	w.event(e, &tidemarkv1.Position{Offset: w.offset})
}

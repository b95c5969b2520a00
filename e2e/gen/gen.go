// Package gen makes seeded histories of webhooks for the crash test.
//
// It promises that the same Config gives the same bytes, that half of the events are of fifty hot files, and that the
// history has the usual irregularities: immediate and late resends, first deliveries out of order, undated and future
// events, ids that break careless escaping, ids that two workspaces share and paths that two files share. It knows
// the provider's wire format and nothing of tidemark.
package gen

import (
	"math/rand/v2"
	"slices"
	"time"
)

// A Config selects a history.
type Config struct {
	Seed   uint64
	Events int       // distinct events that should be accepted; resends come on top
	Base   time.Time // the sender's time of the first event
	// Spread adds this many plain workspaces and hot files, which are less hot then and in workspaces of their own,
	// and reduces the hot workspace's share to a fortieth: a workspace sends one event at a time, so one with a
	// hundredth of a long history limits the rate of all to a hundred events in the time that one takes.
	Spread int
}

// Span is how far the sender's times reach past Base. It is below five minutes: times further ahead of the arrival
// are ignored. Only the future events are dated so.
const Span = 280 * time.Second

// A Delivery is one webhook as the provider sends it until it is answered with 200.
type Delivery struct {
	EventID string
	Body    []byte
	Forged  bool // signed with another secret
	Refused bool // must be answered with 4xx, and not be written
	Resent  bool // an earlier delivery had the same id and body
	Late    bool // its event is older than an earlier delivery's
}

// A Workspace is one scope's deliveries, in the order they are sent.
type Workspace struct {
	ID         string
	Canary     string // in every body of this workspace, and in no other's
	Deliveries []Delivery
}

// A History has the deliveries of all workspaces.
type History struct {
	Config     Config
	Workspaces []Workspace // the first is the hot one
}

// Deliveries counts all deliveries.
func (h *History) Deliveries() (n int) {
	for _, w := range h.Workspaces {
		n += len(w.Deliveries)
	}
	return n
}

const (
	hotFiles     = 50
	hotShare     = 0.5  // of the events with a file
	hotWorkspace = 0.35 // of all events
	resends      = 0.05
	outOfOrder   = 0.02
	refusals     = 0.005
	noFile       = 0.10
	inFolders    = 0.08 // half of them of a folder itself
	unreadable   = 0.01 // times
	shared       = 0.05 // ids that two workspaces have, paths that two files have
)

// New makes a history.
func New(c Config) *History {
	g := &generator{config: c, rnd: rand.New(rand.NewPCG(c.Seed, 0x7469646d61726b))}
	g.scopes()
	for i := range c.Events {
		g.event(i)
	}
	h := &History{Config: c}
	for _, s := range g.all {
		s.deliveries = g.disorder(s.deliveries)
		s.deliveries = g.resend(s.deliveries)
		s.deliveries = g.refuse(s)
		h.Workspaces = append(h.Workspaces, Workspace{ID: s.id, Canary: s.canary, Deliveries: s.deliveries})
	}
	return h
}

// A scope is one workspace, or a share in the place of one, while its history is generated.
type scope struct {
	id, canary string
	kind       scopeKind
	files      []*fileSim // cold files made so far
	tree       *treeSim   // of one with folders, its latest state
	deliveries []Delivery
}

type fileSim struct {
	scope *scope
	id    string
	name  string
	dir   string
}

type generator struct {
	config Config
	rnd    *rand.Rand
	all    []*scope
	trees  []*scope // those with folders, the hot one first
	hot    []*fileSim
	serial int      // in every id, so that they are distinct
	lent   *fileSim // whose id another workspace's file may have too
	twin   *event   // whose id another workspace's event may have too
}

func (g *generator) scopes() {
	for i, id := range append(slices.Clip(workspaceIDs), plainIDs(len(workspaceIDs), g.config.Spread)...) {
		s := &scope{id: id, canary: g.token("canary")}
		switch i % 8 { // the first, the hot one, is a plain workspace
		case 3:
			s.kind = byProfile
		case 6:
			s.kind = byShare
		}
		g.all = append(g.all, s)
		if hasTree(i) {
			g.trees = append(g.trees, s)
		}
	}
	for i := range hotFiles + g.config.Spread {
		s := g.all[0]
		if i%5 >= 3 || g.config.Spread > 0 && i > 0 { // 30 in the hot workspace, 20 spread over others
			s = g.all[1+i%(len(g.all)-1)]
		}
		g.hot = append(g.hot, g.newFile(s))
	}
}

// newFile makes a file. Some have the id of a file of another workspace, and some a path that another file has or had.
func (g *generator) newFile(s *scope) *fileSim {
	g.serial++
	f := &fileSim{scope: s, id: fileID(g.serial, g.rnd), name: fileName(g.serial, g.rnd), dir: pick(g.rnd, dirs)}
	if g.lent != nil && g.lent.scope != s && g.chance(shared) {
		f.id = g.lent.id
		g.lent = nil
	} else if g.lent == nil {
		g.lent = f
	}
	if len(s.files) > 0 && g.chance(shared) {
		at := pick(g.rnd, s.files)
		f.name, f.dir = at.name, at.dir
	}
	return f
}

// event makes the i-th event and appends it to its workspace.
func (g *generator) event(i int) {
	exact := g.config.Base.Add(Span * time.Duration(i) / time.Duration(g.config.Events)).Truncate(time.Microsecond)
	created := exact.Truncate(time.Second)
	switch {
	case g.chance(inFolders):
		s := g.scopeOf(g.trees)
		g.append(s, g.tree(s, exact))
	case g.chance(noFile):
		s := g.scope()
		g.append(s, g.other(s, created))
	case g.chance(hotShare):
		f := g.hot[g.skewed(len(g.hot))]
		g.append(f.scope, g.file(f, created, onHot))
	default:
		s := g.scope()
		if len(s.files) == 0 || g.chance(0.55) {
			f := g.newFile(s)
			s.files = append(s.files, f)
			g.append(s, g.file(f, created, onNew))
			return
		}
		g.append(s, g.file(pick(g.rnd, s.files), created, onKnown))
	}
}

func (g *generator) append(s *scope, e event) {
	e.scope = s
	switch {
	case g.twin == nil:
		g.twin = &e
	case g.twin.scope != s && g.chance(shared):
		e.id = g.twin.id
		g.twin = nil
	}
	s.deliveries = append(s.deliveries, Delivery{EventID: e.id, Body: e.body(g)})
}

func (g *generator) scope() *scope { return g.scopeOf(g.all) }

// scopeOf picks one of several, of which the first is the hot one.
func (g *generator) scopeOf(from []*scope) *scope {
	share := hotWorkspace
	if g.config.Spread > 0 {
		share /= 40
	}
	if g.chance(share) {
		return from[0]
	}
	return pick(g.rnd, from[1:])
}

// skewed picks from n with the first ones more often: some files must have more events than a row remembers ids.
func (g *generator) skewed(n int) int {
	flat := 4
	if g.config.Spread > 0 {
		flat = len(g.hot) * 2 / 5
	}
	total := 0.0
	for k := range n {
		total += 1 / float64(k+flat)
	}
	x := g.rnd.Float64() * total
	for k := range n {
		if x -= 1 / float64(k+flat); x < 0 {
			return k
		}
	}
	return n - 1
}

// disorder sends some first deliveries after later events', as a retried webhook arrives.
func (g *generator) disorder(d []Delivery) []Delivery {
	for i := range d {
		if d[i].Late || !g.chance(outOfOrder) || i+1 >= len(d) {
			continue
		}
		moved := d[i]
		moved.Late = true
		to := min(len(d)-1, i+1+g.rnd.IntN(60))
		copy(d[i:], d[i+1:to+1])
		d[to] = moved
	}
	return d
}

// resend delivers some events again: at once, soon, or much later.
func (g *generator) resend(d []Delivery) []Delivery {
	again := map[int][]Delivery{}
	for i := range d {
		if !g.chance(resends) {
			continue
		}
		after := i
		switch g.rnd.IntN(3) {
		case 1:
			after += 1 + g.rnd.IntN(20)
		case 2:
			after += 1 + g.rnd.IntN(len(d))
		}
		copied := d[i]
		copied.Resent, copied.Late = true, false
		after = min(after, len(d)-1)
		again[after] = append(again[after], copied)
	}
	all := make([]Delivery, 0, len(d)+len(d)/10)
	for i := range d {
		all = append(append(all, d[i]), again[i]...)
	}
	return all
}

// refuse adds webhooks that must be refused.
func (g *generator) refuse(s *scope) []Delivery {
	d := s.deliveries
	for range len(d) {
		if !g.chance(refusals) {
			continue
		}
		d = slices.Insert(d, g.rnd.IntN(len(d)+1), g.refused(s))
	}
	return d
}

func (g *generator) chance(p float64) bool { return g.rnd.Float64() < p }

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

package views

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A world is one partition: its events and changelog as the files group writes them, and instances that copy it.
type world struct {
	t         *testing.T
	random    *rand.Rand
	partition int32
	neighbour string // a workspace of the same partition
	events    int64
	log       []worldRecord // without what compaction has removed
	end       int64         // of the log
	rows      map[string]*tidemarkv1.FileState
	history   map[string][]*tidemarkv1.FileState
	instances []*instance
	// early: compaction may remove records that an instance has not read. Then its frontier is wrong until it has read
	// the next record of their keys, and so is complete_to.
	early bool
}

type worldRecord struct {
	offset     int64
	key        string
	value      []byte
	superseded int64 // offset of the next record of the same key; 0: none, so compaction keeps it
}

// An instance has applied the records before next.
type instance struct {
	*fixture
	next int64
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, random: rand.New(rand.NewPCG(seed, 19)), partition: kafka.Partition("ws", 4),
		early: seed%2 == 1,
		rows:  map[string]*tidemarkv1.FileState{}, history: map[string][]*tidemarkv1.FileState{},
	}
	for i := 0; w.neighbour == "" || kafka.Partition(w.neighbour, 4) != w.partition; i++ {
		w.neighbour = fmt.Sprintf("ws%d", i)
	}
	for range 2 {
		w.instances = append(w.instances, &instance{fixture: newFixture(t)})
	}
	return w
}

func (w *world) append(workspace, file string, value []byte) {
	key := tidemarkv1.JoinKey(workspace, file)
	for i := range w.log {
		if w.log[i].key == key && w.log[i].superseded == 0 {
			w.log[i].superseded = w.end
		}
	}
	w.log = append(w.log, worldRecord{offset: w.end, key: key, value: value})
	w.end += 1 + int64(w.random.IntN(2)) // a marker of a transaction takes an offset too
}

func (w *world) appendRow(row *tidemarkv1.FileState) {
	value, err := proto.Marshal(row)
	if err != nil {
		w.t.Fatal(err)
	}
	w.append(row.GetWorkspaceId(), row.GetFileId(), value)
}

// epoch folds some events, and appends the rows that they changed in another order.
func (w *world) epoch() {
	changed := map[string]bool{}
	for range 1 + w.random.IntN(4) {
		id := fmt.Sprintf("f%02d", w.random.IntN(30))
		row := &tidemarkv1.FileState{WorkspaceId: "ws", FileId: id, LogId: testLog}
		if before := w.rows[id]; before != nil {
			row = proto.CloneOf(before)
		}
		if row.GetVersion() > 0 && w.random.IntN(8) == 0 {
			row.Silent, row.SilentOffset = row.GetSilent()+1, w.events // changes nothing that is shown
		} else {
			row.Version++
			row.Path = fmt.Sprintf("/%c/%s", "ab"[w.random.IntN(2)], id)
			row.Status = []tidemarkv1.Status{isActive, isActive, isActive, isTrashed, isErased}[w.random.IntN(5)]
			row.Position = &tidemarkv1.Position{Partition: w.partition, Offset: w.events}
		}
		w.events++
		w.rows[id], changed[id] = row, true
		w.history[id] = append(w.history[id], row)
	}
	ids := slices.Sorted(maps.Keys(changed))
	w.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		w.appendRow(w.rows[id])
	}
}

// disturb appends what changes no row: rewrites, records of a former owner and of other programs, which the owner
// answers by writing its row again, and rows of another workspace.
func (w *world) disturb() {
	id := fmt.Sprintf("f%02d", w.random.IntN(30))
	row := w.rows[id]
	if row == nil {
		return
	}
	switch w.random.IntN(4) {
	case 0:
		w.append("ws", id, nil)
	case 1:
		w.appendRow(w.history[id][w.random.IntN(len(w.history[id]))])
	case 2:
		w.appendRow(fileRow(w.neighbour, id, "/a/"+id, isActive, w.end+1))
		return
	}
	w.appendRow(row)
}

// compact removes superseded records up to an offset. Unless it is early, all instances have read what follows them.
func (w *world) compact() {
	upTo, read := w.random.Int64N(w.end+1), w.end
	for _, in := range w.instances {
		if !w.early {
			read = min(read, in.next)
		}
	}
	w.log = slices.DeleteFunc(w.log, func(r worldRecord) bool {
		return r.superseded > 0 && r.superseded < read && r.offset < upTo
	})
}

// apply lets an instance read up to n records.
func (w *world) apply(in *instance, n int) {
	for _, r := range w.log {
		if r.offset < in.next {
			continue
		}
		if n--; n < 0 {
			return
		}
		if err := in.Server.files.update(w.partition, r.offset, r.key, r.value); err != nil {
			w.t.Fatal(err)
		}
		in.next = r.offset + 1
	}
}

// poll is what the progress loop finds now: all events are committed.
func (w *world) poll(in *instance) {
	in.now.filesCommit[w.partition], in.now.eventsEnd[w.partition] = w.events, w.events
	in.now.filesEnd[w.partition] = 0
	if len(w.log) > 0 {
		in.now.filesEnd[w.partition] = w.log[len(w.log)-1].offset + 1
	}
	in.poll()
}

// restart replaces an instance by one with the same store, or with a new one. That one reads all that compaction has
// left before it answers, as an instance does.
func (w *world) restart(i int, wiped bool) {
	old := w.instances[i]
	next, dir := old.next, old.conf.Dir
	for _, table := range []*table{old.Server.files, old.workspaces} {
		if err := table.close(); err != nil {
			w.t.Fatal(err)
		}
	}
	if wiped {
		next, dir = 0, w.t.TempDir()
	}
	w.instances[i] = &instance{next: next, fixture: newFixture(w.t, func(c *Config) { c.Dir = dir })}
	if wiped {
		w.apply(w.instances[i], len(w.log))
	}
}

// missing returns a file in which the client differs from the table, or is older than what it was said to have.
func (w *world) missing(c *changesClient, atEnd bool) string {
	for _, id := range slices.Sorted(maps.Keys(w.rows)) {
		have, ok := c.files[id]
		row := w.rows[id]
		if atEnd && (c.q.includes(row) != ok || ok && have != replica{row.GetVersion(), row.GetPath()}) {
			return fmt.Sprintf("%s is %+v (%v), and the table has %v", id, have, ok, row)
		}
		var since []*tidemarkv1.FileState // what the client may have
		for _, h := range w.history[id] {
			if max(h.GetPosition().GetOffset(), h.GetSilentOffset()) < c.complete {
				since = since[:0]
			}
			since = append(since, h)
		}
		old := len(since) > 0 && since[0].GetPosition().GetOffset() < c.complete
		if fits := slices.ContainsFunc(since, func(h *tidemarkv1.FileState) bool {
			return c.q.includes(h) == ok && (!ok || have == replica{h.GetVersion(), h.GetPath()})
		}); old && !fits {
			return fmt.Sprintf("%s is %+v (%v), complete to %d, the table had %v", id, have, ok, c.complete-1, since)
		}
	}
	return ""
}

// run returns the first difference that a client has, "" if there is none.
func runWorld(t *testing.T, seed uint64, f fault) string {
	t.Helper()
	w := newWorld(t, seed)
	var clients []*changesClient
	for i := range 6 {
		q := query{workspace: "ws", status: []string{statusActive, statusAll, statusTrashed}[i%3], kind: kindFile}
		if i%2 == 1 {
			q.prefix = "/a"
		}
		clients = append(clients, &changesClient{q: q, fault: f})
	}
	for range 1000 {
		i := w.random.IntN(len(w.instances))
		switch n := w.random.IntN(100); {
		case n < 5:
			w.epoch()
		case n < 7:
			w.disturb()
		case n < 8:
			w.compact()
		case n < 15:
			w.apply(w.instances[i], w.random.IntN(12))
		case n < 20:
			w.poll(w.instances[i])
		case n < 21:
			w.restart(i, w.random.IntN(2) == 0)
		default:
			c := clients[w.random.IntN(len(clients))]
			if w.step(c, w.instances[i]) {
				if m := w.missing(c, false); m != "" {
					return m
				}
				c.started = w.random.IntN(10) > 0
			}
		}
	}
	for _, in := range w.instances {
		w.apply(in, len(w.log))
		w.poll(in)
	}
	for i, c := range clients {
		for tries := 0; !w.step(c, w.instances[w.random.IntN(2)]); tries++ {
			if tries == 1000 {
				return "a client does not come to the end"
			}
		}
		if m := w.missing(c, true); m != "" {
			return fmt.Sprintf("client %d (%+v): %s", i, c.q, m)
		}
		if c.complete != w.events && !w.early {
			return fmt.Sprintf("client %d is complete to %d of %d events", i, c.complete, w.events)
		}
	}
	return ""
}

// Whatever happens between the requests of a client, and whichever instances answer them, it ends with the files of its
// query. It never had less than complete_to says.
func TestChangesEqualTheTable(t *testing.T) {
	for seed := range uint64(40) {
		if m := runWorld(t, seed, none); m != "" {
			t.Errorf("seed %d: %s", seed, m)
		}
	}
}

// The same judge finds clients that use the changes wrongly.
func TestWrongClientsAreFound(t *testing.T) {
	for name, f := range map[string]fault{"late hand-over": lateHandOver, "ignores deletes": ignoresDeletes} {
		found := 0
		for seed := range uint64(10) {
			if runWorld(t, seed, f) != "" {
				found++
			}
		}
		if found < 3 {
			t.Errorf("%s: found with %d of 10 seeds", name, found)
		}
	}
}

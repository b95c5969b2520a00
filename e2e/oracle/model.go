// Package oracle says what tidemark should have made of a log of events, and where it did not.
//
// It promises to share no code with what it judges: it is written from the words of the design and of proto/ alone, with plain maps, one event
// after the other. It may be slow. It reads a cluster but never writes to one.
package oracle

import (
	"fmt"
	"maps"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Model is what the logs of some partitions of the events topic should have become.
type Model struct {
	topic      string
	partitions int
	once       bool // see Judge.Once

	rows     map[string]*row           // by key
	notices  map[string]*notice        // by position
	versions map[string]map[int64]*row // by key and version
	index    map[string]map[int64]*row // the same, without those of folders
	dead     map[string]*deadLetter    // by position
	counts   map[string]*count         // by scope
	log      []*entry                  // as read
	events   map[string]*entry         // the same by position

	folded map[string]bool // by key and event id: whether its time was believed when it was folded first
	beyond map[string]bool // the same: came too late for the window

	Records, Accepted, Passed, Late, Duplicates int
	// Silent counts the events that changed nothing shown, Own the records that the files group wrote itself.
	Silent, Own int
	// TwiceUndated and TwiceTied count ids that a row had forgotten and folded again: those without a time that could be
	// believed, and those of the second that fills its window. The window cannot tell them. Any other, in twice, is a mistake in
	// the rules that model and product share.
	TwiceUndated, TwiceTied int
	twice                   []string
}

// An entry is a record of the log and the event that it holds, nil when it holds none.
type entry struct {
	*kgo.Record
	event    *event
	answered bool // a 200 named its position
}

type notice struct {
	event         *event
	position      string
	late          bool
	before, after *row
	payload       []byte
}

type deadLetter struct {
	record *kgo.Record
	reason string
}

// NewModel folds the records of the events topic, which must come in the order of each partition's log.
func NewModel(topic string, partitions int, records []*kgo.Record) *Model {
	m := &Model{
		topic: topic, partitions: partitions, rows: map[string]*row{}, notices: map[string]*notice{},
		versions: map[string]map[int64]*row{}, index: map[string]map[int64]*row{}, dead: map[string]*deadLetter{}, counts: map[string]*count{},
		events: map[string]*entry{}, folded: map[string]bool{}, beyond: map[string]bool{},
	}
	for _, r := range records {
		m.add(r)
	}
	return m
}

// absorb takes over what files and workspaces have become in other partitions, and no more: a long history with all that came
// of it would not fit into memory.
func (m *Model) absorb(part *Model) {
	maps.Copy(m.rows, part.rows)
	maps.Copy(m.counts, part.counts)
}

func (m *Model) add(r *kgo.Record) {
	at := position(r.Partition, r.Offset)
	m.Records++
	e, reason := m.understand(r)
	m.events[at] = &entry{Record: r, event: e}
	m.log = append(m.log, m.events[at])
	if reason != "" {
		m.dead[at] = &deadLetter{r, reason}
		return
	}
	key := joinKey(e.scope, e.object)
	before := m.rows[key]
	switch {
	case e.walk:
		m.Own++
		if before != nil {
			m.rows[key] = before.visited(r.Offset)
		}
		return
	case e.passed != nil:
		m.Own++
		if before == nil {
			return // nothing is known of the entry: there is nothing to change
		}
	case !e.touches():
		m.Passed++
		m.note(&notice{event: e, position: at, payload: r.Value})
		return
	}
	if before != nil {
		duplicate, beyond := before.remembers(e)
		switch {
		case duplicate:
			m.Duplicates++
			return
		case beyond && !e.replayed && e.passed == nil:
			m.dead[at] = &deadLetter{r, beyondWindow}
			m.beyond[key+"\x00"+e.id] = true
			return
		}
	}
	m.fold(r, e, key, before)
}

// fold folds an accepted event, and notes what comes of it.
func (m *Model) fold(r *kgo.Record, e *event, key string, before *row) {
	at := position(r.Partition, r.Offset)
	after, late, silent := before.apply(e, r.Partition, r.Offset)
	if after == before {
		m.Silent++
		return
	}
	tied := before.filledBySecondOf(e)
	if before != nil {
		before.seen = nil // of all versions of a row only the last is asked: a long history would not fit into memory
	}
	m.rows[key] = after
	m.Accepted++
	id := key + "\x00" + e.id
	switch believed, again := m.folded[id]; {
	case !again:
		m.folded[id] = e.believed() != nil
	case !believed || e.believed() == nil:
		m.TwiceUndated++
	case tied, e.replayed:
		m.TwiceTied++
	default:
		m.twice = append(m.twice, at)
	}
	if silent {
		m.Silent++
		if e.passed == nil {
			m.note(&notice{event: e, position: at, payload: r.Value})
		}
		return
	}
	keep(m.versions, key, after)
	if !after.folder || before != nil && !before.folder { // search holds files
		keep(m.index, key, after)
	}
	if late {
		m.Late++
	}
	m.note(&notice{event: e, position: at, late: late, before: before, after: after, payload: r.Value})
}

func keep(rows map[string]map[int64]*row, key string, r *row) {
	if rows[key] == nil {
		rows[key] = map[int64]*row{}
	}
	rows[key][r.version] = r
}

func (m *Model) note(n *notice) {
	m.notices[n.position] = n
	c := m.counts[n.event.scope]
	if c == nil {
		c = &count{scope: n.event.scope, byType: map[string]int64{}, types: map[string]bool{}, members: map[string]membership{}}
		m.counts[n.event.scope] = c
	}
	c.add(n.event, n.before, n.after, n.position)
}

// understand decodes a record, or says why it is a dead letter. One that lies where it does not belong is an event all the same.
func (m *Model) understand(r *kgo.Record) (*event, string) {
	if r.Value == nil {
		return nil, nullValue
	}
	e, reason := parse(r.Value, r.Timestamp)
	if reason != "" {
		return nil, reason
	}
	e.replayed = header(r, "tidemark-replay") != ""
	if len(r.Key) > 0 && string(r.Key) != e.scope {
		return e, keyMismatch
	}
	if m.partitionOf(e.scope) != int(r.Partition) {
		return e, wrongPart
	}
	for _, h := range r.Headers { // they repeat what the JSON says; a null says nothing
		if h.Value == nil {
			continue
		}
		if says, repeats := map[string]string{"ce_id": e.id, "ce_type": e.name, "ce_subject": e.object}[h.Key]; repeats && says != string(h.Value) {
			return e, keyMismatch
		}
	}
	if e.walk = header(r, "tidemark-walk") != ""; !e.walk && header(r, "tidemark-cause") != "" {
		if reason := e.follow(r.Value); reason != "" {
			return e, reason
		}
	}
	return e, ""
}

// partitionOf asks the client library that the harness reads with, which follows Java's default partitioner.
func (m *Model) partitionOf(scope string) int { return Partition(m.topic, scope, m.partitions) }

// Partition is where Kafka's own clients put a record with this key.
func Partition(topic, key string, partitions int) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic(topic).Partition(&kgo.Record{Key: []byte(key)}, partitions)
}

// header returns the value of a header; empty when there is none.
func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// joinKey writes a record's key: "workspace/file", each part escaped for "/", "%", control bytes and a leading "_".
func joinKey(scope, object string) string {
	if object == "" {
		return escape(scope)
	}
	return escape(scope) + "/" + escape(object)
}

func escape(part string) string {
	var out strings.Builder
	for i := range len(part) {
		c := part[i]
		if c == '/' || c == '%' || c < ' ' || c == 0x7f || i == 0 && c == '_' {
			fmt.Fprintf(&out, "%%%02X", c)
		} else {
			out.WriteString(part[i : i+1])
		}
	}
	return out.String()
}

// States returns what each file has become, by key, without what depends on where and when its events were written. In a workspace
// with folders that are the last event and the number of versions too: the event of an entry lies where there was room for it.
func (m *Model) States() map[string]string {
	states, folders := map[string]string{}, map[string]bool{}
	for _, r := range m.rows {
		folders[r.scope] = folders[r.scope] || r.folder
	}
	for key, r := range m.rows {
		d := r.doc()
		for _, name := range []string{"position", "created_at", "updated_at", "deleted_at"} {
			delete(d, name)
		}
		if folders[r.scope] {
			for _, name := range []string{"version", "last_event", "last_event_id", "actor_id"} {
				delete(d, name)
			}
		}
		states[key] = d.diff(nil)
	}
	return states
}

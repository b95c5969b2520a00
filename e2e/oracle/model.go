// Package oracle computes what tidemark should have derived from the events topic, and reports the differences.
//
// It promises to share no code with what it judges: it is written from the text of docs/design.md and proto/ alone,
// with plain maps, one event after the other. It may be slow. It reads from a cluster and never writes.
package oracle

import (
	"fmt"
	"maps"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Model is the state and the outputs that follow from some partitions of the events topic.
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

	folded map[string]bool // by key and event id: whether it had a usable time of its sender when it was folded first
	beyond map[string]bool // by key and event id: it came too late for the window

	Records, Accepted, Passed, Late, Duplicates int
	// Silent counts the events without a displayed change, Own the records that the files group wrote itself.
	Silent, Own int
	// TwiceUndated and TwiceTied count ids that a row had dropped and folded again: those without a usable time, and
	// those of the second that fills its window. The window cannot recognize them. Any other, in twice, is a mistake
	// in the rules that model and product share.
	TwiceUndated, TwiceTied int
	twice                   []string
}

// An entry is a record of the log and its event, nil when it is a dead letter.
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

// NewModel folds records of the events topic, in the order of each partition.
func NewModel(topic string, partitions int, records []*kgo.Record) *Model {
	m := &Model{
		topic: topic, partitions: partitions, rows: map[string]*row{}, notices: map[string]*notice{},
		versions: map[string]map[int64]*row{}, index: map[string]map[int64]*row{}, dead: map[string]*deadLetter{},
		counts: map[string]*count{},
		events: map[string]*entry{}, folded: map[string]bool{}, beyond: map[string]bool{},
	}
	for _, r := range records {
		m.add(r)
	}
	return m
}

// absorb adds the files and workspaces of other partitions, and no more: a long history with all its outputs would
// not fit into memory.
func (m *Model) absorb(part *Model) {
	maps.Copy(m.rows, part.rows)
	maps.Copy(m.counts, part.counts)
}

func (m *Model) add(r *kgo.Record) {
	at := position(r.Partition, r.Offset)
	m.Records++
	e, reason := m.decode(r)
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
			m.rows[key] = before.walked(r.Offset)
		}
		return
	case e.inherits != nil:
		m.Own++
		if before == nil {
			return // the entry does not exist
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
		case beyond && !e.replayed && e.inherits == nil:
			m.dead[at] = &deadLetter{r, beyondWindow}
			m.beyond[key+"\x00"+e.id] = true
			return
		}
	}
	m.fold(r, e, key, before)
}

// fold folds an accepted event, and adds its outputs.
func (m *Model) fold(r *kgo.Record, e *event, key string, before *row) {
	at := position(r.Partition, r.Offset)
	after, late, silent := before.apply(e, r.Partition, r.Offset)
	if after == before {
		m.Silent++
		return
	}
	tied := before.filledBySecondOf(e)
	if before != nil {
		before.seen = nil // only the last version's is used: a long history would not fit into memory
	}
	m.rows[key] = after
	m.Accepted++
	id := key + "\x00" + e.id
	// The arrival, which orders an event whose time cannot be read, is another one for each copy.
	dated := e.occurred != nil && e.orderTime() != nil
	switch before, again := m.folded[id]; {
	case !again:
		m.folded[id] = dated
	case !before || !dated:
		m.TwiceUndated++
	case tied, e.replayed:
		m.TwiceTied++
	default:
		m.twice = append(m.twice, at)
	}
	if silent {
		m.Silent++
		if e.inherits == nil {
			m.note(&notice{event: e, position: at, payload: r.Value})
		}
		return
	}
	keep(m.versions, key, after)
	if !after.folder || before != nil && !before.folder { // search has files only
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
		c = &count{
			scope: n.event.scope, byType: map[string]int64{}, types: map[string]bool{},
			members: map[string]membership{},
		}
		m.counts[n.event.scope] = c
	}
	c.add(n.event, n.before, n.after, n.position)
}

// decode decodes a record, or returns why it is a dead letter. One in the wrong partition has an event too.
func (m *Model) decode(r *kgo.Record) (*event, string) {
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
	for _, h := range r.Headers { // they repeat members of the JSON; null headers do not count
		if h.Value == nil {
			continue
		}
		if says, repeats := map[string]string{
			"ce_id": e.id, "ce_type": e.name,
			"ce_subject": e.object,
		}[h.Key]; repeats && says != string(h.Value) {
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

// partitionOf uses franz-go's partitioner, which follows that of the Java client.
func (m *Model) partitionOf(scope string) int { return Partition(m.topic, scope, m.partitions) }

// Partition is the partition that Kafka's Java client chooses for a key.
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

// States returns the state of each file, by key, without the fields that depend on when and where its events were
// written. In a workspace with folders these include the last event and the version: the order of an entry's events
// may differ.
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

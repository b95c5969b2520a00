package oracle

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// A count is the state of a workspace in the model.
type count struct {
	scope                                  string
	files, bytes, trashed, events, notices int64
	byType                                 map[string]int64
	types                                  map[string]bool // with a count of their own
	members                                map[string]membership
	last                                   *int64
	position                               string
}

type membership struct {
	in         bool
	at         *int64
	lastNotice int64 // the number of the notice that changed it
}

// Bounds of a workspace's row.
const (
	maxTypes   = 1000
	maxMembers = 10_000
	maxLeavers = 1000
	typeLength = 255
)

// add counts one notice: what its event did to a file, to the members, and to the number of events.
func (c *count) add(e *event, before, after *row, position string) {
	if e.inherits == nil { // else the folder's event was counted
		c.events++
	}
	c.notices++
	c.position = position
	if at := e.at(); c.last == nil || at > *c.last {
		c.last = &at
	}
	c.addRow(before, -1)
	c.addRow(after, +1)
	if joined, left := e.joins(); joined || left {
		c.addMember(e, joined)
	}
}

func (c *count) addMember(e *event, joined bool) {
	inside, leavers := 0, []string{}
	for id, m := range c.members {
		if m.in {
			inside++
		} else if id != e.member {
			leavers = append(leavers, id)
		}
	}
	m := c.members[e.member]
	if joined && !m.in && inside >= maxMembers {
		return
	}
	if newer(e.orderTime(), &m.at) {
		m.in, m.lastNotice = joined, c.notices
	}
	c.members[e.member] = m
	if !m.in && len(leavers) >= maxLeavers {
		delete(c.members, slices.MinFunc(leavers,
			func(a, b string) int { return cmp.Compare(c.members[a].lastNotice, c.members[b].lastNotice) }))
	}
}

// joins reports whether the event's member joins or leaves.
func (e *event) joins() (joined, left bool) {
	return e.member != "" && strings.HasPrefix(e.name, "added_member_to_"), e.member != "" &&
		strings.HasPrefix(e.name, "removed_member_from_")
}

// membership is the member as the notice has it.
func (e *event) membership() doc {
	joined, left := e.joins()
	if !joined && !left {
		return nil
	}
	d := doc{"id": text(e.member), "left": boolean(left)}
	d.putTime("at", e.orderTime())
	return d
}

func (c *count) addRow(r *row, sign int64) {
	switch {
	case r == nil, r.folder:
	case r.status == "trashed":
		c.trashed += sign
	default:
		c.files += sign
		if r.size != nil {
			c.bytes += sign * *r.size
		}
		c.byType[c.kind(r.texts["mime"])] += sign
	}
}

// kind is the key under which a type is counted: the first types of a workspace keep a key of their own, with or
// without files.
func (c *count) kind(mime string) string {
	mime = mediaType(mime)
	if mime == "" || mime == "unknown" {
		return "unknown"
	}
	if mime == "other" || len(mime) > typeLength {
		return "other"
	}
	if !c.types[mime] {
		if len(c.types) == maxTypes {
			return "other"
		}
		c.types[mime] = true
	}
	return mime
}

// doc is the workspace in the form of the design's JSON; by_type and members are nested JSON with sorted members.
func (c *count) doc() doc {
	d := doc{
		"workspace_id": text(c.scope), "files": number(c.files), "bytes": number(c.bytes), "trashed": number(c.trashed),
		"events": number(c.events), "position": text(c.position),
	}
	d.putTime("last_event_at", c.last)
	var in []string
	for id, m := range c.members {
		if m.in {
			in = append(in, id)
		}
	}
	slices.Sort(in)
	held := maps.Clone(c.byType)
	maps.DeleteFunc(held, func(_ string, files int64) bool { return files == 0 })
	putJSON(d, "by_type", held, len(held) == 0)
	putJSON(d, "members", in, len(in) == 0)
	return d
}

// putJSON adds a nested value. An empty one equals an absent one.
func putJSON(d doc, name string, value any, empty bool) {
	if empty {
		return
	}
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err) // maps of numbers and lists of strings always encode
	}
	d[name] = "json " + string(raw)
}

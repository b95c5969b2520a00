package oracle

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// A count is what the model holds of a workspace.
type count struct {
	scope                                  string
	files, bytes, trashed, events, notices int64
	byType                                 map[string]int64
	types                                  map[string]bool // that are counted by themselves
	members                                map[string]membership
	last                                   *int64
	position                               string
}

type membership struct {
	in    bool
	at    *int64
	heard int64 // which of the workspace's notices said so
}

// Bounds of a workspace's row.
const (
	mostTypes   = 1000
	mostMembers = 10_000
	mostLeavers = 1000
	typeLength  = 255
)

// add counts one notice: what its event did to a file, to the members, and to the number of events.
func (c *count) add(e *event, before, after *row, position string) {
	if e.passed == nil { // else it follows from an event that was counted
		c.events++
	}
	c.notices++
	c.position = position
	if at := e.at(); c.last == nil || at > *c.last {
		c.last = &at
	}
	c.weigh(before, -1)
	c.weigh(after, +1)
	if joined, left := e.joins(); joined || left {
		c.enter(e, joined)
	}
}

func (c *count) enter(e *event, joined bool) {
	inside, leavers := 0, []string{}
	for id, m := range c.members {
		if m.in {
			inside++
		} else if id != e.member {
			leavers = append(leavers, id)
		}
	}
	m := c.members[e.member]
	if joined && !m.in && inside >= mostMembers {
		return
	}
	if newer(e.believed(), &m.at) {
		m.in, m.heard = joined, c.notices
	}
	c.members[e.member] = m
	if !m.in && len(leavers) >= mostLeavers {
		delete(c.members, slices.MinFunc(leavers, func(a, b string) int { return cmp.Compare(c.members[a].heard, c.members[b].heard) }))
	}
}

// joins says whether the event's member comes or goes.
func (e *event) joins() (joined, left bool) {
	return e.member != "" && strings.HasPrefix(e.name, "added_member_to_"), e.member != "" && strings.HasPrefix(e.name, "removed_member_from_")
}

// membership is what the notice says of the member.
func (e *event) membership() doc {
	joined, left := e.joins()
	if !joined && !left {
		return nil
	}
	d := doc{"id": text(e.member), "left": boolean(left)}
	d.putTime("at", e.believed())
	return d
}

func (c *count) weigh(r *row, sign int64) {
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

// kind is what a type is counted as: a workspace's first types each by themselves for ever, whether files have them or not.
func (c *count) kind(mime string) string {
	mime = mediaType(mime)
	if mime == "" || mime == "unknown" {
		return "unknown"
	}
	if mime == "other" || len(mime) > typeLength {
		return "other"
	}
	if !c.types[mime] {
		if len(c.types) == mostTypes {
			return "other"
		}
		c.types[mime] = true
	}
	return mime
}

// doc is the workspace as the design's JSON shows it; by_type and members are written as JSON with sorted members.
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

// putJSON adds a nested value. An empty one and an absent one say the same.
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

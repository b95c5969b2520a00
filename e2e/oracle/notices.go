package oracle

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"reflect"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// judgeNotices compares every notice with the model's. A notice may be repeated byte for byte, unless exactly_once
// was promised.
func (m *Model) judgeNotices(records iter.Seq[*kgo.Record], r *Report) {
	r.check("notices missing", "notices wrong", "notices unexpected", "notices two of one event that differ",
		"notices out of order in a workspace",
		"notices in another partition than the event")
	if m.once {
		r.check("notices repeated")
	}
	first := map[string][sha256.Size]byte{} // by position
	found := 0
	reached := map[string]int64{} // by workspace, the offset of the newest event noticed
	for rec := range records {
		found++
		object, err := strictObject(rec.Value)
		at, _ := object["position"].(string)
		want := m.notices[at]
		if partition, _, _ := strings.Cut(at, ":"); err == nil && partition != strconv.Itoa(int(rec.Partition)) {
			r.Violate("notices in another partition than the event", "%s lies in %d", at, rec.Partition)
			continue
		}
		if err != nil || want == nil {
			r.Violate("notices unexpected", "%q at %q: %v %q", rec.Key, at, err, short(rec.Value))
			continue
		}
		if before, again := first[at]; again {
			if m.once {
				r.Violate("notices repeated", "%s", at)
			}
			if before != sha256.Sum256(rec.Value) {
				r.Violate("notices two of one event that differ", "%s: later it is\n      %s", at, rec.Value)
			}
			continue
		}
		first[at] = sha256.Sum256(rec.Value)
		source := m.events[at]
		scope := want.event.scope
		if source.Offset < reached[scope] {
			r.Violate("notices out of order in a workspace", "%q: %s after offset %d", scope, at, reached[scope])
		}
		reached[scope] = max(reached[scope], source.Offset)
		m.judgeNotice(rec, object, want, r)
	}
	for at := range m.notices {
		if _, ok := first[at]; !ok {
			r.Violate("notices missing", "%s: %s", at, short(m.events[at].Value))
		}
	}
	r.count("notices: records / unique / expected", found, len(first), len(m.notices))
}

// maxNotice is the maximum size of a notice with its payload, in bytes.
const maxNotice = 1 << 20

func (m *Model) judgeNotice(rec *kgo.Record, object map[string]any, want *notice, r *Report) {
	e := want.event
	expected := doc{
		"op_id": text(opID(e)), "event": text(e.name), "event_id": text(e.id), "workspace_id": text(e.scope),
		"position": text(want.position), "at": instant(e.at()), "late": boolean(want.late),
	}
	expected.put("file_id", e.object)
	expected.put("actor_id", e.actor)
	if len(e.unreadable) > 0 {
		putJSON(expected, "unreadable", e.unreadable, false)
	}
	key := joinKey(e.scope, "")
	if e.touches() {
		key = joinKey(e.scope, e.object)
	}
	if want.after != nil {
		expected["version"] = number(want.after.version)
	}
	got := toDoc(object, "before", "after", "payload", "payload_omitted", "member", "cause")
	d := got.diff(expected) + memberDoc(object).diff(e.membership()) +
		nested(object["before"]).diff(want.before.doc()) + nested(object["after"]).diff(want.after.doc())
	if cause, _ := object["cause"].(map[string]any); !reflect.DeepEqual(cause, e.cause) {
		d += fmt.Sprintf("cause: found %v, wanted %v; ", cause, e.cause)
	}
	if string(rec.Key) != key {
		d += fmt.Sprintf("key: found %q, wanted %q", rec.Key, key)
	}
	if d != "" {
		r.Violate("notices wrong", "%s (%s): %s", want.position, e.name, d)
	}
	if _, omitted := object["payload_omitted"]; omitted {
		if len(rec.Value)+len(want.payload) <= maxNotice || object["payload"] != nil {
			r.Violate("notices wrong", "%s: the payload of %d bytes is omitted from a notice of %d", want.position,
				len(want.payload), len(rec.Value))
		}
		return
	}
	source, err := strictObject(want.payload)
	if err != nil || !reflect.DeepEqual(object["payload"], any(source)) {
		r.Violate("notices wrong", "%s: payload is not the record's JSON", want.position)
	}
}

// opID identifies an operation: retries of an event have the same one. Several files may have events with one id.
func opID(e *event) string {
	if e.object == "" {
		return joinKey(e.scope, e.id)
	}
	return joinKey(e.scope, e.id) + "/" + escape(e.object)
}

// memberDoc is the member that joined or left, by the notice.
func memberDoc(object map[string]any) doc {
	member, ok := object["member"].(map[string]any)
	if !ok {
		return nil
	}
	return toDoc(member)
}

func nested(value any) doc {
	object, ok := value.(map[string]any)
	if !ok {
		return nil
	}
	return toDoc(object)
}

// judgeWorkspaces compares the last row of each workspace.
func (m *Model) judgeWorkspaces(records iter.Seq[*kgo.Record], r *Report) {
	r.check("workspaces missing", "workspaces wrong", "workspaces unexpected")
	last := map[string]*tidemarkv1.WorkspaceState{}
	found := 0
	for rec := range records {
		found++
		state := new(tidemarkv1.WorkspaceState)
		if err := proto.Unmarshal(rec.Value, state); err != nil || rec.Value == nil {
			r.Violate("workspaces wrong", "%q: %v", rec.Key, err)
			continue
		}
		last[string(rec.Key)] = state
	}
	for scope, want := range m.counts {
		key := joinKey(scope, "")
		state := last[key]
		if state == nil {
			r.Violate("workspaces missing", "%q", scope)
			continue
		}
		delete(last, key)
		if d := countOf(state).doc().diff(want.doc()); d != "" {
			r.Violate("workspaces wrong", "%q: %s", scope, d)
		}
	}
	for key := range last {
		r.Violate("workspaces unexpected", "%q", key)
	}
	r.count("workspaces: records / expected", found, len(m.counts))
}

func countOf(w *tidemarkv1.WorkspaceState) *count {
	c := &count{
		scope: w.GetWorkspaceId(), files: w.GetFiles(), bytes: w.GetBytes(), trashed: w.GetTrashed(),
		events: w.GetEvents(),
		byType: w.GetByType(), members: map[string]membership{}, last: w.LastEventAt,
		position: position(w.GetPosition().GetPartition(), w.GetPosition().GetOffset()),
	}
	for _, m := range w.GetMembers() {
		c.members[m.GetId()] = membership{in: !m.GetLeft()}
	}
	return c
}

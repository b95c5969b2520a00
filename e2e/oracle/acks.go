package oracle

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"time"

	"tidemark/e2e/gen"
	"tidemark/e2e/provider"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Sent is the history that was sent through the ingress, the senders' notes by workspace, and the positions of the
// records that other producers wrote to the topic. Judging empties it.
type Sent struct {
	History *gen.History
	Notes   [][]provider.Note
	Foreign map[string]bool
}

// judgeSenders compares the answers to a partition's workspaces with its log: every event with a 200 is at the
// answered position; no refused webhook is in the log; each workspace's events are in the order in which they were
// sent.
func (m *Model) judgeSenders(partition int, by *Sent, r *Report) {
	r.check("acknowledged events lost", "acknowledged events changed", "acknowledged out of order",
		"never acknowledged",
		"valid events refused", "refused events accepted", "refused events in the log", "log order is not send order",
		"records nobody sent",
		"copies without an answer changed")
	sent := map[string]sentEvent{}
	for i := range by.History.Workspaces { // other partitions' are judged at the same time
		if m.partitionOf(by.History.Workspaces[i].ID) != partition {
			continue
		}
		w := by.History.Workspaces[i]
		rank := 0
		last := int64(-1)
		for _, n := range by.Notes[i] {
			key := w.ID + "\x00" + n.EventID
			if _, again := sent[key]; !again {
				sent[key] = sentEvent{refused: n.Refused, rank: rank, body: n.Body, canary: w.Canary}
				rank++
			}
			m.judgeNote(w, n, &last, r)
		}
		by.Notes[i], by.History.Workspaces[i].Deliveries = nil, nil // not needed any more, and they may be gigabytes
	}
	reached := map[string]int{} // by workspace
	for _, rec := range m.log {
		at := position(rec.Partition, rec.Offset)
		if by.Foreign[at] {
			continue
		}
		e := rec.event
		if e != nil && (e.walk || e.inherits != nil) { // see judgeOwn
			continue
		}
		if e == nil {
			r.Violate("records nobody sent", "%s: no event: %q", at, short(rec.Value))
			continue
		}
		key := e.scope + "\x00" + e.id
		s, known := sent[key]
		if !known || s.refused {
			r.Violate(map[bool]string{true: "refused events in the log", false: "records nobody sent"}[known],
				"%s: %q", at, short(rec.Value))
			continue
		}
		if !rec.answered { // a copy without a 200 may be the one that was folded
			if d := kept(rec.Record, gen.Workspace{ID: e.scope, Canary: s.canary}, s.body); d != "" {
				r.Violate("copies without an answer changed", "%q: %s at %s: %s", e.scope, e.id, at, d)
			}
		}
		if !s.found {
			if s.rank < reached[e.scope] {
				r.Violate("log order is not send order", "%q: event %s, sent as number %d, lies after number %d",
					e.scope, e.id, s.rank, reached[e.scope])
			}
			reached[e.scope] = max(reached[e.scope], s.rank)
			s.found = true
			sent[key] = s
		}
	}
}

type sentEvent struct {
	refused, found bool
	rank           int // in the order of first deliveries
	body           []byte
	canary         string
}

// slack is how much the times of ingress, broker and sender may differ: an attempt times out after 5 s, and each may
// have waited for a CPU.
const slack = 30 * time.Second

// judgeNote compares one delivery with the record that the answer named.
func (m *Model) judgeNote(w gen.Workspace, n provider.Note, last *int64, r *Report) {
	switch {
	case n.Refused && n.Outcome == provider.OK:
		r.Violate("refused events accepted", "%q: %s at %s: %q", w.ID, n.EventID, n.Position, short(n.Body))
		return
	case n.Refused:
		return
	case n.Outcome != provider.OK && n.Status >= 400 && n.Status < 500:
		r.Violate("valid events refused", "%q: %s: %d %s for %q", w.ID, n.EventID, n.Status, n.Answer, short(n.Body))
		return
	case n.Outcome != provider.OK:
		r.Violate("never acknowledged", "%q: %s after %d attempts: %s", w.ID, n.EventID, n.Attempts, n.Answer)
		return
	}
	rec := m.events[n.Position]
	if rec == nil {
		r.Violate("acknowledged events lost", "%q: %s at %q", w.ID, n.EventID, n.Position)
		return
	}
	rec.answered = true
	if d := kept(rec.Record, w, n.Body); d != "" {
		r.Violate("acknowledged events changed", "%q: %s at %s: %s", w.ID, n.EventID, n.Position, d)
	}
	if e := rec.event; e != nil {
		if received := time.UnixMicro(e.received); received.After(n.At) || n.At.Sub(received) > slack ||
			rec.Timestamp.Sub(received).Abs() > slack {
			r.Violate("acknowledged events changed", "%q: %s at %s: received at %v, recorded at %v, answered at %v",
				w.ID, n.EventID, n.Position, received, rec.Timestamp, n.At)
		}
	}
	if rec.Offset <= *last {
		r.Violate("acknowledged out of order", "%q: %s at %s after offset %d", w.ID, n.EventID, n.Position, *last)
	}
	*last = rec.Offset
}

var receivedForm = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z$`)

// kept describes how a record differs from the sent body: every member must be unchanged, and only received_at,
// partition_key and the three canonical names are added.
func kept(rec *kgo.Record, w gen.Workspace, body []byte) string {
	sent, err := strictObject(body)
	if err != nil {
		return err.Error()
	}
	found, err := strictObject(rec.Value)
	if err != nil {
		return err.Error()
	}
	e, reason := parseObject(sent, rec.Timestamp)
	if reason != "" {
		return reason
	}
	want := maps.Clone(sent)
	want["event"], want["event_id"], want["workspace_id"], want["partition_key"] = e.name, e.id, w.ID, w.ID
	received, _ := found["received_at"].(string)
	want["received_at"] = received
	headers := map[string]string{}
	for _, h := range rec.Headers {
		headers[h.Key] = string(h.Value)
	}
	switch {
	case !receivedForm.MatchString(received):
		return fmt.Sprintf("received_at is %q", received)
	case !reflect.DeepEqual(found, want):
		return fmt.Sprintf("found %q, sent %q", rec.Value, body)
	case found["canary"] != w.Canary:
		return fmt.Sprintf("canary %v", found["canary"])
	case string(rec.Key) != w.ID:
		return fmt.Sprintf("record key %q", rec.Key)
	case headers["ce_specversion"] != "1.0" || headers["ce_id"] != e.id || headers["ce_type"] != e.name ||
		headers["ce_subject"] != e.object ||
		headers["ce_source"] == "" || headers["content-type"] != "application/json":
		return fmt.Sprintf("headers %v", headers)
	}
	return ""
}

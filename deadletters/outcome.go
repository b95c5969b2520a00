package deadletters

import "fmt"

// Values of Outcome.Result beside Replayed and Dropped.
const (
	WouldReplay = "would_replay"
	WouldDrop   = "would_drop"
	Skipped     = "skipped"
	Failed      = "failed"
)

// An Outcome is what was done with one entry, or would be done.
type Outcome struct {
	Entry      string `json:"entry"` // Source.Text
	Result     string `json:"result"`
	Detail     string `json:"detail,omitempty"`      // why it was skipped, or how it failed
	ReplayedTo string `json:"replayed_to,omitempty"` // also of an entry that was sent, and could not be marked

	WorkspaceID string `json:"workspace_id,omitempty"` // with ReplayedTo, the address of the new event
}

// begin reports how many entries are selected, and the outcomes of those that the filter names and that are not tried.
// It returns the function that reports the others.
func (r *Result) begin(entries []*Entry, o Options) (each func(Outcome)) {
	if o.Selected != nil {
		o.Selected(len(entries) + len(r.Already) + len(r.Unknown))
	}
	if o.Each == nil {
		return func(Outcome) {}
	}
	for _, e := range r.Already {
		o.Each(Outcome{
			Entry: e.ID, Result: Skipped, Detail: "it was " + e.Resolved + " before", WorkspaceID: e.WorkspaceID,
		})
	}
	for _, id := range r.Unknown {
		o.Each(Outcome{Entry: id, Result: Failed, Detail: ErrNoEntry.Error()})
	}
	return o.Each
}

// done counts and reports an entry; why says why it was skipped, or is empty.
func (b *batch) done(e *Entry, why string) {
	b.result.count(e, why)
	outcome := Outcome{Entry: e.ID, Result: b.as, ReplayedTo: e.ReplayedTo, WorkspaceID: e.WorkspaceID}
	switch {
	case why != "":
		outcome.Result, outcome.Detail = Skipped, truncated(why, maxShown)
	case b.sender != nil:
	case b.as == Replayed:
		outcome.Result = WouldReplay
	default:
		outcome.Result = WouldDrop
	}
	b.each(outcome)
}

// failed reports an entry that stays open.
func (b *batch) failed(e *Entry, err error) {
	detail := err.Error()
	if e.ReplayedTo != "" {
		detail = fmt.Sprintf("it was sent, and is still open: %v; a repeat is safe", err)
	}
	b.each(Outcome{
		Entry: e.ID, Result: Failed, Detail: truncated(detail, maxShown), ReplayedTo: e.ReplayedTo,
		WorkspaceID: e.WorkspaceID,
	})
}

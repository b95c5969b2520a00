package deadletters

import "time"

// entryJSON is the JSON form of an entry.
type entryJSON struct {
	Entry       string    `json:"entry"` // Source.Text
	Reason      string    `json:"reason"`
	Message     string    `json:"message,omitempty"`
	Sink        string    `json:"sink,omitempty"`
	Answer      string    `json:"answer,omitempty"` // the destination's, to the sink
	WorkspaceID string    `json:"workspace_id,omitempty"`
	EventID     string    `json:"event_id,omitempty"`
	First       time.Time `json:"first_failed_at"`
	Last        time.Time `json:"last_failed_at"`
	Times       int       `json:"times"`
	DLQPosition string    `json:"dlq_position"`
	Resolved    string    `json:"resolved,omitempty"`
	ReplayedTo  string    `json:"replayed_to,omitempty"`

	ValueOmitted int64 `json:"value_omitted,omitempty"` // its length
}

// Describe returns the entry for encoding as JSON.
func (q *Queue) Describe(e *Entry) any { return q.describe(e) }

func (q *Queue) describe(e *Entry) *entryJSON {
	if e == nil {
		return nil
	}
	return &entryJSON{
		Entry: e.Source.Text(q.Events()), Reason: e.Reason, Message: e.Message, Sink: e.Source.Sink, Answer: e.Answer,
		WorkspaceID: e.WorkspaceID, EventID: e.EventID, First: e.First, Last: e.Last, Times: e.Times,
		DLQPosition: e.DLQPosition(), Resolved: e.Resolved, ReplayedTo: e.ReplayedTo, ValueOmitted: e.ValueOmitted,
	}
}

type groupJSON struct {
	Reason  string     `json:"reason"`
	Entries int        `json:"entries"`
	Records int        `json:"records"`
	First   time.Time  `json:"first_failed_at"`
	Last    time.Time  `json:"last_failed_at"`
	Example *entryJSON `json:"example"`
}

func (q *Queue) describeGroups(entries []*Entry) []groupJSON {
	groups := []groupJSON{}
	for _, g := range Groups(entries) {
		groups = append(groups, groupJSON{g.Reason, g.Entries, g.Records, g.First, g.Last, q.describe(g.Example)})
	}
	return groups
}

type pageJSON struct {
	Entries []*entryJSON `json:"entries"`
	Next    *string      `json:"next_cursor"` // null at the end
	Total   int          `json:"total"` // entries that match, on all pages
}

type tallyJSON struct {
	Reason  string     `json:"reason"`
	Done    int        `json:"done"`
	Left    int        `json:"left,omitempty"`
	Why     string     `json:"why,omitempty"`
	Example *entryJSON `json:"left_example,omitempty"`
}

type resultJSON struct {
	DryRun  bool        `json:"dry_run"`
	Done    int         `json:"done"`
	Left    int         `json:"left"`
	Reasons []tallyJSON `json:"reasons"`

	Already []*entryJSON `json:"already,omitempty"` // entries named by the request that were resolved before
	Unknown []string     `json:"unknown,omitempty"` // and those that are not dead letters
}

// DescribeResult returns the result for encoding as JSON.
func (q *Queue) DescribeResult(r *Result) any {
	out := resultJSON{DryRun: r.DryRun, Done: r.Done, Left: r.Skipped, Reasons: []tallyJSON{}}
	for _, t := range r.Tallies {
		out.Reasons = append(out.Reasons, tallyJSON{t.Reason, t.Done, t.Skipped, t.Why, q.describe(t.Example)})
	}
	for _, e := range r.Already {
		out.Already = append(out.Already, q.describe(e))
	}
	for _, s := range r.Unknown {
		out.Unknown = append(out.Unknown, s.Text(q.Events()))
	}
	return out
}

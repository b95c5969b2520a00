package views

import (
	"context"
	"time"
)

// topicIDs are the ids of the topics that may be deleted and recreated while the copies are read.
type topicIDs struct {
	files, workspaces string // with the cluster's
	events            string
}

// topicsInterval is how often the ids of the topics are compared. They are compared at once when a topic ends before
// what was read of it.
const topicsInterval = 10 * time.Second

// compareTopics discards a copy whose topic was recreated, and what is known of an events topic that was: offsets of
// one topic say nothing about another one of the same name.
func (p *progress) compareTopics(ctx context.Context, source offsetSource) {
	ids, err := source.topicIDs(ctx)
	if err != nil {
		p.log.WarnContext(ctx, "cannot look up the ids of the topics", "error", err)
		return
	}
	p.files.compareTopic(ids.files)
	p.workspaces.compareTopic(ids.workspaces)
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	for _, t := range []*table{p.files, p.workspaces} {
		if old := t.logID.Load(); t.topicID.Load() != nil && (old == nil || *old != ids.events) {
			t.logID.Store(nil) // until the offsets of the old topic are forgotten
			changed = true
		}
	}
	if !changed {
		return
	}
	p.log.WarnContext(ctx, "offsets of events are read again", "events_topic_id", ids.events)
	for i := range p.lastResponse {
		p.resetEvents(i)
	}
	p.files.logID.Store(&ids.events)
	p.workspaces.logID.Store(&ids.events)
}

// resetEvents forgets the offsets of events of a partition.
func (p *progress) resetEvents(i int) {
	for _, c := range p.coverages {
		c.frontiers[i].resetEvents()
	}
	p.pendingCounts[i] = nil
}

// compareTopic requests that a copy of another topic than the present one is discarded.
func (t *table) compareTopic(id string) {
	if old := t.topicID.Load(); old != nil && *old != id {
		t.recreated.Store(true)
		t.requestRestart("the topic was recreated")
	}
}

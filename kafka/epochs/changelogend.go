package epochs

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka/committed"
)

// raiseChangelogEnd notes that the changelog is known to reach an offset.
func (p *partitionEpochs) raiseChangelogEnd(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if next > p.changelogEnd.Offset {
		p.changelogEnd.Offset = next
		p.metadata.Store(p.changelogEnd.Metadata())
	}
}

// minEnd returns the least end that a partition of the table can have by the group's commits; 0 when they say nothing.
// An owner that recovered less would process the next records with old rows, or with none. goka asks after it has
// joined the group, so the former owner cannot commit any more.
func (e *Epochs) minEnd(ctx context.Context, table string, partition int32) (int64, error) {
	var commits kadm.OffsetResponses
	err := retryCoordinator(ctx, func() (err error) {
		if commits, err = kadm.NewClient(e.client).FetchOffsets(kadm.RequireStable(ctx), e.conf.Name); err == nil {
			err = commits.Error()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("fetch the commits of group %s: %w", e.conf.Name, err)
	}
	var least int64
	for topic, offsets := range commits {
		commit, found := offsets[partition]
		if !found {
			continue
		}
		switch end, found := committed.ParseChangelogEnd(commit.Metadata); {
		case !found:
		case end.Table != e.tableID:
			return 0, fmt.Errorf(
				"%s/%d: the group's commit in %s belongs to rows of another topic id of this table (%s, now %s): "+
					"the table was deleted and created again, and lacks the rows of all records before offset %d",
				table, partition, topic, end.Table, e.tableID, commit.At)
		default:
			least = max(least, end.Offset)
		}
	}
	if p := e.partition(partition); p != nil {
		p.raiseChangelogEnd(least)
	}
	return least, nil
}

package epochs

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"

	"tidemark/kafka/committed"
)

// wrote notes an offset that the changelog is known to reach.
func (p *partitionEpochs) raiseChangelogEnd(next int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if next > p.changelogEnd.Offset {
		p.changelogEnd.Offset = next
		p.metadata.Store(p.changelogEnd.Metadata())
	}
}

// floor returns the end that a partition of the table has by the group's commits, at least; zero when they say nothing. Whoever
// recovered less would fold what comes next onto old rows, or onto none. Goka asks after it has joined, so no other owner can
// commit any more.
func (e *Epochs) minEnd(ctx context.Context, table string, partition int32) (int64, error) {
	var commits kadm.OffsetResponses
	err := retryCoordinator(ctx, func() (err error) {
		if commits, err = kadm.NewClient(e.client).FetchOffsets(kadm.RequireStable(ctx), e.conf.Name); err == nil {
			err = commits.Error()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the commits of group %s: %w", e.conf.Name, err)
	}
	var floor int64
	for topic, offsets := range commits {
		commit, found := offsets[partition]
		if !found {
			continue
		}
		switch said, found := committed.ParseChangelogEnd(commit.Metadata); {
		case !found:
		case said.Table != e.tableID:
			return 0, fmt.Errorf("%s/%d: the group's commit in %s belongs to rows of another log of this table (%s, now %s): the table was made anew, and has not what was folded before offset %d",
				table, partition, topic, said.Table, e.tableID, commit.At)
		default:
			floor = max(floor, said.Offset)
		}
	}
	if p := e.partition(partition); p != nil {
		p.raiseChangelogEnd(floor)
	}
	return floor, nil
}

// metadata is what a commit of now says of a partition.
func (e *Epochs) metadata(partition int32) string {
	p := e.partition(partition)
	if p == nil {
		return ""
	}
	return p.metadata.Load().(string)
}

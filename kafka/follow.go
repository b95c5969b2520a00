package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka/committed"
)

// A Follower reads a topic without a group, and goes on when it has reached the end. Read stops there.
type Follower struct {
	admin *admin
	topic string
}

// Follow reads the partitions in spans, each from the start of its span.
func Follow(c Config, topic string, spans Spans) (*Follower, error) {
	from := map[int32]kgo.Offset{}
	for partition, span := range spans {
		from[partition] = kgo.NewOffset().At(span.From)
	}
	a, err := c.admin(append(readCommitted(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))...)
	if err != nil {
		return nil, err
	}
	return &Follower{a, topic}, nil
}

// Close ends the reading.
func (f *Follower) Close() { f.admin.Close() }

// Poll waits for records, in order per partition. Markers of transactions are among them. The error is that of ctx when
// it ends.
func (f *Follower) Poll(ctx context.Context) ([]*kgo.Record, error) {
	fetches := f.admin.client.PollFetches(ctx)
	errs := fetches.Errors()
	switch {
	case len(errs) == 0:
		return fetches.Records(), nil
	case errs[0].Topic == "" && ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(errs[0].Err, kerr.TopicAuthorizationFailed):
		return nil, deniedRead(f.topic)
	}
	return nil, f.admin.fail(fmt.Sprintf("read partition %d of %s", errs[0].Partition, f.topic), errs[0].Err)
}

// Starts returns the first offset that retention has left of each partition.
func (f *Follower) Starts(ctx context.Context) (map[int32]int64, error) {
	listed, err := f.admin.ListStartOffsets(ctx, f.topic)
	if err = f.admin.topicError(f.topic, listed, err); err != nil {
		return nil, err
	}
	starts := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { starts[o.Partition] = o.Offset })
	return starts, nil
}

// TopicIDs is TopicIDs with the connections of the follower.
func (f *Follower) TopicIDs(ctx context.Context, names ...string) (map[string]committed.TopicID, error) {
	return f.admin.topicIDs(ctx, names)
}

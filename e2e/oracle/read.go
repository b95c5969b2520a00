package oracle

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// stream returns all committed records of a partition up to its end as of now. It sets failed when reading fails.
func stream(ctx context.Context, brokers []string, topic string, partition int, failed *error) iter.Seq[*kgo.Record] {
	return func(yield func(*kgo.Record) bool) {
		if err := each(ctx, brokers, topic, int32(partition), yield); err != nil {
			*failed = fmt.Errorf("read %s, partition %d: %w", topic, partition, err)
		}
	}
}

// Each calls f with each committed record of a partition, up to its end as of now.
func Each(ctx context.Context, brokers []string, topic string, partition int, f func(*kgo.Record)) error {
	return each(ctx, brokers, topic, int32(partition), func(r *kgo.Record) bool { f(r); return true })
}

func each(ctx context.Context, brokers []string, topic string, partition int32, yield func(*kgo.Record) bool) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}),
		// a transaction's marker may be the last record
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return err
	}
	end, ok := ends.Lookup(topic, partition)
	if !ok || end.Err != nil {
		return errors.Join(errors.New("its end is not known"), end.Err)
	}
	if start, _ := starts.Lookup(topic, partition); start.Offset >= end.Offset {
		return nil
	}
	for {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for fetched := fetches.RecordIter(); !fetched.Done(); {
			r := fetched.Next()
			if r.Offset < end.Offset && !r.Attrs.IsControl() && !yield(r) || r.Offset >= end.Offset-1 {
				return nil
			}
		}
	}
}

package oracle

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Read returns all committed records of a topic up to its end as of now, ordered by partition and offset.
func Read(ctx context.Context, brokers []string, topic string) ([]*kgo.Record, error) {
	var all []*kgo.Record
	err := each(ctx, brokers, topic, func(r *kgo.Record) bool { all = append(all, r); return true })
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all, err
}

// stream gives the same records, each partition's in the order of its log, without holding them. It notes what went wrong.
func stream(ctx context.Context, brokers []string, topic string, failed *error) iter.Seq[*kgo.Record] {
	return func(yield func(*kgo.Record) bool) { *failed = each(ctx, brokers, topic, yield) }
}

func each(ctx context.Context, brokers []string, topic string, yield func(*kgo.Record) bool) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords()) // a transaction's marker may be the last record
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("end of %s: %w", topic, err)
	}
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("start of %s: %w", topic, err)
	}
	open := map[int32]int64{} // what is still to be read, up to this offset
	ends.Each(func(o kadm.ListedOffset) {
		if begin, _ := starts.Lookup(topic, o.Partition); o.Offset > begin.Offset {
			open[o.Partition] = o.Offset
		}
	})
	more := true
	for more && len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, ok := open[r.Partition]
			if more && ok && r.Offset < end && !r.Attrs.IsControl() {
				more = yield(r)
			}
			if r.Offset >= end-1 {
				delete(open, r.Partition)
			}
		})
	}
	return nil
}

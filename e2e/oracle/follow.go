package oracle

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Follower reads a topic while it is written, as a sink does: of a compacted topic it sees what a later reader would not.
type Follower struct {
	topic  string
	client *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	records []*kgo.Record
	next    map[int32]int64
	err     error
}

// Follow starts to read a topic from its beginning.
func Follow(brokers []string, topic string) (*Follower, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords()) // a transaction's marker may be the last record
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{topic: topic, client: client, cancel: cancel, done: make(chan struct{}), next: map[int32]int64{}}
	go f.run(ctx)
	return f, nil
}

func (f *Follower) run(ctx context.Context) {
	defer close(f.done)
	for ctx.Err() == nil {
		fetches := f.client.PollFetches(ctx)
		f.mu.Lock()
		if err := fetches.Err(); err != nil && ctx.Err() == nil {
			f.err = err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				f.records = append(f.records, &kgo.Record{ // and not what it was fetched with
					Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Partition: r.Partition, Offset: r.Offset,
				})
			}
			f.next[r.Partition] = r.Offset + 1
		})
		f.mu.Unlock()
	}
}

// Stop reads up to the topic's end as of now and returns all records, each partition's in the order of its log. It ends
// the reading.
func (f *Follower) Stop(ctx context.Context) ([]*kgo.Record, error) {
	defer f.Close()
	ends, err := kadm.NewClient(f.client).ListEndOffsets(ctx, f.topic)
	if err != nil {
		return nil, err
	}
	for {
		f.mu.Lock()
		records, err, behind := f.records, f.err, 0
		ends.Each(func(o kadm.ListedOffset) {
			if f.next[o.Partition] < o.Offset {
				behind++
			}
		})
		f.mu.Unlock()
		switch {
		case err != nil:
			return nil, fmt.Errorf("follow %s: %w", f.topic, err)
		case behind == 0:
			return records, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("follow %s, %d partitions behind: %w", f.topic, behind, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close ends the reading.
func (f *Follower) Close() {
	f.cancel()
	<-f.done
	f.client.Close()
}

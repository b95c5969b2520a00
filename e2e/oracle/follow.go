package oracle

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"google.golang.org/protobuf/proto"

	tidemarkv1 "tidemark/proto/tidemark/v1"
)

// A Follower consumes the files table while it is written: compaction removes nearly all but the last rows, and a row
// that was wrong for a moment was served for a moment.
type Follower struct {
	topic  string
	client *kgo.Client
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	mu    sync.Mutex
	reads map[int32]int64 // the offset after the last one read
	rows  [][]rowRead     // by partition
}

// A rowRead is one row as a read_committed consumer receives it.
type rowRead struct {
	key     string
	version int64
	folds   int64                 // see foldsOf
	sum     [sha256.Size / 2]byte // of its doc
}

// Follow must be called before the first record is written.
func Follow(brokers []string, topic string, partitions int) (*Follower, error) {
	from := map[int32]kgo.Offset{}
	for p := range partitions {
		from[int32(p)] = kgo.NewOffset().AtStart()
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords()) // as in each
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &Follower{
		topic: topic, client: client, cancel: cancel, done: make(chan struct{}), reads: map[int32]int64{},
		rows: make([][]rowRead, partitions),
	}
	go f.run(ctx)
	return f, nil
}

func (f *Follower) run(ctx context.Context) {
	defer close(f.done)
	for ctx.Err() == nil {
		fetches := f.client.PollFetches(ctx)
		f.mu.Lock()
		for fetched := fetches.RecordIter(); !fetched.Done(); {
			r := fetched.Next()
			f.reads[r.Partition] = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			state := new(tidemarkv1.FileState)
			if err := proto.Unmarshal(r.Value, state); err != nil {
				f.err = errors.Join(f.err, fmt.Errorf("%s at %d:%d: %w", f.topic, r.Partition, r.Offset, err))
				continue
			}
			f.rows[r.Partition] = append(f.rows[r.Partition],
				rowRead{string(r.Key), state.GetVersion(), foldsOf(state), stateDoc(state).sum()})
		}
		f.mu.Unlock()
	}
}

// Finish waits until all records that are in the topic by now have been read, and ends the consumer.
func (f *Follower) Finish(ctx context.Context, limit time.Duration) error {
	defer f.client.Close()
	defer func() { f.cancel(); <-f.done }()
	ends, err := kadm.NewClient(f.client).ListEndOffsets(ctx, f.topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return err
	}
	for begin := time.Now(); ; {
		behind := int64(0)
		f.mu.Lock()
		ends.Each(func(end kadm.ListedOffset) { behind += max(0, end.Offset-f.reads[end.Partition]) })
		err := f.err
		f.mu.Unlock()
		if behind == 0 {
			return err
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("%d records of %s were not read within %v", behind, f.topic, limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// sum is a digest of the doc.
func (d doc) sum() (sum [sha256.Size / 2]byte) {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(d)) {
		h.Write([]byte(name + "\x00" + d[name] + "\x00"))
	}
	copy(sum[:], h.Sum(nil))
	return sum
}

// judgeFollowed compares every row that was read with the model's row of its version. A paused owner may append older
// rows behind its successor's; exactly_once fences it.
func (m *Model) judgeFollowed(rows []rowRead, r *Report) {
	r.check("rows of a version wrong")
	if m.once {
		r.check("rows going back in time")
	}
	last := map[string]int64{}
	older := 0
	for _, s := range rows {
		switch want := m.versions[s.key][s.version]; {
		case want == nil:
			r.Violate("rows of a version wrong", "%q: there is no version %d", s.key, s.version)
		case want.doc().sum() != s.sum:
			r.Violate("rows of a version wrong", "%q version %d is not as it should be: %v", s.key, s.version,
				want.doc())
		}
		if s.folds < last[s.key] {
			older++
			if m.once {
				r.Violate("rows going back in time", "%q: %d folds after %d", s.key, s.folds, last[s.key])
			}
		}
		last[s.key] = s.folds
	}
	for key, row := range m.rows {
		if want := row.version + row.silent; last[key] != want {
			r.Violate("rows of a version wrong", "%q: the last one seen has %d folds of %d", key, last[key], want)
		}
	}
	r.count("table: rows seen as they were written / older than the one before", len(rows), older)
}

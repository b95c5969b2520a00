// Command franz is a bound of the benchmark: the same work in a loop written by hand on franz-go, with rows in Go maps
// and a changelog. It has no local store, no recovery and no rebalance: it shows what the client, the codecs and the
// broker alone allow.
//
//	franz -brokers B -input T -index T -notify T -table T -group G [-lose N]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/bench/peers/work"
)

const (
	commitEvery = time.Second
	pollLimit   = 20_000 // records
	gcPercent   = 200    // as it was fastest
)

func main() {
	debug.SetGCPercent(gcPercent)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "franz:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	l := &loop{rows: map[int32]*rows{}}
	brokers := flag.String("brokers", "", "the cluster")
	input := flag.String("input", "", "topic of events")
	group := flag.String("group", "", "of consumers")
	flag.StringVar(&l.index, "index", "", "topic of index records")
	flag.StringVar(&l.notify, "notify", "", "topic of notices")
	flag.StringVar(&l.table, "table", "", "topic of rows")
	flag.Int64Var(&l.lose, "lose", -1, "the offset of an event of partition 0 that is lost: a negative control")
	flag.Parse()
	var err error
	l.client, err = kgo.NewClient(
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.ConsumerGroup(*group), kgo.ConsumeTopics(*input), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(50_000))
	if err != nil {
		return err
	}
	defer l.client.Close()
	l.produced = kgo.AbortingFirstErrPromise(l.client)
	return l.run(ctx)
}

type loop struct {
	client               *kgo.Client
	index, notify, table string
	rows                 map[int32]*rows // by partition
	lose                 int64
	produced             *kgo.FirstErrPromise
}

// rows are those of one partition, which one goroutine folds.
type rows struct {
	states map[string]*work.State
	err    error
}

func (l *loop) run(ctx context.Context) error {
	committed, folded := time.Now(), false
	for ctx.Err() == nil {
		poll, cancel := context.WithTimeout(ctx, commitEvery/10)
		fetches := l.client.PollRecords(poll, pollLimit)
		cancel()
		if err := fetches.Err0(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			break // SIGTERM
		}
		if err := l.fold(fetches); err != nil {
			return err
		}
		folded = folded || fetches.NumRecords() > 0
		if folded && time.Since(committed) >= commitEvery {
			if err := l.commit(ctx); err != nil {
				return err
			}
			committed, folded = time.Now(), false
		}
	}
	return l.commit(context.WithoutCancel(ctx))
}

// commit commits what is folded once all outputs are acknowledged.
func (l *loop) commit(ctx context.Context) error {
	if err := l.client.Flush(ctx); err != nil {
		return err
	}
	if err := l.produced.Err(); err != nil {
		return err
	}
	l.produced = kgo.AbortingFirstErrPromise(l.client)
	return l.client.CommitUncommittedOffsets(ctx)
}

// fold folds what was fetched, a goroutine for each partition.
func (l *loop) fold(fetches kgo.Fetches) error {
	var group sync.WaitGroup
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		r := l.rows[p.Partition]
		if r == nil {
			r = &rows{states: map[string]*work.State{}}
			l.rows[p.Partition] = r
		}
		group.Go(func() {
			if r.err = p.Err; errors.Is(r.err, context.DeadlineExceeded) {
				r.err = nil
			}
			for _, record := range p.Records {
				if r.err != nil {
					return
				}
				r.err = l.apply(r, record)
			}
		})
	})
	group.Wait()
	var failed error
	for _, r := range l.rows {
		failed = errors.Join(failed, r.err)
	}
	return failed
}

func (l *loop) apply(r *rows, record *kgo.Record) error {
	if record.Partition == 0 && record.Offset == l.lose {
		return nil
	}
	e, err := work.Parse(record.Value)
	if err != nil {
		return err
	}
	key := e.Key()
	state := r.states[key]
	if state == nil {
		state = &work.State{}
		r.states[key] = state
	}
	before, ok := state.Fold(e, record.Partition, record.Offset)
	if !ok {
		return nil
	}
	send := func(topic string, value []byte) {
		l.client.Produce(context.Background(), &kgo.Record{
			Topic: topic, Partition: record.Partition, Key: []byte(key), Value: value,
		}, l.produced.Promise())
	}
	send(l.index, work.IndexOf(&state.File).Append(make([]byte, 0, 768)))
	send(l.notify, work.NoticeOf(e, before, &state.File).Append(make([]byte, 0, 1536+len(e.Payload))))
	send(l.table, state.Append(make([]byte, 0, 512+32*len(state.EventIDs))))
	return nil
}

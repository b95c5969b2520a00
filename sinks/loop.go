package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"tidemark/deadletters"
	"tidemark/kafka"
	"tidemark/topology"
)

// Config says what a Loop consumes, and its bounds.
type Config struct {
	Name    string // the group is <prefix>-sink-<name>, dead letters have the name
	Kafka   kafka.Config
	Streams topology.Streams
	Topics  []topology.Topic
	Log     *slog.Logger
	Metrics *Metrics

	// FromEnd starts a new group at the log end offsets of its topics, not at the oldest records.
	FromEnd bool
	// Attempt is how long one call of Deliver may take; 0: 30 s.
	Attempt time.Duration
	// Refusal is how long a record is refused, while all are, before it becomes a dead letter; 0: 10 minutes.
	Refusal time.Duration
	// InstanceID makes the process a static member of the group: see kafka.ConsumerConfig.
	InstanceID   string
	BatchRecords int // 0: 500
	// ControlRecords gives a handler of partitions the markers of transactions too.
	ControlRecords bool
	BufferBytes    int // of unhandled records of a partition; 0: 1 MiB
}

// A Loop delivers the records of its topics to one destination: at least once, in order per partition. A batch that the
// destination does not accept holds up its own partition.
type Loop struct {
	config   Config
	sink     Sink
	metrics  sinkMetrics
	retry    *retry
	consumer *kafka.Consumer
	dead     *kgo.Client // nil: not running

	lags     []kafka.ConsumerLag // that the metrics show
	lagAt    time.Time           // of the last successful look-up
	lagStale atomic.Pointer[error]
}

// NewLoop checks the configuration. Nothing is connected before Run.
func NewLoop(config Config, sink Sink) (*Loop, error) {
	l := newLoop(config)
	l.sink = sink
	var err error
	consumer := l.consumerConfig(config.Streams.SinkRetry)
	l.consumer, err = kafka.NewConsumer(l.config.Log, config.Kafka, consumer, l.partition)
	return l, err
}

// NewPartitionLoop returns a Loop for a sink that has no batches of records: it handles partitions itself, and makes
// its attempts through the Loop's Do.
func NewPartitionLoop(config Config, handle kafka.Handler) (*Loop, error) {
	l := newLoop(config)
	var err error
	l.consumer, err = kafka.NewConsumer(l.config.Log, config.Kafka, l.consumerConfig(), handle)
	return l, err
}

func newLoop(config Config) *Loop {
	config.Log = config.Log.With("sink", config.Name)
	config.Attempt, config.Refusal = cmp.Or(config.Attempt, 30*time.Second), cmp.Or(config.Refusal, 10*time.Minute)
	config.BatchRecords = cmp.Or(config.BatchRecords, 500)
	config.BufferBytes = cmp.Or(config.BufferBytes, 1<<20)
	return &Loop{config: config, metrics: config.Metrics.of(config.Name), retry: newRetry(config)}
}

func (l *Loop) consumerConfig(more ...topology.Topic) kafka.ConsumerConfig {
	config := kafka.ConsumerConfig{
		Group: l.config.Streams.SinkGroup(l.config.Name), InstanceID: l.config.InstanceID,
		BatchRecords: l.config.BatchRecords, BufferBytes: l.config.BufferBytes,
		ControlRecords: l.config.ControlRecords,
	}
	for _, topic := range slices.Concat(l.config.Topics, more) {
		config.Topics = append(config.Topics, topic.Name)
	}
	return config
}

const (
	lagEvery = 5 * time.Second // it is looked up
	lagStale = 30 * time.Second
)

// Run delivers until ctx ends, which is no error, or something is wrong that waiting does not fix: see
// kafka.Consumer.Run. Batches that are being delivered may finish within the consumer's drain time.
func (l *Loop) Run(ctx context.Context) (err error) {
	if err := l.commitEnds(ctx); err != nil {
		return err
	}
	if l.dead, err = kafka.NewProducer(l.config.Kafka, kgo.RecordDeliveryTimeout(0)); err != nil {
		return err
	}
	defer l.dead.Close()
	l.lagAt = time.Now()
	group, running := errgroup.WithContext(ctx)
	consuming, consumed := context.WithCancel(running)
	group.Go(func() error {
		defer consumed()
		return l.consumer.Run(ctx)
	})
	group.Go(func() error {
		defer func() { l.lags = l.config.Metrics.lag(l.config.Name, l.lags, nil) }()
		for tick := time.NewTicker(lagEvery); ; {
			select {
			case <-tick.C:
			case <-consuming.Done():
				tick.Stop()
				return nil
			}
			l.showLag(consuming)
		}
	})
	return group.Wait()
}

// Deliver delivers the records of a topic's spans to the sink, beside the group and without committing: to fill a
// destination again. Partitions are delivered at the same time, each in its order.
func (l *Loop) Deliver(ctx context.Context, topic topology.Topic, spans kafka.Spans) (err error) {
	if l.dead, err = kafka.NewProducer(l.config.Kafka, kgo.RecordDeliveryTimeout(0)); err != nil {
		return err
	}
	defer l.dead.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelSpans)
	for partition, span := range spans {
		group.Go(func() error {
			var batch []*kgo.Record
			bytes := 0
			flush := func() error {
				records := batch
				batch, bytes = nil, 0
				d, err := l.deliver(ctx, ctx, l.records(records))
				if err == nil {
					d.count(0)
				}
				return err
			}
			err := kafka.Read(ctx, l.config.Kafka, topic.Name, kafka.Spans{partition: span}, func(r *kgo.Record) error {
				batch, bytes = append(batch, r), bytes+len(r.Value)
				if len(batch) < l.config.BatchRecords && bytes < spanBytes {
					return nil
				}
				return flush()
			})
			if err == nil {
				err = flush()
			}
			return err
		})
	}
	return group.Wait()
}

const (
	parallelSpans = 8
	spanBytes     = 1 << 20 // of a batch
)

// showLag looks up the lag. The metrics keep the last one while the brokers do not answer, and Ready says so.
func (l *Loop) showLag(ctx context.Context) {
	lags, err := l.consumer.Lag(ctx)
	if err == nil {
		l.lags, l.lagAt = l.config.Metrics.lag(l.config.Name, l.lags, lags), time.Now()
		l.lagStale.Store(nil)
	} else if time.Since(l.lagAt) > lagStale {
		err = fmt.Errorf("the lag in the metrics is older than %v: %w", lagStale, err)
		l.lagStale.Store(&err)
	}
}

// Ready returns nil while the group is joined, the lag is known and the destination accepts records.
func (l *Loop) Ready() error {
	var stale error
	if err := l.lagStale.Load(); err != nil {
		stale = *err
	}
	return errors.Join(l.consumer.Ready(), stale, l.retry.Ready())
}

// Do makes attempts at the destination until one succeeds, or is *Rejected, with the pauses and the circuit breaker of
// all attempts of the Loop.
func (l *Loop) Do(ctx context.Context, attempt func(ctx context.Context) error) error {
	return l.retry.do(ctx, ctx, attempt)
}

// partition is the handler of the consumer. While a batch waits for its time the records that follow are appended to
// it, so that a digest has all of them.
func (l *Loop) partition(ctx context.Context, p *kafka.AssignedPartition) error {
	pausing, cancel := context.WithCancel(ctx) // an attempt may go on after a revocation, a pause may not
	defer cancel()
	go func() {
		select {
		case <-p.Revoked():
			cancel()
		case <-pausing.Done():
		}
	}()
	for {
		records, err := p.Next(ctx)
		if err != nil {
			return err
		}
		var d *delivery
		for {
			d, err = l.deliver(ctx, pausing, l.records(records))
			later, ok := errors.AsType[*notDueError](err)
			if !ok {
				break
			}
			if records, err = l.gather(ctx, p, records, later.pause); err != nil {
				return err
			}
		}
		switch {
		case err != nil && pausing.Err() != nil && ctx.Err() == nil:
			return kafka.ErrRevoked
		case err != nil:
			return fmt.Errorf("from offset %d: %w", records[0].Offset, err)
		}
		p.Handled(records[len(records)-1])
		d.count(len(records) - len(d.batch)) // not before: a batch that is given up comes again
	}
}

// gather adds the records that come during a pause, as long as a batch may have more.
func (l *Loop) gather(
	ctx context.Context, p *kafka.AssignedPartition, records []*kgo.Record, pause time.Duration,
) ([]*kgo.Record, error) {
	until, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	for len(records) < l.config.BatchRecords && sizeOf(records) < l.config.BufferBytes {
		more, err := p.Next(until)
		switch {
		case err == nil:
			records = append(records, more...)
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			return records, nil
		default:
			return nil, err
		}
	}
	select {
	case <-until.Done():
		return records, ctx.Err()
	case <-p.Revoked():
		return nil, kafka.ErrRevoked
	}
}

func sizeOf(records []*kgo.Record) (bytes int) {
	for _, r := range records {
		bytes += len(r.Key) + len(r.Value)
	}
	return bytes
}

// records returns the records for the sink.
func (l *Loop) records(read []*kgo.Record) (batch []*Record) {
	for _, r := range read {
		if record, mine := l.record(r); mine {
			batch = append(batch, record)
		}
	}
	return batch
}

// record returns the record for the sink. A record of the retry topic that is for another sink is not delivered.
func (l *Loop) record(r *kgo.Record) (record *Record, mine bool) {
	record = &Record{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp,
		read: r,
	}
	for _, h := range r.Headers {
		record.Headers = append(record.Headers, Header{h.Key, h.Value})
	}
	if r.Topic != l.config.Streams.SinkRetry.Name {
		return record, true
	}
	sink, source, ok := deadletters.ParseRetry(r)
	if !ok || sink != l.config.Name {
		return nil, false
	}
	record.Topic, record.Partition, record.Offset = source.Topic, source.Partition, source.Offset
	record.Retried = true
	return record, true
}

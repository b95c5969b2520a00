package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
	config.Attempt = cmp.Or(config.Attempt, 30*time.Second)
	config.BatchRecords = cmp.Or(config.BatchRecords, 500)
	config.BufferBytes = cmp.Or(config.BufferBytes, 1<<20)
	return &Loop{
		config: config, metrics: config.Metrics.of(config.Name),
		retry: newRetry(config.Name, config.Attempt, config.Log, config.Metrics),
	}
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

// lagEvery is how often the lag is looked up.
const lagEvery = 5 * time.Second

// Run delivers until ctx ends, which is no error, or something is wrong that waiting does not fix: see
// kafka.Consumer.Run. Batches that are being delivered may finish within the consumer's drain time.
func (l *Loop) Run(ctx context.Context) (err error) {
	if err := l.begin(ctx); err != nil {
		return err
	}
	if l.dead, err = kafka.NewProducer(l.config.Kafka, kgo.RecordDeliveryTimeout(0)); err != nil {
		return err
	}
	defer l.dead.Close()
	group, running := errgroup.WithContext(ctx)
	consuming, consumed := context.WithCancel(running)
	group.Go(func() error {
		defer consumed()
		return l.consumer.Run(ctx)
	})
	group.Go(func() error {
		defer l.config.Metrics.lag(l.config.Name, nil)
		for tick := time.NewTicker(lagEvery); ; {
			select {
			case <-tick.C:
			case <-consuming.Done():
				tick.Stop()
				return nil
			}
			if lags, err := l.consumer.Lag(consuming); err == nil { // else Ready says what is wrong
				l.config.Metrics.lag(l.config.Name, lags)
			}
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
				return l.deliver(ctx, ctx, l.records(records), false)
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

// Ready returns nil while the group is joined and the destination accepts records.
func (l *Loop) Ready() error { return errors.Join(l.consumer.Ready(), l.retry.Ready()) }

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
		batch := l.records(records)
		for {
			err = l.deliver(ctx, pausing, batch, true)
			waiting, ok := errors.AsType[*waitError](err)
			if !ok {
				break
			}
			if records, err = l.gather(ctx, p, records, waiting.pause); err != nil {
				return err
			}
			batch = l.records(records)
		}
		switch {
		case err != nil && pausing.Err() != nil && ctx.Err() == nil:
			return kafka.ErrRevoked
		case err != nil:
			return fmt.Errorf("from offset %d: %w", records[0].Offset, err)
		}
		l.metrics.skipped.Add(float64(len(records) - len(batch)))
		p.Handled(records[len(records)-1])
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

// deliver returns when every record of the batch is applied or a dead letter, or ctx ends. If it is a whole batch that
// waits for its time, it returns a *waitError.
func (l *Loop) deliver(ctx, pausing context.Context, batch []*Record, whole bool) error {
	if len(batch) == 0 {
		return nil
	}
	open, rejected := batch, map[*Record]*Rejected{}
	err := l.retry.do(ctx, pausing, func(ctx context.Context) error {
		err := l.sink.Deliver(ctx, open)
		partial, ok := errors.AsType[*Partial](err)
		if later, _ := errors.AsType[*Later](err); !ok && waits(err) && whole && len(open) == len(batch) {
			return &waitError{later.Pause}
		}
		if !ok {
			return err
		}
		maps.Copy(rejected, partial.Rejected)
		before := len(open)
		if open = partial.Again; len(open) == 0 {
			return nil
		}
		err = cmp.Or(partial.Err, errNotApplied)
		if len(open) < before {
			err = &progressError{err}
		}
		return err
	})
	switch refusal, ok := errors.AsType[*Rejected](err); {
	case err == nil:
		open = nil
	case !ok:
		return err
	case len(open) == 1:
		rejected[open[0]], open = refusal, nil
	}
	for _, r := range batch { // in their order
		if why := rejected[r]; why != nil {
			if err := l.reject(ctx, r, why); err != nil {
				return err
			}
		}
	}
	l.metrics.delivered.Add(float64(len(batch) - len(rejected) - len(open)))
	half := len(open) / 2
	if err := l.deliver(ctx, pausing, open[:half], false); err != nil {
		return err
	}
	return l.deliver(ctx, pausing, open[half:], false)
}

var errNotApplied = errors.New("the destination has not applied all records")

// reject writes a dead letter and waits until it is acknowledged.
func (l *Loop) reject(ctx context.Context, r *Record, why *Rejected) error {
	dead := deadletters.NewRecord(l.config.Streams.DLQ.Name, r.read, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Message: why.Reason, Answer: why.Answer, Sink: l.config.Name,
	})
	if err := l.dead.ProduceSync(ctx, dead).FirstErr(); err != nil {
		return fmt.Errorf("produce the dead letter of %s: %w", r.Position(), err)
	}
	l.metrics.rejected.Inc()
	l.config.Log.WarnContext(ctx, "the destination rejected a record, it is a dead letter now: see `tidemark dlq show`",
		"entry", r.Position()+"@"+l.config.Name, "reason", why.Reason, "answer", why.Answer)
	return nil
}

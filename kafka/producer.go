package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/topology"
)

// deliveryTimeout is how long a record may wait for its acknowledgement. It outlasts the election of a new leader (9 s of
// session timeout and a few of metadata), and ends before goka stops waiting for promises (60 s).
const deliveryTimeout = 45 * time.Second

// ProducerBuilder returns goka's producer over franz-go: acknowledged by all in-sync replicas, idempotent, in order per
// partition, and once a record fails none behind it in its partition lands. The message that a promise is finished with has
// its Partition and Offset set. It took half the CPU of sarama's producer on this work (docs/decisions).
//
// A record waits up to linger for others to share its batch.
func ProducerBuilder(c Config, linger time.Duration) goka.ProducerBuilder {
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		c.Brokers, c.ClientID = brokers, clientID
		byKey := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int {
				h := hasher()
				_, _ = h.Write(r.Key) // a hash never fails: see hash.Hash
				return int(h.Sum32() % uint32(n))
			}
		})
		client, err := newProducer(c, kgo.RecordPartitioner(byKey), kgo.ProducerLinger(linger))
		if err != nil {
			return nil, err
		}
		return &producer{client: client}, nil
	}
}

// newProducer returns a client whose records are never out of order and never silently dropped.
func newProducer(c Config, more ...kgo.Opt) (*kgo.Client, error) {
	options, err := c.Franz()
	if err != nil {
		return nil, err
	}
	options = append(options,
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.ProducerBatchMaxBytes(topology.MaxMessageBytes),
		// franz-go would choose snappy, which kafka-python and others cannot read without a library of its own.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// The callers bound what is in flight before they produce: blocking here would be inside a callback.
		kgo.MaxBufferedRecords(1<<20),
		kgo.MetadataMinAge(250*time.Millisecond),
		kgo.RetryBackoffFn(produceBackoff),
	)
	client, err := kgo.NewClient(append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("start producer: %w", err)
	}
	return client, nil
}

// produceBackoff is the wait before a batch is sent again. It is also how often a new leader is asked for: kgo's own wait grows
// to 5 s, and an ingress would answer 503 for as long after an election that took 9 s.
func produceBackoff(fails int) time.Duration {
	wait := min(100*time.Millisecond<<min(max(fails-1, 0), 8), 500*time.Millisecond)
	return wait*3/4 + rand.N(wait/2) // or all instances ask at once
}

// closeProducer lets what is in flight land for a moment, then gives up on it: its promises are finished with an error.
func closeProducer(client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := client.Flush(ctx)
	client.Close()
	if err != nil {
		return fmt.Errorf("flush producer: %w", err)
	}
	return nil
}

// A producer is goka.Producer without epochs: each record goes out as it comes.
type producer struct{ client *kgo.Client }

func (p *producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p *producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	record := &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Headers: sortedHeaders(headers)}
	p.client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
		if err != nil {
			finish(nil, notProduced(topic, err))
			return
		}
		finish(&sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Offset: r.Offset}, nil)
	})
	return promise
}

func (p *producer) Close() error { return closeProducer(p.client) }

// sortedHeaders gives records of the same content the same bytes, which goka's map would not.
func sortedHeaders(headers goka.Headers) []kgo.RecordHeader {
	if len(headers) == 0 {
		return nil
	}
	sorted := make([]kgo.RecordHeader, 0, len(headers))
	for key, value := range headers {
		sorted = append(sorted, kgo.RecordHeader{Key: key, Value: value})
	}
	slices.SortFunc(sorted, func(a, b kgo.RecordHeader) int { return cmp.Compare(a.Key, b.Key) })
	return sorted
}

// A ProduceError says which topic did not take a record.
type ProduceError struct {
	Topic string
	Err   error
}

func (e *ProduceError) Error() string { return fmt.Sprintf("produce to %s: %v", e.Topic, e.Err) }
func (e *ProduceError) Unwrap() error { return e.Err }

func notProduced(topic string, err error) error { return &ProduceError{Topic: topic, Err: err} }

var errClosed = errors.New("the partition was given up while this was in flight")

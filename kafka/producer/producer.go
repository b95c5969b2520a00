// Package producer is goka's producer over franz-go, and the client settings by which no record is lost or reordered.
//
// A record is acknowledged by all in-sync replicas or fails with an error. The records of a partition are written once
// and in order, and after one that fails none is written.
package producer

import (
	"cmp"
	"context"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deliveryTimeout is how long a record may wait to be sent, retries included. It outlasts the election of a new leader
// (9 s of session timeout and a few of metadata), and ends before goka stops waiting for promises (60 s). A record that
// was in flight when the connection broke may have been written: franz-go retries it, and the records behind it, until
// a broker answers.
const deliveryTimeout = 45 * time.Second

// Options returns the client options for what the package promises. A batch has at most maxBytes.
func Options(maxBytes int32) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.ProducerBatchMaxBytes(maxBytes),
		// franz-go would choose snappy, which kafka-python and others cannot read without a library of its own.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// The callers limit what is in flight before they produce: blocking here would be inside a callback.
		kgo.MaxBufferedRecords(1 << 20),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		kgo.MetadataMaxAge(MetadataMaxAge),
	}
}

// MetadataMaxAge is how often a client refreshes its metadata without a cause. On a stale leader that is cut off from
// the other brokers each write times out, and kgo does not refresh metadata for that: with its default of 5 minutes no
// record was acknowledged meanwhile.
const MetadataMaxAge = 3 * time.Second

// backoff is the pause before a batch is retried, and also between look-ups of a new leader. kgo's own grows to 5 s,
// which would be added to an election that takes 9 s. kgo asks for a function of the number of failures, so backoff/v5,
// which has a state, does not fit.
func backoff(fails int) time.Duration {
	wait := min(100*time.Millisecond<<min(max(fails-1, 0), 8), 500*time.Millisecond)
	return wait*3/4 + rand.N(wait/2) // jitter, so that instances do not retry at the same time
}

// Builder returns goka's producer over a client, which open creates with Options and the options that it is passed. A
// promise is finished with a message that has Partition and Offset. Where it was measured, it took half the CPU of
// sarama's producer.
//
// A record waits up to linger for others to share its batch. Keys are hashed over the given number of partitions, also
// once a topic has more: the records of a key that moved to another partition would have no order. 0 is the topic's
// number.
func Builder(open func(...kgo.Opt) (*kgo.Client, error), linger time.Duration, partitions int) goka.ProducerBuilder {
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		byKey := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int {
				n = cmp.Or(partitions, n)
				h := hasher()
				_, _ = h.Write(r.Key)             // a hash never fails: see hash.Hash
				at := int32(h.Sum32()) % int32(n) // like goka and sarama: the sign is dropped last
				return int(max(at, -at))
			}
		})
		client, err := open(kgo.SeedBrokers(brokers...), kgo.ClientID(clientID), kgo.RecordPartitioner(byKey),
			kgo.ProducerLinger(linger))
		if err != nil {
			return nil, err
		}
		return &producer{client: client}, nil
	}
}

// Close waits a moment for records in flight, then closes the client: the promises of the others are finished with an
// error.
func Close(client *kgo.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := client.Flush(ctx)
	client.Close()
	if err != nil {
		return fmt.Errorf("flush producer: %w", err)
	}
	return nil
}

// A producer is a goka.Producer that sends each record at once.
type producer struct{ client *kgo.Client }

func (p *producer) Emit(topic, key string, value []byte) *goka.Promise {
	return p.EmitWithHeaders(topic, key, value, nil)
}

func (p *producer) EmitWithHeaders(topic, key string, value []byte, headers goka.Headers) *goka.Promise {
	promise, finish := goka.NewPromiseWithFinisher()
	record := &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Headers: Headers(headers)}
	p.client.Produce(context.Background(), record, func(r *kgo.Record, err error) {
		if err != nil {
			finish(nil, fmt.Errorf("produce to %s: %w", topic, err))
			return
		}
		finish(&sarama.ProducerMessage{Topic: topic, Partition: r.Partition, Offset: r.Offset}, nil)
	})
	return promise
}

func (p *producer) Close() error { return Close(p.client) }

// Headers sorts headers, so that records with the same content have the same bytes.
func Headers(headers goka.Headers) []kgo.RecordHeader {
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

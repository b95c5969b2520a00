// Package producer is goka's producer over franz-go, and the settings that keep records in order and in the log.
//
// It promises that a record is acknowledged by all in-sync replicas or fails with an error, that the records of a partition are
// written once and in their order, and that once one of them fails none behind it lands. It chooses no topic and keeps no state.
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

// deliveryTimeout is how long a record may wait to be sent, and to be sent again. It outlasts the election of a new leader (9 s of
// session timeout and a few of metadata), and ends before goka stops waiting for promises (60 s). One that was on its way when the
// connection broke may have landed: franz-go keeps it, and what is behind it in its partition, until a broker tells.
const deliveryTimeout = 45 * time.Second

// Options are what the package's promise needs of a client. A batch has at most maxBytes.
func Options(maxBytes int32) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.ProducerBatchMaxBytes(maxBytes),
		// franz-go would choose snappy, which kafka-python and others cannot read without a library of its own.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// The callers bound what is in flight before they produce: blocking here would be inside a callback.
		kgo.MaxBufferedRecords(1 << 20),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.RetryBackoffFn(backoff),
		kgo.MetadataMaxAge(MetadataMaxAge),
	}
}

// MetadataMaxAge is how often a client asks who leads, without a reason. A leader that the other brokers have cut off and replaced lets each
// write time out, which kgo takes for no sign of that: with its own 5 minutes no record was acknowledged for as long as that was tried.
const MetadataMaxAge = 3 * time.Second

// backoff is the wait before a batch is sent again. It is also how often a new leader is asked for: kgo's own wait grows to 5 s,
// and who waits for an acknowledgement would wait as long after an election that took 9 s.
func backoff(fails int) time.Duration {
	wait := min(100*time.Millisecond<<min(max(fails-1, 0), 8), 500*time.Millisecond)
	return wait*3/4 + rand.N(wait/2) // or all instances ask at once
}

// Builder returns goka's producer over a client, which open makes with Options and those that it is given. The message that a
// promise is finished with has its Partition and Offset set. It took half the CPU of sarama's producer where it was measured.
//
// A record waits up to linger for others to share its batch. Keys are spread over so many partitions, also once a topic has more: a
// key that changes its partition leaves its order behind. 0 is as many as the topic has.
func Builder(open func(...kgo.Opt) (*kgo.Client, error), linger time.Duration, partitions int) goka.ProducerBuilder {
	return func(brokers []string, clientID string, hasher func() hash.Hash32) (goka.Producer, error) {
		byKey := kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int {
				n = cmp.Or(partitions, n)
				h := hasher()
				_, _ = h.Write(r.Key)             // a hash never fails: see hash.Hash
				at := int32(h.Sum32()) % int32(n) // as goka and sarama do: the sign goes last
				return int(max(at, -at))
			}
		})
		client, err := open(kgo.SeedBrokers(brokers...), kgo.ClientID(clientID), kgo.RecordPartitioner(byKey), kgo.ProducerLinger(linger))
		if err != nil {
			return nil, err
		}
		return &producer{client: client}, nil
	}
}

// Close lets what is in flight land for a moment, then gives up on it: its promises are finished with an error.
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

// A producer is goka.Producer: each record goes out as it comes.
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

// Headers gives records of the same content the same bytes, which goka's map would not.
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

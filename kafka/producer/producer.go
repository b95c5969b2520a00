// Package producer has the settings of a franz-go client by which no record is lost or reordered.
//
// A record is acknowledged by all in-sync replicas or fails with an error. The records of a partition are written once
// and in order. When one fails, those that are buffered behind it fail too, but records that are produced later are
// written: the caller must stop.
package producer

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deliveryTimeout is how long a record may wait to be sent, retries included. It outlasts the election of a new leader
// (9 s of session timeout and a few of metadata). When a record fails, a group ends and processes its events again, and
// the ingress does not acknowledge the event. A record that was in flight when the connection broke may have been
// written: franz-go retries it, and the records behind it, until a broker answers.
const deliveryTimeout = 45 * time.Second

// Options returns the client options for what the package promises. A batch has at most maxBytes.
func Options(maxBytes int32) []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.ProducerBatchMaxBytes(maxBytes),
		// franz-go would choose snappy, which kafka-python and others cannot read without a library of its own.
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		// More than callers have in flight: at the limit Produce blocks the callback of a group, and TryProduce fails.
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

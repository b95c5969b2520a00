package repartition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/topology"
)

// A writer writes records in transactions. Their id is the same in each run: a new one ends what a killed one left
// open, and nothing that was still on its way becomes visible.
type writer struct {
	conf    kafka.Config
	id      string
	client  *kgo.Client
	hook    func(*kgo.Record) error
	pending []*kgo.Record
	bytes   int
}

// How much is in one transaction.
const (
	maxRecords = 2000
	maxBytes   = 8 << 20
)

// patient waits for brokers until the context ends. kgo reckons the age of a record from its timestamp, which is
// copied.
var patient = kgo.RecordDeliveryTimeout(0)

func newWriter(ctx context.Context, conf kafka.Config, group string, hook func(*kgo.Record) error) (*writer, error) {
	w := &writer{conf: conf, id: epochs.TransactionalID(group, "repartition"), hook: hook}
	var err error
	if w.client, err = kafka.NewProducer(conf, kgo.TransactionalID(w.id), patient); err != nil {
		return nil, err
	}
	if _, _, err := w.client.ProducerID(ctx); err != nil { // which fences an earlier run
		w.close()
		return nil, fmt.Errorf("begin transactions as %s: %w", w.id, err)
	}
	return w, nil
}

func (w *writer) close() { w.client.Close() }

// put writes a record by and by: in order of its partition, and at the latest with flush.
func (w *writer) put(ctx context.Context, r *kgo.Record) error {
	if w.hook != nil {
		if err := w.hook(r); err != nil {
			return err
		}
	}
	size := sizeOf(r)
	if size > topology.MaxMessageBytes {
		return w.putCompressed(ctx, r)
	}
	w.pending = append(w.pending, r)
	if w.bytes += size; len(w.pending) >= maxRecords || w.bytes >= maxBytes {
		return w.flush(ctx)
	}
	return nil
}

// flush makes all that was put visible.
func (w *writer) flush(ctx context.Context) error {
	records := w.pending
	w.pending, w.bytes = nil, 0
	return write(ctx, w.client, records...)
}

// putCompressed writes a record that fits into a topic because its producer compressed it, and so again.
func (w *writer) putCompressed(ctx context.Context, r *kgo.Record) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	client, err := kafka.NewProducer(w.conf, kgo.TransactionalID(w.id+"-large"), patient,
		kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression())) // which is never the larger
	if err != nil {
		return err
	}
	defer client.Close()
	return write(ctx, client, r)
}

// write writes records in a transaction of their own.
func write(ctx context.Context, client *kgo.Client, records ...*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	if err := client.BeginTransaction(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	err := client.ProduceSync(ctx, records...).FirstErr()
	if err == nil {
		err = client.EndTransaction(context.WithoutCancel(ctx), kgo.TryCommit)
	} else {
		giveUp, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, client.AbortBufferedRecords(giveUp), client.EndTransaction(giveUp, kgo.TryAbort))
	}
	if err != nil {
		return fmt.Errorf("write to %s: %w", records[0].Topic, err)
	}
	return nil
}

// sizeOf is a bound on what a record takes in a batch of its own.
func sizeOf(r *kgo.Record) int {
	const batch, field = 128, 10 // of the batch and the record themselves; of a length
	n := batch + len(r.Key) + len(r.Value) + 2*field
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 2*field
	}
	return n
}

// copied returns a record for another topic, with the header of that name saying where it was read.
func copied(r *kgo.Record, topic string, partition int32, header string) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, len(r.Headers)+1)
	for _, h := range r.Headers {
		if h.Key != header {
			headers = append(headers, h)
		}
	}
	headers = append(headers, kgo.RecordHeader{Key: header, Value: []byte(text(r.Partition, r.Offset))})
	return &kgo.Record{
		Topic: topic, Partition: partition, Key: r.Key, Value: r.Value, Headers: headers, Timestamp: r.Timestamp,
	}
}

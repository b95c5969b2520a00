package repartition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/kafka/epochs"
	"tidemark/replay"
	"tidemark/topology"
)

// A writer writes records in transactions. Every run has the same transactional id, so a new run fences a killed one
// and aborts its open transaction.
type writer struct {
	conf    kafka.Config
	id      string
	client  *kgo.Client
	hook    func(*kgo.Record) error
	pending []*kgo.Record
	bytes   int
}

// Limits of a transaction.
const (
	maxRecords = 2000
	maxBytes   = 8 << 20
)

// noTimeout waits for brokers until the context ends. kgo's timeout would count from the timestamp of a record, which
// is copied.
var noTimeout = kgo.RecordDeliveryTimeout(0)

func newWriter(ctx context.Context, conf kafka.Config, group string, hook func(*kgo.Record) error) (*writer, error) {
	w := &writer{conf: conf, id: epochs.TransactionalID(group, "repartition"), hook: hook}
	var err error
	if w.client, err = kafka.NewProducer(conf, kgo.TransactionalID(w.id), noTimeout); err != nil {
		return nil, err
	}
	if _, _, err := w.client.ProducerID(ctx); err != nil { // which fences an earlier run
		w.close()
		return nil, fmt.Errorf("begin transactions as %s: %w", w.id, err)
	}
	return w, nil
}

func (w *writer) close() { w.client.Close() }

// put adds a record to the current transaction, and commits that when it is full.
func (w *writer) put(ctx context.Context, r *kgo.Record) error {
	if w.hook != nil {
		if err := w.hook(r); err != nil {
			return err
		}
	}
	size := replay.RecordSize(r)
	if size > topology.MaxMessageBytes {
		return w.putCompressed(ctx, r)
	}
	w.pending = append(w.pending, r)
	if w.bytes += size; len(w.pending) >= maxRecords || w.bytes >= maxBytes {
		return w.flush(ctx)
	}
	return nil
}

// flush commits the current transaction.
func (w *writer) flush(ctx context.Context) error {
	records := w.pending
	w.pending, w.bytes = nil, 0
	return write(ctx, w.client, records...)
}

// putCompressed writes a record that is within the topic's size limit only when compressed.
func (w *writer) putCompressed(ctx context.Context, r *kgo.Record) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	client, err := kafka.NewProducer(w.conf, kgo.TransactionalID(w.id+"-large"), noTimeout,
		kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		return err
	}
	defer client.Close()
	return write(ctx, client, r)
}

// write writes records in one transaction.
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

// copied returns a copy of a record for another topic, with its position in the header of that name.
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

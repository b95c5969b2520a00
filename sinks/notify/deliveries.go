package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
	"tidemark/kafka/producer"
	"tidemark/sinks"
)

// States of a delivery.
const (
	stateIntent   = "intent" // an attempt was begun
	stateFailed   = "failed"
	stateSent     = "sent"
	stateRejected = "rejected"
	stateDisabled = "disabled" // failed, and the rule is disabled
)

// A Delivery is the value of a record in fastio-deliveries.
type Delivery struct {
	State    string    `json:"state"`
	First    time.Time `json:"first_attempt,omitzero"`
	At       time.Time `json:"at,omitzero"` // of the last attempt, or of its acceptance
	After    time.Time `json:"retry_after,omitzero"`
	Attempts int       `json:"attempts,omitempty"`
	Refused  int       `json:"refused,omitempty"` // attempts that a working destination refused
	Answer   string    `json:"answer,omitempty"`
	Offset   int64     `json:"source_offset"` // the partition is the record's own
	Retried  bool      `json:"retried,omitempty"`
}

// A Store remembers the deliveries of rules by op id.
type Store interface {
	// Open returns what is known about the records of a batch, and from there on. The caller keeps the map up to date.
	Open(ctx context.Context, rule string, batch []*sinks.Record) (map[string]Delivery, error)
	// Put returns when d is acknowledged.
	Put(ctx context.Context, rule, op string, partition int32, d Delivery) error
}

// Deliveries is the Store in Kafka: a compacted topic with as many partitions as the notices. Only what is younger than
// the retention of the notices is of use: cleanup.policy is compact,delete.
type Deliveries struct {
	kafka  kafka.Config
	topic  string
	client *kgo.Client
	admin  *kadm.Client

	mu    sync.Mutex
	views map[viewKey]*view
	own   map[int32]kafka.Span // the last offsets of a partition, without one of another process among them
}

type viewKey struct {
	rule      string
	partition int32
	retried   bool // replayed dead letters, whose offsets are far behind
}

// A view is what is known of a rule in a partition, as of an offset of the deliveries topic.
type view struct {
	next  int64
	known map[string]Delivery
}

const (
	// repeats is how many offsets back op ids are remembered: a crash may repeat a notice in its topic.
	repeats = 500
	// clockSkew is how far the clocks of two brokers may be apart.
	clockSkew = 10 * time.Minute
)

// NewDeliveries returns the store in a topic.
func NewDeliveries(c kafka.Config, topic string) (*Deliveries, error) {
	client, err := kafka.NewProducer(c)
	if err != nil {
		return nil, err
	}
	return &Deliveries{
		kafka: c, topic: topic, client: client, admin: kadm.NewClient(client),
		views: map[viewKey]*view{}, own: map[int32]kafka.Span{},
	}, nil
}

// Close waits for what is in flight.
func (d *Deliveries) Close() error { return producer.Close(d.client) }

func keyPrefix(rule string) string { return url.PathEscape(rule) + "|" }

// Put implements Store.
func (d *Deliveries) Put(ctx context.Context, rule, op string, partition int32, delivery Delivery) error {
	value, err := json.Marshal(delivery)
	if err != nil {
		return err
	}
	r := &kgo.Record{Topic: d.topic, Partition: partition, Key: []byte(keyPrefix(rule) + op), Value: value}
	if err := d.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return fmt.Errorf("record a delivery in %s: %w", d.topic, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	own := d.own[partition]
	if own.To != r.Offset {
		own.From = r.Offset
	}
	d.own[partition] = kafka.Span{From: own.From, To: r.Offset + 1}
	return nil
}

// Open implements Store. At first it reads what is not older than the batch's first record: no attempt to deliver that
// can be. After that it reads what other processes have added, which had the partition meanwhile.
func (d *Deliveries) Open(ctx context.Context, rule string, batch []*sinks.Record) (map[string]Delivery, error) {
	first := batch[0]
	key := viewKey{rule, first.Partition, first.Retried}
	ends, err := d.admin.ListCommittedOffsets(ctx, d.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("look up the end of %s: %w", d.topic, err)
	}
	end, found := ends.Lookup(d.topic, first.Partition)
	if !found {
		return nil, fmt.Errorf("%s has no partition %d: it needs those of the notices' topic", d.topic, first.Partition)
	}
	d.mu.Lock()
	v, own := d.views[key], d.own[first.Partition]
	d.mu.Unlock()
	if v == nil {
		starts, err := kafka.OffsetsAt(ctx, d.kafka, d.topic, first.Time.Add(-clockSkew))
		if err != nil {
			return nil, err
		}
		v, own = &view{next: starts[first.Partition], known: map[string]Delivery{}}, kafka.Span{}
	}
	if v.next < own.From || own.To < end.Offset {
		span := kafka.Span{From: v.next, To: end.Offset}
		err := d.read(ctx, rule, first.Partition, span, func(op string, found Delivery) {
			if found.Retried == first.Retried {
				v.known[op] = found
			}
		})
		if err != nil {
			return nil, err
		}
	}
	v.next = end.Offset
	maps.DeleteFunc(v.known, func(_ string, known Delivery) bool {
		if first.Retried { // it was rejected before it was replayed
			return known.At.Before(first.Time)
		}
		return known.Offset < first.Offset-repeats
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.views[key] = v
	return v.known, nil
}

func (d *Deliveries) read(
	ctx context.Context, rule string, partition int32, span kafka.Span, each func(op string, d Delivery),
) error {
	return kafka.Read(ctx, d.kafka, d.topic, kafka.Spans{partition: span}, func(r *kgo.Record) error {
		op, found := strings.CutPrefix(string(r.Key), keyPrefix(rule))
		if !found {
			return nil
		}
		var delivery Delivery
		if err := json.Unmarshal(r.Value, &delivery); err != nil {
			return fmt.Errorf("%s/%d:%d: %w", d.topic, partition, r.Offset, err)
		}
		each(op, delivery)
		return nil
	})
}

// Enable ends the disabling of a rule, which continues where its group has committed. It returns in how many partitions
// the rule was disabled. Processes notice within a minute.
func (d *Deliveries) Enable(ctx context.Context, rule string) (int, error) {
	spans, err := kafka.Extent(ctx, d.kafka, d.topic)
	if err != nil {
		return 0, err
	}
	count := 0
	for partition, span := range spans {
		disabled := map[string]Delivery{}
		if err := d.read(ctx, rule, partition, span, func(op string, found Delivery) {
			if delete(disabled, op); found.State == stateDisabled {
				disabled[op] = found
			}
		}); err != nil {
			return count, err
		}
		for op, was := range disabled { // in any order: they are of different keys
			again := Delivery{State: stateFailed, Offset: was.Offset, Retried: was.Retried, Answer: "enabled again"}
			if err := d.Put(ctx, rule, op, partition, again); err != nil {
				return count, err
			}
			count++
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.views)
	return count, nil
}

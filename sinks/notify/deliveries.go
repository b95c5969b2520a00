package notify

import (
	"cmp"
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
	views map[viewKey]view
}

type viewKey struct {
	rule      string
	partition int32
	retried   bool // replayed dead letters, whose offsets are far behind
}

// A view is what is known of a rule in a partition, from the records of the deliveries topic before next.
type view struct {
	next  int64
	known map[string]Delivery
}

const (
	repeats   = 2048             // how many offsets back op ids are remembered: a crash may repeat a notice
	clockSkew = 10 * time.Minute // how far the clocks of two brokers may be apart
)

// NewDeliveries returns the store in a topic.
func NewDeliveries(c kafka.Config, topic string) (*Deliveries, error) {
	client, err := kafka.NewProducer(c)
	if err != nil {
		return nil, err
	}
	admin := kadm.NewClient(client)
	return &Deliveries{kafka: c, topic: topic, client: client, admin: admin, views: map[viewKey]view{}}, nil
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
	for key, v := range d.views {
		if key.partition == partition && v.next == r.Offset { // else another process has written in between
			d.views[key] = view{v.next + 1, v.known}
		}
	}
	return nil
}

// Open implements Store. At first it reads what is not older than the batch's first record: no attempt to deliver that
// can be. After that it reads what other processes have added, which had the partition meanwhile.
func (d *Deliveries) Open(ctx context.Context, rule string, batch []*sinks.Record) (map[string]Delivery, error) {
	first := batch[0]
	key := viewKey{rule, first.Partition, first.Retried}
	ends, err := d.admin.ListCommittedOffsets(ctx, d.topic)
	if err = cmp.Or(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("look up the end of %s: %w", d.topic, err)
	}
	end, _ := ends.Lookup(d.topic, first.Partition)
	d.mu.Lock()
	v := d.views[key]
	d.mu.Unlock()
	if v.known == nil {
		starts, err := kafka.OffsetsAt(ctx, d.kafka, d.topic, first.Time.Add(-clockSkew))
		if err != nil {
			return nil, err
		}
		v = view{starts[first.Partition], map[string]Delivery{}}
	}
	if v.next < end.Offset {
		span := kafka.Spans{first.Partition: {From: v.next, To: end.Offset}}
		err := d.read(ctx, rule, span, func(_ int32, op string, found Delivery) {
			if found.Retried == first.Retried {
				v.known[op] = found
			}
		})
		if err != nil {
			return nil, err
		}
	}
	maps.DeleteFunc(v.known, func(_ string, known Delivery) bool {
		if first.Retried { // it was rejected before it was replayed
			return known.At.Before(first.Time)
		}
		return known.Offset < first.Offset-repeats
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.views[key] = view{max(v.next, end.Offset), v.known}
	return v.known, nil
}

func (d *Deliveries) read(
	ctx context.Context, rule string, spans kafka.Spans, each func(partition int32, op string, d Delivery),
) error {
	return kafka.Read(ctx, d.kafka, d.topic, spans, func(r *kgo.Record) error {
		op, found := strings.CutPrefix(string(r.Key), keyPrefix(rule))
		if !found {
			return nil
		}
		var delivery Delivery
		if err := json.Unmarshal(r.Value, &delivery); err != nil {
			return fmt.Errorf("%s/%d:%d: %w", d.topic, r.Partition, r.Offset, err)
		}
		each(r.Partition, op, delivery)
		return nil
	})
}

// Enable ends the disabling of a rule, which continues where its group has committed. It returns in how many partitions
// the rule was disabled. Processes notice within two minutes.
func (d *Deliveries) Enable(ctx context.Context, rule string) (int, error) {
	spans, err := kafka.Extent(ctx, d.kafka, d.topic)
	if err != nil {
		return 0, err
	}
	type place struct {
		partition int32
		op        string
	}
	disabled, partitions := map[place]Delivery{}, map[int32]bool{}
	err = d.read(ctx, rule, spans, func(partition int32, op string, found Delivery) {
		if delete(disabled, place{partition, op}); found.State == stateDisabled {
			disabled[place{partition, op}] = found
		}
	})
	if err != nil {
		return 0, err
	}
	for at, was := range disabled { // in any order: they are of different keys
		again := Delivery{State: stateFailed, Offset: was.Offset, Retried: was.Retried, Answer: "enabled again"}
		err = cmp.Or(err, d.Put(ctx, rule, at.op, at.partition, again))
		partitions[at.partition] = true
	}
	return len(partitions), err
}

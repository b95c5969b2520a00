package notify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
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
	known map[source]history
}

// A source is where a rule's notices come from.
type source struct {
	rule      string
	partition int32
	retried   bool // replayed dead letters, whose offsets are far behind
}

// A history has the deliveries by op id, from the records of the deliveries topic before next.
type history struct {
	next       int64
	deliveries map[string]Delivery
	own        map[int64]bool // offsets after next that Put has written: not to be read
}

const (
	repeats   = 2048             // how many offsets back op ids are remembered: a crash may repeat a notice
	clockSkew = 10 * time.Minute // how far the clocks of two brokers may be apart
)

// NewDeliveries returns the store in a topic.
func NewDeliveries(c kafka.Config, topic string) (*Deliveries, error) {
	client, err := kafka.NewProducer(c, kgo.ProducerLinger(0)) // each attempt waits for two writes
	if err != nil {
		return nil, err
	}
	admin := kadm.NewClient(client)
	return &Deliveries{kafka: c, topic: topic, client: client, admin: admin, known: map[source]history{}}, nil
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
	for from, h := range d.known {
		if from.partition == partition {
			h.own[r.Offset] = true
			for h.own[h.next] { // else another process has written in between, or an earlier Put waits
				delete(h.own, h.next)
				h.next++
			}
			d.known[from] = h
		}
	}
	return nil
}

// Open implements Store. The first call reads from the time of the batch's first record on: no attempt for it is older.
// Later calls read what other owners of the partition have appended.
func (d *Deliveries) Open(ctx context.Context, rule string, batch []*sinks.Record) (map[string]Delivery, error) {
	first := batch[0]
	from := source{rule, first.Partition, first.Retried}
	ends, err := d.admin.ListCommittedOffsets(ctx, d.topic)
	if err = cmp.Or(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("look up the end of %s: %w", d.topic, err)
	}
	end, _ := ends.Lookup(d.topic, first.Partition)
	d.mu.Lock()
	h := d.known[from]
	d.mu.Unlock()
	if h.deliveries == nil {
		starts, err := kafka.OffsetsAt(ctx, d.kafka, d.topic, first.Time.Add(-clockSkew))
		if err != nil {
			return nil, err
		}
		h = history{starts[first.Partition], map[string]Delivery{}, map[int64]bool{}}
	}
	if h.next < end.Offset {
		added, err := d.read(ctx, rule, kafka.Spans{first.Partition: {From: h.next, To: end.Offset}}, "")
		if err != nil {
			return nil, err
		}
		h.next, h.own = end.Offset, map[int64]bool{}
		for at, found := range added {
			if found.Retried == first.Retried {
				h.deliveries[at.op] = found
			}
		}
	}
	maps.DeleteFunc(h.deliveries, func(_ string, known Delivery) bool {
		if first.Retried { // it was rejected before it was replayed
			return known.At.Before(first.Time)
		}
		return known.Offset < first.Offset-repeats
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[from] = h
	return h.deliveries, nil
}

// A deliveryKey identifies the deliveries of a notice.
type deliveryKey struct {
	partition int32
	op        string
}

// read returns the last delivery of each notice of a rule in the spans, of those whose state it is; of all if it is "".
// Records of other rules cost no more than their bytes.
func (d *Deliveries) read(
	ctx context.Context, rule string, spans kafka.Spans, state string,
) (map[deliveryKey]Delivery, error) {
	prefix, begin, values := []byte(keyPrefix(rule)), []byte(`{"state":"`+state), map[deliveryKey][]byte{}
	err := kafka.Read(ctx, d.kafka, d.topic, spans, func(r *kgo.Record) error {
		if op, found := bytes.CutPrefix(r.Key, prefix); found {
			at := deliveryKey{r.Partition, string(op)}
			if delete(values, at); bytes.HasPrefix(r.Value, begin) { // Put writes the state first
				values[at] = bytes.Clone(r.Value)
			}
		}
		return nil
	})
	deliveries := map[deliveryKey]Delivery{}
	for at, value := range values {
		var delivery Delivery
		if failed := json.Unmarshal(value, &delivery); failed != nil {
			err = cmp.Or(err, fmt.Errorf("%s/%d, key %s%s: %w", d.topic, at.partition, prefix, at.op, failed))
		}
		deliveries[at] = delivery
	}
	return deliveries, err
}

// Enable ends the disabling of a rule, which continues where its group has committed. It returns in how many partitions
// the rule was disabled. Processes notice within two minutes.
func (d *Deliveries) Enable(ctx context.Context, rule string) (int, error) {
	spans, err := kafka.Extent(ctx, d.kafka, d.topic)
	if err != nil {
		return 0, err
	}
	disabled, err := d.read(ctx, rule, spans, stateDisabled)
	if err != nil {
		return 0, err
	}
	partitions := map[int32]bool{}
	for at, was := range disabled { // in any order: they are of different keys
		again := Delivery{State: stateFailed, Offset: was.Offset, Retried: was.Retried, Answer: "enabled again"}
		err = cmp.Or(err, d.Put(ctx, rule, at.op, at.partition, again))
		partitions[at.partition] = true
	}
	return len(partitions), err
}

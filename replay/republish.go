package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/file"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Republish appends events of the past to the events topic again.
type Republish struct {
	Kafka  kafka.Config
	Events string // the topic
	Group  string // commits the progress; it has no members
	Select Selection
	Force  bool           // also send events that are not safe to repeat
	Rate   float64        // events a second; 0 is no limit
	Report func(Progress) // called after each batch
}

// A Count counts the records that a run has read.
type Count struct {
	Sent         int
	Invalid      int    // records that cannot be folded at their position: they are dead letters
	FirstInvalid string // its position, and why
	NotSelected  int
	Skipped      int    // not safe to repeat, or too large
	FirstSkipped string // its position, and why
	Remaining    int64  // offsets that were not read before the run was interrupted
}

// A checkpoint is the metadata of each commit.
type checkpoint struct {
	To     int64     `json:"to"`
	Select Selection `json:"select"`
	Force  bool      `json:"force,omitempty"`
}

// Spans returns the offsets that the run will read: the rest of an interrupted run, or those that the selection matches
// now. With fresh, an interrupted run is ignored: call Forget before Run.
func (a *Republish) Spans(ctx context.Context, fresh bool) (spans kafka.Spans, resumed bool, err error) {
	committed, err := kafka.Committed(ctx, a.Kafka, a.Group, a.Events)
	if err != nil {
		return nil, false, err
	}
	spans = kafka.Spans{}
	for partition, o := range committed {
		var c checkpoint
		if err := json.Unmarshal([]byte(o.Metadata), &c); err != nil || o.At >= c.To || fresh {
			continue
		}
		if c.Select.String() != a.Select.String() || c.Force != a.Force {
			what := c.Select.String()
			if c.Force {
				what += ", --force"
			}
			return nil, false, fmt.Errorf("another replay was interrupted and is not finished: %s. "+
				"Run it again, or forget it with --fresh", what)
		}
		spans[partition] = kafka.Span{From: o.At, To: c.To}
	}
	if len(spans) > 0 {
		return spans, true, nil
	}
	if _, err := a.metadata(math.MaxInt64); err != nil { // fail before anything is sent
		return nil, false, err
	}
	spans, err = a.Select.Spans(ctx, a.Kafka, a.Events, time.Now())
	maps.DeleteFunc(spans, func(_ int32, s kafka.Span) bool { return s.From >= s.To })
	return spans, false, err
}

// Forget ends an interrupted run: it commits the end of the run's spans.
func (a *Republish) Forget(ctx context.Context) error {
	committed, err := kafka.Committed(ctx, a.Kafka, a.Group, a.Events)
	if err != nil {
		return err
	}
	var ended []kadm.Offset
	for _, o := range committed {
		var c checkpoint
		if err := json.Unmarshal([]byte(o.Metadata), &c); err == nil && o.At < c.To {
			o.At = c.To
			ended = append(ended, o)
		}
	}
	return kafka.Commit(ctx, a.Kafka, a.Group, ended...)
}

// Run sends the selected events of spans. It returns the error of ctx when that ends; the next run with the same
// selection continues.
func (a *Republish) Run(ctx context.Context, spans kafka.Spans) (*Count, error) {
	extent, err := kafka.Extent(ctx, a.Kafka, a.Events)
	if err != nil {
		return &Count{}, err
	}
	sender, err := kafka.NewProducer(a.Kafka)
	if err != nil {
		return &Count{}, err
	}
	defer sender.Close()
	r := &run{
		Republish: a, spans: spans, partitions: len(extent), sender: sender,
		total: spans.Len(), next: map[int32]int64{},
	}
	r.pace, r.most = Pace(a.Rate, maxBatch)
	for partition, span := range spans {
		r.next[partition] = span.From
	}
	if err := r.commit(ctx); err != nil { // before the first event is sent, so that any interrupted run is found
		return &r.count, err
	}
	err = kafka.Read(ctx, a.Kafka, a.Events, spans, func(record *kgo.Record) error { return r.add(ctx, record) })
	if err == nil {
		for partition, span := range spans {
			r.next[partition] = span.To // also past offsets without a record
		}
	}
	if !r.failed { // an interrupted run sends and commits its last batch
		err = errors.Join(err, r.flush(context.WithoutCancel(ctx)))
	}
	r.count.Remaining = r.total - r.done()
	return &r.count, err
}

const (
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	maxBatchTime  = time.Second
)

// A run is one call of Run.
type run struct {
	*Republish
	spans      kafka.Spans
	partitions int
	sender     *kgo.Client
	pace       *rate.Limiter
	most       int
	total      int64

	next  map[int32]int64 // the offset after the last record that was read
	batch []*kgo.Record
	bytes int
	begun time.Time // first record of the batch
	count Count

	failed bool // a send or a commit has failed: nothing more is sent or committed
}

func (r *run) add(ctx context.Context, record *kgo.Record) error {
	if r.begun.IsZero() {
		r.begun = time.Now()
	}
	from := (&tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}).Text()
	again, e, err := Record(record.Value, record.Headers, r.Events, r.partitions, from)
	invalid, unsafe := "", ""
	if err != nil {
		invalid = err.Error()
	} else if r.Select.Wants(e) {
		invalid, unsafe = contradiction(record, again), r.unsafe(again, e)
	}
	switch {
	case invalid != "":
		if r.count.Invalid++; r.count.FirstInvalid == "" {
			r.count.FirstInvalid = from + ": " + invalid
		}
	case !r.Select.Wants(e):
		r.count.NotSelected++
	case unsafe != "":
		if r.count.Skipped++; r.count.FirstSkipped == "" {
			r.count.FirstSkipped = from + ": " + unsafe
		}
	default:
		if err := r.pace.Wait(ctx); err != nil {
			return err
		}
		r.batch = append(r.batch, again)
		r.bytes += len(again.Value)
	}
	r.next[record.Partition] = record.Offset + 1
	if len(r.batch) >= r.most || r.bytes >= maxBatchBytes || time.Since(r.begun) >= maxBatchTime {
		return r.flush(context.WithoutCancel(ctx))
	}
	return nil
}

// unsafe returns why a selected event is not sent, or nothing. An event can be repeated if it has a time, which keeps
// it from overwriting newer state, and a row, which remembers its id.
func (a *Republish) unsafe(again *kgo.Record, e *tidemarkv1.Event) string {
	e.RecordedAt = time.Now().UnixMicro() // as the broker will set it: the arrival of an event without received_at
	switch size := RecordSize(again); {
	case size > topology.MaxMessageBytes:
		return fmt.Sprintf("its uncompressed size of %d bytes is over the limit of a record: "+
			"send it again from its source", size)
	case a.Force:
		return ""
	case !file.Dated(e):
		return "it has no time, so it would overwrite newer state; --force sends it"
	case !file.Touches(e):
		return "no row remembers it, as it touches no file: its notice and counts would be repeated; --force sends it"
	}
	return ""
}

// flush sends the batch and commits the offsets that were read.
func (r *run) flush(ctx context.Context) error {
	if len(r.batch) > 0 {
		if err := r.sender.ProduceSync(ctx, r.batch...).FirstErr(); err != nil {
			r.failed = true
			return fmt.Errorf("send into %s: %w", r.Events, err)
		}
	}
	r.count.Sent += len(r.batch)
	r.batch, r.bytes, r.begun = nil, 0, time.Time{}
	if err := r.commit(ctx); err != nil {
		r.failed = true
		return err
	}
	if r.Report != nil {
		r.Report(Progress{Done: r.done(), Total: r.total})
	}
	return nil
}

func (r *run) done() (n int64) {
	for partition, span := range r.spans {
		n += r.next[partition] - span.From
	}
	return n
}

func (r *run) commit(ctx context.Context) error {
	offsets := make([]kadm.Offset, 0, len(r.spans))
	for partition, span := range r.spans {
		metadata, err := r.metadata(span.To)
		if err != nil {
			return err
		}
		offsets = append(offsets, kadm.Offset{
			Topic: r.Events, Partition: partition, At: r.next[partition], LeaderEpoch: -1, Metadata: metadata,
		})
	}
	return kafka.Commit(ctx, r.Kafka, r.Group, offsets...)
}

// maxMetadata is the default of the brokers' offset.metadata.max.bytes.
const maxMetadata = 4096

// metadata returns the metadata of a commit, for a span that ends at to.
func (a *Republish) metadata(to int64) (string, error) {
	data, err := json.Marshal(checkpoint{To: to, Select: a.Select, Force: a.Force})
	if err != nil {
		return "", fmt.Errorf("encode the metadata of a commit: %w", err)
	}
	if len(data) > maxMetadata {
		return "", fmt.Errorf("the selection does not fit into the metadata of a commit: "+
			"%d bytes, the limit is %d: replay in several parts",
			len(data), maxMetadata)
	}
	return string(data), nil
}

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

// Again puts events into their topic once more.
type Again struct {
	Kafka  kafka.Config
	Events string // the topic
	Group  string // under which the run keeps how far it is; it has no members
	Select Selection
	Force  bool           // send what is not safe to repeat too
	Rate   float64        // events a second; 0 is no limit
	Report func(Progress) // called after each batch
}

// A Count is what a run did.
type Count struct {
	Sent      int
	Unfit     int    // records that are dead letters where they lie
	Why       string // of the first of them
	Unwanted  int    // not selected
	Left      int    // left out: see Again.leftOut
	LeftWhy   string // of the first of them
	Remaining int64  // offsets that were not looked at, when it was cut short
}

// ErrLongSelection says that what is selected takes more words than can be kept beside the place of a run.
var ErrLongSelection = errors.New("the selection is too long to go on with it if it is cut short")

// ErrUnfinished says that another run was cut short: its place would be lost.
var ErrUnfinished = errors.New("another replay was cut short and waits to go on")

// A place is what a run keeps with each offset that it commits.
type place struct {
	To     int64     `json:"to"`
	Select Selection `json:"select"`
	Force  bool      `json:"force,omitempty"`
}

// Spans returns what the run will look at: the rest of the one that was cut short, or what the selection means now. With fresh,
// one that was cut short is passed over: Forget it before Run.
func (a *Again) Spans(ctx context.Context, fresh bool) (spans kafka.Spans, wentOn bool, err error) {
	committed, err := kafka.Committed(ctx, a.Kafka, a.Group, a.Events)
	if err != nil {
		return nil, false, err
	}
	spans = kafka.Spans{}
	for partition, o := range committed {
		var kept place
		if err := json.Unmarshal([]byte(o.Metadata), &kept); err != nil || o.At >= kept.To || fresh {
			continue
		}
		if kept.Select.String() != a.Select.String() || kept.Force != a.Force {
			what := kept.Select.String()
			if kept.Force {
				what += ", --force"
			}
			return nil, false, fmt.Errorf("%w: %s. Start that again, or forget it with --fresh", ErrUnfinished, what)
		}
		spans[partition] = kafka.Span{From: o.At, To: kept.To}
	}
	if len(spans) > 0 {
		return spans, true, nil
	}
	if _, err := a.kept(math.MaxInt64); err != nil { // now, and not when some are sent
		return nil, false, err
	}
	spans, err = a.Select.Spans(ctx, a.Kafka, a.Events, time.Now())
	maps.DeleteFunc(spans, func(_ int32, s kafka.Span) bool { return s.From >= s.To })
	return spans, false, err
}

// Forget gives up a run that was cut short: its place in every partition counts as its end.
func (a *Again) Forget(ctx context.Context) error {
	committed, err := kafka.Committed(ctx, a.Kafka, a.Group, a.Events)
	if err != nil {
		return err
	}
	var ended []kadm.Offset
	for _, o := range committed {
		var kept place
		if err := json.Unmarshal([]byte(o.Metadata), &kept); err == nil && o.At < kept.To {
			o.At = kept.To
			ended = append(ended, o)
		}
	}
	return kafka.Commit(ctx, a.Kafka, a.Group, ended...)
}

// Run sends what is selected in spans. When ctx ends it returns its error; started again with the same selection it goes on.
func (a *Again) Run(ctx context.Context, spans kafka.Spans) (*Count, error) {
	extent, err := kafka.Extent(ctx, a.Kafka, a.Events)
	if err != nil {
		return &Count{}, err
	}
	sender, err := kafka.NewProducer(a.Kafka)
	if err != nil {
		return &Count{}, err
	}
	defer sender.Close()
	r := &run{Again: a, spans: spans, partitions: len(extent), sender: sender, most: maxBatch, total: spans.Len(), next: map[int32]int64{}}
	r.pace = rate.NewLimiter(rate.Inf, 1)
	if a.Rate > 0 {
		r.pace.SetLimit(rate.Limit(a.Rate))
		r.most = int(max(1, min(float64(r.most), math.Ceil(a.Rate))))
	}
	for partition, span := range spans {
		r.next[partition] = span.From
	}
	if err := r.commit(ctx); err != nil { // before the first is sent: a run cut at once is known too
		return &r.count, err
	}
	err = kafka.Read(ctx, a.Kafka, a.Events, spans, func(record *kgo.Record) error { return r.add(ctx, record) })
	if err == nil {
		for partition, span := range spans {
			r.next[partition] = span.To // also past what has no record
		}
	}
	if !r.broken { // what was gathered before the cut is sent and committed
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
	*Again
	spans      kafka.Spans
	partitions int
	sender     *kgo.Client
	pace       *rate.Limiter
	most       int
	total      int64

	next  map[int32]int64 // the offset after the last record looked at
	batch []*kgo.Record
	bytes int
	begun time.Time // of the batch
	count Count

	broken bool // a record was not sent or a place not kept: nothing behind it may be
}

func (r *run) add(ctx context.Context, record *kgo.Record) error {
	if r.begun.IsZero() {
		r.begun = time.Now()
	}
	from := (&tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}).Text()
	again, e, err := Record(record.Value, record.Headers, r.Events, r.partitions, from)
	why, leftOut := "", ""
	if err != nil {
		why = err.Error()
	} else if r.Select.Wants(e) {
		why, leftOut = misplaced(record, again), r.leftOut(again, e)
	}
	switch {
	case why != "":
		if r.count.Unfit++; r.count.Why == "" {
			r.count.Why = from + ": " + why
		}
	case !r.Select.Wants(e):
		r.count.Unwanted++
	case leftOut != "":
		if r.count.Left++; r.count.LeftWhy == "" {
			r.count.LeftWhy = from + ": " + leftOut
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

// leftOut says why an event that is selected is not sent, or nothing. One that is folded a second time must be told from a new one:
// by its time, against which newer state is held, and by its id, which its file's row remembers.
func (a *Again) leftOut(again *kgo.Record, e *tidemarkv1.Event) string {
	e.RecordedAt = time.Now().UnixMicro() // as it will be: an event that does not say when it arrived did so then
	switch size := sizeOf(again); {
	case size > topology.MaxMessageBytes:
		return fmt.Sprintf("its %d bytes, which its producer compressed, are more than a record may have: send it again from its source", size)
	case a.Force:
		return ""
	case !file.Dated(e):
		return "it has no time, so it would overwrite newer state; --force sends it"
	case !file.Touches(e):
		return "it touches no file, whose row would remember it, so its notice and its counts would come twice; --force sends it"
	}
	return ""
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

// flush sends the batch and commits what it went past.
func (r *run) flush(ctx context.Context) error {
	if len(r.batch) > 0 {
		if err := r.sender.ProduceSync(ctx, r.batch...).FirstErr(); err != nil {
			r.broken = true
			return fmt.Errorf("send into %s: %w", r.Events, err)
		}
	}
	r.count.Sent += len(r.batch)
	r.batch, r.bytes, r.begun = nil, 0, time.Time{}
	if err := r.commit(ctx); err != nil {
		r.broken = true
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
		kept, err := r.kept(span.To)
		if err != nil {
			return err
		}
		offsets = append(offsets, kadm.Offset{Topic: r.Events, Partition: partition, At: r.next[partition], LeaderEpoch: -1, Metadata: kept})
	}
	return kafka.Commit(ctx, r.Kafka, r.Group, offsets...)
}

// maxMetadata is what brokers take with a commit: offset.metadata.max.bytes, if nobody changed it.
const maxMetadata = 4096

// kept is what is said with the commit of a partition that is read up to an offset.
func (a *Again) kept(to int64) (string, error) {
	kept, err := json.Marshal(place{To: to, Select: a.Select, Force: a.Force})
	if err != nil {
		return "", fmt.Errorf("keep the place: %w", err)
	}
	if len(kept) > maxMetadata {
		return "", fmt.Errorf("%w: %d bytes, and %d are what a commit has room for: replay in several parts", ErrLongSelection, len(kept), maxMetadata)
	}
	return string(kept), nil
}

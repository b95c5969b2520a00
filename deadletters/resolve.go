package deadletters

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/replay"
	"tidemark/topology"
)

// Options say how entries are resolved.
type Options struct {
	Yes   bool    // do it; without, only say what would be done
	Rate  float64 // records a second; 0 is no limit
	Force bool    // also replay what is still no event, which will be dead-lettered again

	Report func(replay.Progress) // called after each batch, counted in entries
}

// A Tally is what became of the entries of one reason.
type Tally struct {
	Reason  string
	Done    int    // replayed or dropped, or would be
	Left    int    // not, because of Why
	Why     string // of the first that was left
	LeftOne *Entry // the first that was left
}

// A Result is what a call did, or would do.
type Result struct {
	DryRun  bool
	Done    int
	Left    int
	Tallies []Tally // by reason, in the order met

	// Of the positions that the filter named:
	Already []*Entry // resolved before
	Unknown []Source // no dead letters, or none any more
}

// Err returns an error that names the positions at which there is no dead letter; nil when there are none such.
func (r *Result) Err(events string) error {
	var errs []error
	for _, s := range r.Unknown {
		errs = append(errs, fmt.Errorf("%s: %w", s.Text(events), ErrNoEntry))
	}
	return errors.Join(errs...)
}

// named returns the entries at the positions that the filter names, of two logs the newest, that match what else it says, and notes
// what became of the others.
func (r *Result) named(ctx context.Context, q *Queue, f Filter) ([]*Entry, error) {
	entries, err := q.Entries(ctx, Filter{Sources: f.Sources, All: true})
	if err != nil {
		return nil, err
	}
	newest := map[Source]*Entry{}
	for _, e := range entries {
		if known := newest[e.Source]; known == nil || known.at.offset < e.at.offset {
			newest[e.Source] = e
		}
	}
	for _, s := range f.Sources {
		if newest[s] == nil {
			r.Unknown = append(r.Unknown, s)
		}
	}
	matches := f.matcher()
	return slices.DeleteFunc(entries, func(e *Entry) bool {
		if newest[e.Source] == e && e.Resolved != "" {
			r.Already = append(r.Already, e)
		}
		return newest[e.Source] != e || !matches(e)
	}), nil
}

func (r *Result) count(e *Entry, why string) {
	i := 0
	for i < len(r.Tallies) && r.Tallies[i].Reason != e.Reason {
		i++
	}
	if i == len(r.Tallies) {
		r.Tallies = append(r.Tallies, Tally{Reason: e.Reason})
	}
	t := &r.Tallies[i]
	if why == "" {
		r.Done++
		t.Done++
		return
	}
	if t.Left == 0 {
		t.Why, t.LeftOne = why, e
	}
	r.Left++
	t.Left++
}

// Replay puts the entries that match back into the events topic, in their order, and marks each once the broker has it. Unless
// forced it leaves those that are still no events. It may be stopped and repeated: an entry that was sent and not marked is
// sent again, and its id tells.
func (q *Queue) Replay(ctx context.Context, f Filter, o Options) (*Result, error) {
	events, err := kafka.Extent(ctx, q.kafka, q.Events())
	if err != nil {
		return nil, err
	}
	return q.resolve(ctx, f, o, Replayed, func(e *Entry, r *kgo.Record) (*kgo.Record, string) {
		return q.again(e, r, len(events), o.Force)
	})
}

// Drop marks the entries that match as let go. Their records stay where they are, until retention takes them.
func (q *Queue) Drop(ctx context.Context, f Filter, o Options) (*Result, error) {
	return q.resolve(ctx, f, o, Dropped, func(*Entry, *kgo.Record) (*kgo.Record, string) { return nil, "" })
}

// again returns the record that puts an entry back, or why it is left.
func (q *Queue) again(e *Entry, r *kgo.Record, partitions int, force bool) (again *kgo.Record, why string) {
	if e.Source.Topic != q.Events() {
		return nil, fmt.Sprintf("it came from %s: only records of %s can be replayed", e.Source.Topic, q.Events())
	}
	headers := headersOf(r)
	at := e.Source.Text(q.Events())
	if length := headers[topology.HeaderValueOmitted]; length != "" {
		return nil, fmt.Sprintf("its value of %s bytes was too large to keep: the record lies at %s of %s until retention takes it", length, at, q.Events())
	}
	from := "dlq " + at
	again, _, err := replay.Record(r.Value, r.Headers, q.Events(), partitions, from)
	switch {
	case err == nil:
		return again, ""
	case !force:
		return nil, "it would be dead-lettered again: " + err.Error()
	case int(e.Source.Partition) >= partitions:
		return nil, fmt.Sprintf("%s has no partition %d", q.Events(), e.Source.Partition)
	case headers[topology.HeaderKeyOmitted] != "", headers[topology.HeaderHeadersOmitted] != "":
		return nil, fmt.Sprintf("its key or its headers were too large to keep: the record lies at %s of %s until retention takes it", at, q.Events())
	}
	key := r.Key
	if headers[topology.HeaderKeyNull] != "" {
		key = nil
	}
	return &kgo.Record{
		Topic: q.Events(), Partition: e.Source.Partition, Key: key, Value: r.Value, Headers: replay.Headers(r.Headers, nil, from),
	}, ""
}

// A plan returns what is to be sent for an entry, nil for nothing, or why the entry is left as it is.
type plan func(*Entry, *kgo.Record) (again *kgo.Record, why string)

func (q *Queue) resolve(ctx context.Context, f Filter, o Options, as string, plan plan) (*Result, error) {
	result := &Result{DryRun: !o.Yes}
	f.All = false
	var entries []*Entry
	var err error
	if len(f.Sources) > 0 {
		entries, err = result.named(ctx, q, f)
	} else {
		entries, err = q.Entries(ctx, f)
	}
	if err != nil {
		return result, err
	}
	var sender *kgo.Client
	if o.Yes {
		if sender, err = kafka.NewProducer(q.kafka); err != nil {
			return result, err
		}
		defer sender.Close()
	}
	pace := rate.NewLimiter(rate.Inf, 1)
	most := chunkEntries
	if o.Rate > 0 {
		pace.SetLimit(rate.Limit(o.Rate))
		most = int(max(1, min(float64(most), math.Ceil(o.Rate)))) // so that what was sent is marked within a second or so
	}
	for _, part := range chunks(entries, most) {
		records, err := q.records(ctx, part)
		if err != nil {
			return result, err
		}
		b := &batch{queue: q, sender: sender, as: as, pace: pace, result: result}
		if err := b.run(ctx, part, records, plan); err != nil {
			return result, err
		}
		if o.Report != nil {
			o.Report(replay.Progress{Done: int64(result.Done + result.Left), Total: int64(len(entries))})
		}
	}
	return result, nil
}

// A batch resolves some entries: all are sent, then those that landed are marked.
type batch struct {
	queue  *Queue
	sender *kgo.Client // nil: nothing is to be done
	as     string
	pace   *rate.Limiter
	result *Result
}

// A sending is an entry on its way.
type sending struct {
	entry *Entry
	dead  *kgo.Record
	again *kgo.Record // nil when there is nothing to send
	err   error       // set by the producer before Flush returns
}

func (b *batch) run(ctx context.Context, entries []*Entry, records map[place]*kgo.Record, plan plan) error {
	var sent []*sending
	var failed error
	for _, e := range entries {
		dead := records[e.at]
		if dead == nil {
			b.result.count(e, "retention took it meanwhile")
			continue
		}
		again, why := plan(e, dead)
		if why != "" || b.sender == nil {
			b.result.count(e, why)
			continue
		}
		if failed = b.pace.Wait(ctx); failed != nil {
			break
		}
		s := &sending{entry: e, dead: dead, again: again}
		sent = append(sent, s)
		if again != nil {
			// Not ctx: what is on its way when somebody presses Ctrl-C lands and is marked.
			b.sender.Produce(context.WithoutCancel(ctx), again, func(_ *kgo.Record, err error) { s.err = err })
		}
	}
	if len(sent) == 0 {
		return failed
	}
	if err := b.sender.Flush(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return errors.Join(b.mark(context.WithoutCancel(ctx), sent), failed)
}

// mark marks what landed, and says what did not. Once a record failed, none behind it in its partition landed.
func (b *batch) mark(ctx context.Context, sent []*sending) error {
	var markers []*kgo.Record
	marked := map[*kgo.Record]*Entry{}
	var failed error
	for _, s := range sent {
		if s.err != nil {
			if failed == nil {
				failed = denied(s.again.Topic, fmt.Errorf("replay %s: %w", s.entry.Source.Text(b.queue.Events()), s.err))
			}
			continue
		}
		m := b.marker(s)
		markers, marked[m] = append(markers, m), s.entry
	}
	answers := b.sender.ProduceSync(ctx, markers...) // in the order in which they were acknowledged
	for _, answer := range answers {
		if answer.Err == nil {
			b.result.count(marked[answer.Record], "")
		}
	}
	if err := answers.FirstErr(); err != nil {
		failed = errors.Join(failed, denied(b.queue.streams.DLQ.Name, fmt.Errorf("mark what was %s: %w", b.as, err)))
	}
	return failed
}

// marker is the record that resolves an entry: it lies behind it in its partition, and bears its key.
func (b *batch) marker(s *sending) *kgo.Record {
	e := s.entry
	headers := []kgo.RecordHeader{
		{Key: topology.HeaderResolved, Value: []byte(b.as)},
		{Key: topology.HeaderTopic, Value: []byte(e.Source.Topic)},
		{Key: topology.HeaderPartition, Value: strconv.AppendInt(nil, int64(e.Source.Partition), 10)},
		{Key: topology.HeaderOffset, Value: strconv.AppendInt(nil, e.Source.Offset, 10)},
		{Key: topology.HeaderEntry, Value: strconv.AppendInt(nil, e.last.offset, 10)},
		{Key: topology.HeaderResolvedAt, Value: time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)},
	}
	if s.again != nil {
		e.ReplayedTo = (&tidemarkv1.Position{Partition: s.again.Partition, Offset: s.again.Offset}).Text()
		headers = append(headers, kgo.RecordHeader{Key: topology.HeaderReplayedTo, Value: []byte(e.ReplayedTo)})
	}
	return &kgo.Record{Topic: b.queue.streams.DLQ.Name, Partition: e.at.partition, Key: s.dead.Key, Headers: headers}
}

// denied says what to grant when the brokers do not let this user write.
func denied(topic string, err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("%w (see `tidemark topics acls`): %w", &kafka.Denied{Resource: "topic " + topic, Action: "write to it", Operation: "Write"}, err)
	}
	return err
}

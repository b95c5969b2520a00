package deadletters

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"tidemark/kafka"
	"tidemark/replay"
	"tidemark/topology"
)

// Options are the options of Replay and Drop.
type Options struct {
	Yes   bool    // without it, only the result is computed
	Rate  float64 // records a second; 0 is no limit
	Force bool    // replay also records that are still not events; they will be dead-lettered again

	Report   func(replay.Progress) // called after each batch, counted in entries
	Selected func(entries int)     // called once, before the first entry
	Each     func(Outcome)         // called for each entry
}

// A Tally counts the entries of one reason, and of one sink.
type Tally struct {
	Reason  string `json:"reason"`
	Sink    string `json:"sink,omitempty"`
	Done    int    `json:"done"` // replayed or dropped, or would be
	Skipped int    `json:"left,omitempty"`
	Why     string `json:"why,omitempty"`          // why Example was skipped
	Example *Entry `json:"left_example,omitempty"` // the first one that was skipped
}

// A Result is what a call did, or would do.
type Result struct {
	DryRun  bool    `json:"dry_run"`
	Done    int     `json:"done"`
	Skipped int     `json:"left"`
	Tallies []Tally `json:"reasons"` // in the order in which the reasons were found

	// Of the sources that the filter names:
	Already []*Entry `json:"already,omitempty"` // resolved before
	Unknown []string `json:"unknown,omitempty"` // not dead letters, or expired
}

// Err returns an error that names the unknown sources, nil if there are none.
func (r *Result) Err() error {
	var errs []error
	for _, id := range r.Unknown {
		errs = append(errs, fmt.Errorf("%s: %w", id, ErrNoEntry))
	}
	return errors.Join(errs...)
}

// named returns the entries of the sources that the filter names, if they match the rest of it, and records the others
// in the result. Of two entries of one source only the newest counts: the other is of a topic that was recreated.
func (r *Result) named(ctx context.Context, q *Queue, f Filter) ([]*Entry, error) {
	entries, err := q.Entries(ctx, Filter{Sources: f.Sources, All: true})
	if err != nil {
		return nil, err
	}
	newest := map[Source]*Entry{}
	for _, e := range entries {
		if known := newest[e.Source]; known == nil || known.first.offset < e.first.offset {
			newest[e.Source] = e
		}
	}
	for _, s := range f.Sources {
		if newest[s] == nil {
			r.Unknown = append(r.Unknown, s.Text(q.Events()))
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

// count counts an entry; why says why it was skipped, or is empty.
func (r *Result) count(e *Entry, why string) {
	i := slices.IndexFunc(r.Tallies, func(t Tally) bool { return t.Reason == e.Reason && t.Sink == e.Sink })
	if i < 0 {
		i = len(r.Tallies)
		r.Tallies = append(r.Tallies, Tally{Reason: e.Reason, Sink: e.Sink})
	}
	t := &r.Tallies[i]
	if why == "" {
		r.Done++
		t.Done++
		return
	}
	if t.Skipped == 0 {
		t.Example, t.Why = e, why
	}
	r.Skipped++
	t.Skipped++
}

// Replay sends the records of the entries that match again, in replay order: events to the events topic, and records
// that a sink rejected to the topic of the record that SinkRetry returns. It skips an event that would be dead-lettered
// again, unless Force is set, and the entries of sinks that do not exist. After a record is acknowledged, its
// entry is marked as replayed. An entry that was sent but not marked before a run was interrupted is sent again.
func (q *Queue) Replay(ctx context.Context, f Filter, o Options) (*Result, error) {
	events, err := kafka.Extent(ctx, q.kafka, q.Events())
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	return q.resolve(ctx, f, o, Replayed, func(e *Entry, dead *kgo.Record) (*kgo.Record, string) {
		if e.Sink != "" {
			return q.toSink(ctx, e, dead, counts)
		}
		return q.toEvents(e, dead, len(events), o.Force)
	})
}

// Drop marks the entries that match as dropped. Their records stay in the topic until they expire.
func (q *Queue) Drop(ctx context.Context, f Filter, o Options) (*Result, error) {
	return q.resolve(ctx, f, o, Dropped, func(*Entry, *kgo.Record) (*kgo.Record, string) { return nil, "" })
}

// A plan returns the record to send for an entry, nil for none, or why the entry is skipped.
type plan func(e *Entry, dead *kgo.Record) (again *kgo.Record, why string)

func (q *Queue) resolve(ctx context.Context, f Filter, o Options, as string, plan plan) (*Result, error) {
	result := &Result{DryRun: !o.Yes, Tallies: []Tally{}}
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
	each := result.begin(entries, o)
	var sender *kgo.Client
	if o.Yes {
		if sender, err = kafka.NewProducer(q.kafka); err != nil {
			return result, err
		}
		defer sender.Close()
	}
	pace, most := replay.Pace(o.Rate, chunkEntries)
	for _, part := range chunks(entries, most) {
		records, err := q.records(ctx, part)
		if err != nil {
			return result, err
		}
		b := &batch{queue: q, sender: sender, as: as, pace: pace, result: result, each: each}
		if err := b.run(ctx, part, records, plan); err != nil {
			return result, err
		}
		if o.Report != nil {
			o.Report(replay.Progress{Done: int64(result.Done + result.Skipped), Total: int64(len(entries))})
		}
	}
	return result, nil
}

// A batch resolves some entries. It sends the record that the plan returns for each of them, then marks the entries
// whose records were acknowledged.
type batch struct {
	queue  *Queue
	sender *kgo.Client // nil in a dry run
	as     string
	pace   *rate.Limiter
	result *Result
	each   func(Outcome)
}

// A sending is an entry whose record is being sent.
type sending struct {
	entry *Entry
	dead  *kgo.Record
	again *kgo.Record // nil: nothing is sent
	err   error       // set by the producer before Flush returns
}

func (b *batch) run(ctx context.Context, entries []*Entry, records map[dlqPosition]*kgo.Record, plan plan) error {
	var sent []*sending
	var failed error
	for _, e := range entries {
		dead := records[e.first]
		if dead == nil {
			b.done(e, "it has expired")
			continue
		}
		again, why := plan(e, dead)
		if why != "" || b.sender == nil {
			b.done(e, why)
			continue
		}
		if failed = b.pace.Wait(ctx); failed != nil {
			break
		}
		s := &sending{entry: e, dead: dead, again: again}
		sent = append(sent, s)
		if again != nil {
			// Not ctx: a record in flight at Ctrl-C is acknowledged and its entry marked.
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

// mark writes the resolution records of the entries whose records were acknowledged, and returns the first error of the
// others. Once a record has failed, the records after it in its partition fail too.
func (b *batch) mark(ctx context.Context, sent []*sending) error {
	var resolutions []*kgo.Record
	marked := map[*kgo.Record]*Entry{}
	var failed error
	for _, s := range sent {
		if s.err != nil {
			err := denied(s.again.Topic, fmt.Errorf("replay %s: %w", s.entry.ID, s.err))
			b.failed(s.entry, err)
			if failed == nil {
				failed = err
			}
			continue
		}
		r := b.resolution(s)
		resolutions, marked[r] = append(resolutions, r), s.entry
	}
	answers := b.sender.ProduceSync(ctx, resolutions...) // in the order in which they were acknowledged
	var unmarked error
	for _, answer := range answers {
		if answer.Err == nil {
			b.done(marked[answer.Record], "")
			continue
		}
		err := denied(b.queue.streams.DLQ.Name, fmt.Errorf("mark entries as %s: %w", b.as, answer.Err))
		b.failed(marked[answer.Record], err)
		if unmarked == nil {
			unmarked = err
		}
	}
	return errors.Join(failed, unmarked)
}

// resolution returns the resolution record of an entry. It goes to the entry's partition, so it is after the entry. It
// has the entry's key too.
func (b *batch) resolution(s *sending) *kgo.Record {
	e := s.entry
	headers := append(sourceHeaders(e.Source), []kgo.RecordHeader{
		{Key: topology.HeaderResolved, Value: []byte(b.as)},
		{Key: topology.HeaderEntry, Value: strconv.AppendInt(nil, e.last.offset, 10)},
		{Key: topology.HeaderResolvedAt, Value: time.Now().UTC().AppendFormat(nil, time.RFC3339Nano)},
	}...)
	if s.again != nil {
		to := Source{Topic: s.again.Topic, Partition: s.again.Partition, Offset: s.again.Offset}
		e.ReplayedTo = to.Text(b.queue.Events())
		headers = append(headers, kgo.RecordHeader{Key: topology.HeaderReplayedTo, Value: []byte(e.ReplayedTo)})
	}
	return &kgo.Record{Topic: b.queue.streams.DLQ.Name, Partition: e.first.partition, Key: s.dead.Key, Headers: headers}
}

// denied adds which ACL to grant if the brokers refused the write for lack of one.
func denied(topic string, err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		missing := &kafka.Denied{Resource: "topic " + topic, Action: "write to it", Operation: "Write"}
		return fmt.Errorf("%w (see `tidemark topics acls`): %w", missing, err)
	}
	return err
}

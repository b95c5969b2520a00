package why

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Result is what a sink did with an event.
type Result string

// The results.
const (
	Delivered     Result = "delivered"
	Waiting       Result = "pending"        // not yet, or it is tried again
	Rejected      Result = "rejected"       // by the destination, so it is a dead letter
	NotApplicable Result = "not_applicable" // there is nothing to deliver
	NotKnown      Result = "unknown"
)

// A SinkResult is the result of one sink, or of one of its rules.
type SinkResult struct {
	Sink       string     `json:"sink"`
	Channel    string     `json:"channel,omitempty"` // the rule, of notify and model
	Result     Result     `json:"result"`
	Detail     string     `json:"detail,omitempty"`      // for people
	At         *time.Time `json:"at,omitempty"`          // of the delivery, or of the last attempt
	DeadLetter string     `json:"dead_letter,omitempty"` // the entry
}

// results finds the results of the sinks whose groups have committed something.
type results struct {
	tracer       *Tracer
	trace        *Trace
	record       *kgo.Record
	notice       *kgo.Record // nil: none
	noticesAfter int64       // offset of the first notice of a later event
	dead         deadLetters
	commits      commits
	logs         map[string]*partitionLog

	index         *kgo.Record // nil: none, or compaction has removed it
	indexAfter    int64
	deliveries    map[string]delivery // of the notice, by rule
	deliveriesCut bool                // there are more than were read
}

func (r *results) read(ctx context.Context) (err error) {
	partition, streams := r.record.Partition, r.tracer.streams
	index := r.logs[streams.Index.Name]
	if r.trace.Version != nil && index.err == nil {
		r.index, r.indexAfter, err = index.find(ctx, r.record.Offset, indexSourceOf(partition))
		if err != nil {
			return err
		}
	}
	if r.trace.Notice != nil && r.logs[streams.Deliveries.Name].err == nil {
		if err = r.readDeliveries(ctx); err != nil {
			return err
		}
	}
	r.trace.Sinks = []SinkResult{}
	for _, group := range slices.Sorted(maps.Keys(r.commits)) {
		name, isSink := strings.CutPrefix(group, streams.SinkGroup(""))
		if !isSink {
			continue
		}
		sink, rule, _ := strings.Cut(name, "-")
		result := SinkResult{Sink: sink, Channel: rule}
		switch sink {
		case topology.SinkArchive:
			r.through(&result, group, streams.Events.Name, name, r.record, r.record.Offset+1)
		case topology.SinkSearch, topology.SinkModel:
			r.output(&result, group, streams.Index.Name, name, r.index, r.indexAfter)
		case topology.SinkNotify:
			r.notified(&result, group, name)
		default:
			result.Result, result.Detail = NotKnown, "this release has no sink of that name"
		}
		r.trace.Sinks = append(r.trace.Sinks, result)
	}
	return nil
}

// output sets the result of a sink that reads outputs of the fold.
func (r *results) output(to *SinkResult, group, topic, name string, record *kgo.Record, after int64) {
	log := r.logs[topic]
	switch {
	case r.trace.Verdict == Pending:
		to.Result, to.Detail = Waiting, "the event is not folded yet"
	case r.trace.Version == nil:
		to.Result, to.Detail = NotApplicable, "the event gave no new version of a file"
	case log.err != nil:
		to.Result, to.Detail = NotKnown, log.err.Error()
	default:
		r.through(to, group, topic, name, record, after)
	}
}

// through sets the result of a sink by its commit: it has handled all records before it. The record is nil if it was
// removed by compaction; it was before after.
func (r *results) through(to *SinkResult, group, topic, name string, record *kgo.Record, after int64) {
	if record != nil {
		after = record.Offset + 1
	}
	commit := r.commits.offset(group, topic, r.record.Partition)
	if dead := r.dead.of(topic, record, name); dead != nil {
		to.Result, to.Detail, to.At = Rejected, strings.TrimSuffix(dead.text()+": "+dead.answer, ": "), &dead.at
		at := tidemarkv1.Position{Partition: record.Partition, Offset: record.Offset}
		to.DeadLetter = topic + "/" + at.Text() + "@" + name
		return
	}
	to.Detail = fmt.Sprintf("group %s has committed offset %d of %s, partition %d", group, commit, topic,
		r.record.Partition)
	switch {
	case commit < 0:
		to.Result, to.Detail = Waiting, "group "+group+" has committed nothing in this partition"
	case commit < after:
		to.Result = Waiting
	case r.dead.cut:
		to.Result, to.Detail = NotKnown, "handled; whether it was rejected is not known, because there are more than "+
			fmt.Sprint(maxScan)+" later dead letters"
	default:
		to.Result = Delivered
	}
}

// notified sets the result of a rule of the sink notify.
func (r *results) notified(to *SinkResult, group, name string) {
	switch {
	case r.trace.Verdict == Pending:
		to.Result, to.Detail = Waiting, "the event is not folded yet"
		return
	case r.trace.Notice == nil:
		to.Result, to.Detail = NotApplicable, "the event gave no notice"
		return
	}
	if err := r.logs[r.tracer.streams.Deliveries.Name].err; err != nil {
		to.Result, to.Detail = NotKnown, err.Error()
		return
	}
	r.through(to, group, r.tracer.streams.Notify.Name, name, r.notice, r.noticesAfter)
	d, known := r.deliveries[to.Channel]
	switch {
	case to.Result == Rejected:
		return
	case !known && to.Result == Delivered && r.deliveriesCut:
		to.Result, to.Detail = NotKnown, fmt.Sprintf("handled, and no delivery is in the %d records of %s after it",
			maxScan, r.tracer.streams.Deliveries.Name)
		return
	case !known && to.Result == Delivered:
		to.Result, to.Detail = NotApplicable, "the rule does not match, or its delivery has expired"
		return
	case !known:
		return
	}
	to.At = &d.At
	switch d.State {
	case "sent":
		to.Result, to.Detail = Delivered, "sent"
	case "rejected":
		to.Result, to.Detail = Rejected, d.Answer
	case "disabled":
		to.Result, to.Detail = Waiting, "the rule is disabled: "+d.Answer
	default: // an intent or a failure
		to.Result, to.Detail = Waiting, fmt.Sprintf("%d attempts: %s", d.Attempts, d.Answer)
	}
}

// A delivery is a value of the deliveries' topic, as far as it is used here: see docs/notify.md.
type delivery struct {
	State    string    `json:"state"`
	At       time.Time `json:"at"`
	Attempts int       `json:"attempts"`
	Answer   string    `json:"answer"`
}

// readDeliveries reads the last delivery of the notice by each rule. They are written after the notice.
func (r *results) readDeliveries(ctx context.Context) (err error) {
	log := r.logs[r.tracer.streams.Deliveries.Name]
	r.deliveries = map[string]delivery{}
	op := []byte("|" + r.trace.Notice.GetOpId())
	var failed error
	r.deliveriesCut, err = log.read(ctx, log.since, maxScan, func(record *kgo.Record) bool {
		rule, ok := bytes.CutSuffix(record.Key, op)
		if !ok || record.Value == nil {
			return true
		}
		var d delivery
		name, err1 := url.PathUnescape(string(rule))
		if err2 := json.Unmarshal(record.Value, &d); err1 != nil || err2 != nil {
			failed = fmt.Errorf("%s, partition %d, offset %d: not a delivery", record.Topic, record.Partition,
				record.Offset)
			return false
		}
		r.deliveries[name] = d
		return true
	})
	return cmp.Or(err, failed)
}

// indexSourceOf returns the sourceOf index records of events in a partition.
func indexSourceOf(partition int32) sourceOf {
	return func(r *kgo.Record) int64 {
		value, err := codecs.Index{}.Decode(r.Value)
		if op, ok := value.(*tidemarkv1.IndexOp); err == nil && ok && op.GetPosition().GetPartition() == partition {
			return op.GetPosition().GetOffset()
		}
		return unread
	}
}

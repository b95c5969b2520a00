package why

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// results finds out what was done with one event.
type results struct {
	tracer  *Tracer
	trace   *Trace
	record  *kgo.Record // the event
	notice  *kgo.Record // nil: none
	dead    deadLetters
	commits commits
	logs    map[string]*partitionLog // by topic

	index       found               // of the event's index record; compaction may have removed it
	deliveries  map[string]delivery // of the notice, by rule
	predictions map[string]bool     // rules that have a prediction for the version
	cut         map[string]bool     // topics of which more was to be read
}

// filesCommit returns the files group's commit, -1 if there is none.
func (r *results) filesCommit() int64 {
	s := r.tracer.streams
	commit, err := r.commits.offset(s.FilesGroup, s.Events.Name, r.record.Partition)
	if err != nil {
		return -1
	}
	return commit
}

// read finds the results of the sinks whose groups are in the cluster.
func (r *results) read(ctx context.Context) (err error) {
	s := r.tracer.streams
	r.cut = map[string]bool{}
	if index := r.logs[s.Index.Name]; r.trace.Version != nil && index.err == nil {
		if r.index, err = index.find(ctx, indexRecordOf(r.trace, r.record)); err != nil {
			return err
		}
		r.cut[s.Index.Name] = r.index.cut
	}
	if err := errors.Join(r.readDeliveries(ctx), r.readPredictions(ctx)); err != nil {
		return err
	}
	r.trace.Sinks = []SinkResult{}
	for _, group := range slices.Sorted(maps.Keys(r.commits)) {
		if name, isSink := strings.CutPrefix(group, s.SinkGroup("")); isSink {
			r.trace.Sinks = append(r.trace.Sinks, r.of(name, group))
		}
	}
	return nil
}

// of returns the result of a sink, or of a rule of a sink.
func (r *results) of(name, group string) SinkResult {
	s := r.tracer.streams
	sink, rule, _ := strings.Cut(name, "-")
	at := source{group: group, name: name}
	var result SinkResult
	switch sink {
	case topology.SinkArchive:
		at.topic, at.end = s.Events.Name, r.record.Offset+1
		result = r.handled(at)
	case topology.SinkSearch, topology.SinkModel:
		at.topic = s.Index.Name
		if result = r.ofIndex(at); sink == topology.SinkModel && result.Result == Delivered {
			result = r.predicted(rule, result)
		}
	case topology.SinkNotify:
		at.topic = s.Notify.Name
		result = r.notified(rule, at)
	default:
		result.Result, result.Detail = NotKnown, "this release has no sink of that name"
	}
	result.Sink, result.Channel = sink, rule
	return result
}

// without returns the result of a sink for an event without the output that the sink reads.
func (r *results) without(output string) SinkResult {
	switch r.trace.Verdict {
	case Pending:
		return SinkResult{Result: Waiting, Detail: "the event is not folded yet"}
	case Accepted, Late, NoTrace:
		return SinkResult{Result: NotKnown, Detail: "its notice has expired, or was not found"}
	}
	return SinkResult{Result: NotApplicable, Detail: "the event gave no " + output}
}

// A source is the record that a sink gets.
type source struct {
	group, name, topic string
	end                int64             // the sink has handled the record if its group has committed this offset
	dead               *deadLetterRecord // nil: it was not rejected
}

// ofIndex returns the result of a sink that reads the index.
func (r *results) ofIndex(at source) SinkResult {
	n := r.trace.Notice
	switch log := r.logs[at.topic]; {
	case n == nil || n.Version == nil:
		return r.without("new version of a file")
	case log.err != nil:
		return SinkResult{Result: NotKnown, Detail: log.err.Error()}
	case r.index.cut:
		return SinkResult{Result: NotKnown, Detail: fmt.Sprintf("its index record is not among %d records", maxScan)}
	case r.index.record != nil:
		at.end = r.index.record.Offset + 1
	case r.record.Offset >= r.filesCommit():
		return SinkResult{Result: Waiting, Detail: "its index record is not written yet"}
	default: // compaction has removed it
		at.end = r.index.later
	}
	at.dead = r.dead.byOutput[outputKey{at.name, tidemarkv1.JoinKey(n.GetWorkspaceId(), n.GetFileId()), n.GetVersion()}]
	return r.handled(at)
}

// notified returns the result of a rule of the sink notify.
func (r *results) notified(rule string, at source) SinkResult {
	deliveries := r.tracer.streams.Deliveries.Name
	switch d, known := r.deliveries[rule]; {
	case r.notice == nil:
		return r.without("notice")
	case r.logs[deliveries].err != nil:
		return SinkResult{Result: NotKnown, Detail: r.logs[deliveries].err.Error()}
	case known && d.err != nil:
		return SinkResult{Result: NotKnown, Detail: d.err.Error()}
	case known && d.State == "sent":
		return SinkResult{Result: Delivered, Detail: "sent", At: &d.At}
	case known && r.cut[deliveries]:
		return SinkResult{Result: NotKnown, Detail: fmt.Sprintf(
			"%s at last, in the first %d records of %s after it", d.State, maxScan, deliveries)}
	case known && d.State == "disabled":
		return SinkResult{Result: Waiting, Detail: "the rule is disabled: " + d.Answer, At: &d.At}
	case known && d.State != "rejected": // an intent, or a failure
		return SinkResult{Result: Waiting, Detail: fmt.Sprintf("%d attempts: %s", d.Attempts, d.Answer), At: &d.At}
	}
	at.end, at.dead = r.notice.Offset+1, r.dead.ofRecord(r.notice, at.name)
	result := r.handled(at)
	switch {
	case result.Result != Delivered:
	case r.cut[deliveries]:
		result.Result, result.Detail = NotKnown, fmt.Sprintf("handled; no delivery of it is in the first %d records "+
			"of %s after it", maxScan, deliveries)
	default:
		result.Result, result.Detail = NotApplicable, "the rule does not match, or is newer than the event"
	}
	return result
}

// predicted returns the result of a rule of the sink model, which has handled the index record.
func (r *results) predicted(rule string, handled SinkResult) SinkResult {
	predictions := r.tracer.streams.Predictions.Name
	switch {
	case r.predictions[rule]:
		handled.Detail = "its prediction is in " + predictions
	case r.logs[predictions].err != nil:
		handled.Result, handled.Detail = NotKnown, r.logs[predictions].err.Error()
	case r.cut[predictions]:
		handled.Result, handled.Detail = NotKnown, fmt.Sprintf("handled; no prediction for it is in the first %d "+
			"records of %s after it", maxScan, predictions)
	default:
		handled.Result = NotApplicable
		handled.Detail = "handled without a prediction: the rule does not match, or a later version was asked about"
	}
	return handled
}

// handled returns the result of a sink by what its group has committed, and by the record's dead letter.
func (r *results) handled(at source) SinkResult {
	replayed := ""
	for at.dead != nil {
		position := tidemarkv1.Position{Partition: r.record.Partition, Offset: at.dead.source}
		result := SinkResult{
			Result: Rejected, At: &at.dead.at, DeadLetter: at.topic + "/" + position.Text() + "@" + at.name,
			Detail: strings.TrimSuffix(at.dead.text()+": "+at.dead.answer, ": "),
		}
		topic, text, _ := strings.Cut(at.dead.replayedTo, "/")
		to, err := tidemarkv1.ParsePosition(text)
		if err != nil || to.GetPartition() != r.record.Partition {
			return result
		}
		replayed = "rejected, and replayed to " + at.dead.replayedTo + "; "
		at.topic, at.end = topic, to.GetOffset()+1
		at.dead = r.dead.bySource[deadLetterKey{topic, to.GetOffset(), at.name}] // rejected again
	}
	commit, err := r.commits.offset(at.group, at.topic, r.record.Partition)
	result := SinkResult{Detail: replayed + fmt.Sprintf("group %s has committed offset %d of %s, partition %d",
		at.group, commit, at.topic, r.record.Partition)}
	switch {
	case err != nil:
		result.Result, result.Detail = NotKnown, err.Error()
	case commit < 0:
		result.Result, result.Detail = Waiting, replayed+"group "+at.group+" has committed nothing in this partition"
	case commit < at.end:
		result.Result = Waiting
	case r.dead.cut:
		result.Result, result.Detail = NotKnown, fmt.Sprintf("handled; whether it was rejected is not known, because "+
			"there are more than %d dead letters since then", maxScan)
	default:
		result.Result = Delivered
	}
	return result
}

// A delivery is a value of the deliveries' topic, as far as it is used here: see docs/notify.md.
type delivery struct {
	State    string    `json:"state"`
	At       time.Time `json:"at"`
	Attempts int       `json:"attempts"`
	Answer   string    `json:"answer"`

	err error // why the value cannot be read
}

// readDeliveries reads the last delivery of the notice by each rule. They are written after the notice.
func (r *results) readDeliveries(ctx context.Context) (err error) {
	log := r.logs[r.tracer.streams.Deliveries.Name]
	if r.trace.Notice == nil || log.err != nil {
		return nil
	}
	r.deliveries = map[string]delivery{}
	op := []byte("|" + r.trace.Notice.GetOpId())
	r.cut[r.tracer.streams.Deliveries.Name], err = log.read(ctx, log.since, maxScan, func(record *kgo.Record) bool {
		escaped, ours := bytes.CutSuffix(record.Key, op)
		rule, err := url.PathUnescape(string(escaped))
		if !ours || err != nil || record.Value == nil {
			return true
		}
		var d delivery
		if err := json.Unmarshal(record.Value, &d); err != nil {
			d.err = fmt.Errorf("%s, partition %d, offset %d: not a delivery: %w", record.Topic, record.Partition,
				record.Offset, err)
		}
		r.deliveries[rule] = d
		return true
	})
	return err
}

// readPredictions reads which rules of the sink model have a prediction for the version. They are written after it.
func (r *results) readPredictions(ctx context.Context) (err error) {
	log := r.logs[r.tracer.streams.Predictions.Name]
	if r.trace.Version == nil || log.err != nil {
		return nil
	}
	r.predictions = map[string]bool{}
	r.cut[r.tracer.streams.Predictions.Name], err = log.read(ctx, log.since, maxScan, func(record *kgo.Record) bool {
		var p struct {
			FileID  string `json:"file_id"`
			Version int64  `json:"version"`
			Rule    string `json:"rule"`
		}
		if json.Unmarshal(record.Value, &p) == nil && p.FileID == r.trace.FileID && p.Version == *r.trace.Version {
			r.predictions[p.Rule] = true
		}
		return true
	})
	return err
}

// indexRecordOf is the index record of an event. Its version is not repeated when the events topic is recreated.
func indexRecordOf(of *Trace, event *kgo.Record) output {
	return output{
		event: event.Offset,
		is: func(r *kgo.Record) bool {
			op := decodeIndex(r)
			return op != nil && op.GetFileId() == of.FileID && op.GetVersion() == *of.Version &&
				op.GetWorkspaceId() == of.Notice.GetWorkspaceId()
		},
		after: func(r *kgo.Record) int64 {
			if op := decodeIndex(r); op.GetPosition() != nil && op.GetPosition().GetPartition() == event.Partition {
				return op.GetPosition().GetOffset()
			}
			return unordered
		},
	}
}

// decodeIndex returns the index record of a record, nil if it is none.
func decodeIndex(r *kgo.Record) *tidemarkv1.IndexOp {
	value, err := codecs.Index{}.Decode(r.Value)
	if op, ok := value.(*tidemarkv1.IndexOp); err == nil && ok {
		return op
	}
	return nil
}

// Package repartition copies an installation under another topic prefix, with another number of partitions.
//
// It promises that the processors, started under the new prefix, go on exactly where those of the old one stopped: no
// event is lost, none is folded or counted a second time, a resend is known as one, and versions go on. Whatever ends a
// run, the next one goes on: what was copied is known by a header and by transactions, so nothing is there twice. At
// the end both tables are compared row by row.
//
// It changes and deletes nothing under the old prefix, and does not stop what runs there: it refuses while a processor
// does, and says so when events came meanwhile.
package repartition

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/diff"
	"tidemark/kafka"
	"tidemark/kafka/committed"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// A Move is what to copy, and where to.
type Move struct {
	Kafka    kafka.Config
	From, To topology.Streams   // of From only the names count
	Report   func(Stage, int64) // called with the number of each record of a stage; nil: nobody listens

	hook func(*kgo.Record) error // of tests: called before a record is written; nil: nothing
}

// A Stage is a part of the work, in the words of a progress report.
type Stage string

// The stages, in their order.
const (
	Looking     Stage = "looking at what is copied already"
	Events      Stage = "events"
	DeadLetters Stage = "dead letters"
	Notices     Stage = "notices that are not counted yet"
	Rows        Stage = "rows"
	Comparing   Stage = "comparing"
)

// A Summary is what the new prefix holds.
type Summary struct {
	Events      int64             `json:"events"`
	Unfolded    int64             `json:"unfolded"` // events of them that are still to be folded
	DeadLetters int               `json:"dead_letters"`
	Notices     int               `json:"notices"`
	Strays      int               `json:"strays"` // rows left out: no reader takes them where they lie
	Files       diff.Summary      `json:"files"`
	Workspaces  diff.Summary      `json:"workspaces"`
	Different   []diff.Difference `json:"different,omitempty"` // the first ten
}

// What keeps a run from beginning, or from being the last one.
var (
	// ErrRunning says that processors run under one of the prefixes.
	ErrRunning = errors.New("processors are running")
	// ErrInUse says that processors have gone on under the new prefix.
	ErrInUse = errors.New("the new prefix is in use")
	// ErrArrived says that something wrote while the copy was made.
	ErrArrived = errors.New("events arrived meanwhile")
	// ErrDiffer says that the tables are not the same.
	ErrDiffer = errors.New("the tables differ")
	// ErrForeign says that something else has written under the new prefix.
	ErrForeign = errors.New("something else writes under the new prefix")
)

// mark is what the commits of the new group end with, until a processor has committed.
const mark = "repartition"

// Run copies, compares, and returns what is there. When ctx ends before, it returns its error; started again it goes
// on.
func (m *Move) Run(ctx context.Context) (*Summary, error) {
	if m.From.Events.Name == m.To.Events.Name {
		return nil, fmt.Errorf("both prefixes are that of %s: want another one", m.To.Events.Name)
	}
	if err := m.quiet(ctx); err != nil {
		return nil, err
	}
	if err := m.createTopics(ctx); err != nil {
		return nil, err
	}
	if err := m.unused(ctx); err != nil {
		return nil, err
	}
	run := &run{Move: m}
	if err := run.open(ctx); err != nil {
		return nil, err
	}
	defer run.writer.close()
	for _, step := range []func(context.Context) error{
		run.lookAtEvents, run.copyEvents, run.copyDeadLetters, run.copyNotices, run.copyRows,
		run.nothingArrived, run.compare, run.finish,
	} {
		if err := step(ctx); err != nil {
			return &run.summary, err
		}
	}
	return &run.summary, nil
}

// quiet refuses while a processor runs.
func (m *Move) quiet(ctx context.Context) error {
	for _, g := range []struct{ group, topic string }{
		{m.From.FilesGroup, m.From.Events.Name}, {m.From.WorkspacesGroup, m.From.Notify.Name},
	} {
		lag, err := kafka.Lags(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		if lag.Members > 0 {
			return fmt.Errorf("%w: group %s has %d members: stop `process`, or wait some 10 s for one that was killed",
				ErrRunning, g.group, lag.Members)
		}
	}
	return nil
}

// unused refuses once processors have gone on under the new prefix.
func (m *Move) unused(ctx context.Context) error {
	for _, g := range []struct{ group, topic string }{
		{m.To.FilesGroup, m.To.Events.Name}, {m.To.WorkspacesGroup, m.To.Notify.Name},
	} {
		lag, err := kafka.Lags(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		if lag.Members > 0 {
			return fmt.Errorf("%w: group %s has %d members", ErrInUse, g.group, lag.Members)
		}
		commits, err := kafka.Committed(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		for partition, o := range commits {
			if !strings.HasSuffix(o.Metadata, mark) {
				return fmt.Errorf("%w: group %s has read partition %d of %s by itself, up to %d; to copy again choose another prefix",
					ErrInUse, g.group, partition, g.topic, o.At)
			}
		}
	}
	return nil
}

// createTopics makes the new topics, which are kept for as long as the old ones.
func (m *Move) createTopics(ctx context.Context) error {
	from := m.From.Topics()
	kept, err := kafka.Retentions(ctx, m.Kafka, from)
	if err != nil {
		return err
	}
	to := m.To.Topics()
	for i := range to {
		if retention, found := kept[from[i].Name]; found && !to[i].Compact {
			to[i].Retention = retention
		}
	}
	_, err = kafka.ApplyTopics(ctx, m.Kafka, to)
	return err
}

// A run is one call of Run.
type run struct {
	*Move
	writer  *writer
	places  places
	last    map[int32]int64 // by old partition: the last event that was copied
	expired int64           // offsets of the new log whose records retention has taken, as it counts from their old times
	fromID  string          // of the events topics
	toID    string
	hashed  int // partitions that the old installation hashes its keys over
	events  kafka.Spans
	folded  map[int32]int64 // what the old files group reads next
	counted map[int32]int64 // what the old workspaces group reads next in the notices
	notices kafka.Spans
	begun   bool  // all events before the old group's commits were copied by an earlier run
	read    int64 // events of the old log
	stage   Stage
	looked  int64 // records in that stage
	summary Summary
}

// open takes stock of the old installation, whose undecided transactions are waited for, and fences an earlier run.
func (r *run) open(ctx context.Context) error {
	counts := map[string]int{}
	for _, t := range r.From.Topics() {
		spans, err := kafka.StableExtent(ctx, r.Kafka, t.Name)
		if err != nil {
			return err
		}
		counts[t.Name] = len(spans)
		switch t.Name {
		case r.From.Events.Name:
			r.events = spans
		case r.From.Notify.Name:
			r.notices = spans
		}
		// Where partitions were added to some topics, the others still have the number that all keys are hashed over.
		if r.hashed == 0 || len(spans) < r.hashed {
			r.hashed = len(spans)
		}
	}
	ids, err := kafka.TopicIDs(ctx, r.Kafka, r.From.Events.Name, r.To.Events.Name)
	if err != nil {
		return err
	}
	r.fromID, r.toID = ids[r.From.Events.Name].Topic, ids[r.To.Events.Name].Topic
	if r.folded, err = r.committed(ctx, r.From.FilesGroup, r.From.Events.Name, r.From.Files.Name); err != nil {
		return err
	}
	if r.counted, err = r.committed(ctx, r.From.WorkspacesGroup, r.From.Notify.Name, r.From.Workspaces.Name); err != nil {
		return err
	}
	begun, err := kafka.Committed(ctx, r.Kafka, r.To.FilesGroup, r.To.Events.Name)
	if err != nil {
		return err
	}
	r.begun = len(begun) > 0
	r.writer, err = newWriter(ctx, r.Kafka, r.To.FilesGroup, r.hook)
	return err
}

// committed returns what a group reads next. One that the brokers have forgotten would seem to have read nothing.
func (r *run) committed(ctx context.Context, group, topic, table string) (map[int32]int64, error) {
	commits, err := kafka.Committed(kadm.RequireStable(ctx), r.Kafka, group, topic)
	if err != nil {
		return nil, err
	}
	rows, err := kafka.Extent(ctx, r.Kafka, table)
	if err != nil {
		return nil, err
	}
	if len(commits) == 0 && rows.Len() > 0 {
		return nil, fmt.Errorf("%s has rows, and group %s has committed nothing in %s: the brokers forgot it, as it was "+
			"idle for long; run `process` once, stop it, and start again", table, group, topic)
	}
	next := map[int32]int64{}
	for partition, o := range commits {
		next[partition] = o.At
	}
	return next, nil
}

// report counts a record of a stage.
func (r *run) report(stage Stage) {
	if stage != r.stage {
		r.stage, r.looked = stage, 0
	}
	if r.looked++; r.Report != nil {
		r.Report(stage, r.looked)
	}
}

// nothingArrived refuses to call the copy complete while something writes under the old prefix.
func (r *run) nothingArrived(ctx context.Context) error {
	if err := errors.Join(r.quiet(ctx), r.unused(ctx)); err != nil {
		return err
	}
	for _, topic := range []struct {
		name string
		seen kafka.Spans
	}{{r.From.Events.Name, r.events}, {r.From.Notify.Name, r.notices}} {
		now, err := kafka.Extent(ctx, r.Kafka, topic.name)
		if err != nil {
			return err
		}
		var more int64
		for partition, span := range now {
			more += max(0, span.To-topic.seen[partition].To)
		}
		if more > 0 {
			return fmt.Errorf("%w: %d records in %s: stop what writes there (`ingest`, `replay`, others) and start again",
				ErrArrived, more, topic.name)
		}
	}
	return nil
}

// finish commits for the new groups once more, now saying how far their tables reach.
func (r *run) finish(ctx context.Context) error {
	for _, g := range []struct{ group, input, table string }{
		{r.To.FilesGroup, r.To.Events.Name, r.To.Files.Name},
		{r.To.WorkspacesGroup, r.To.Notify.Name, r.To.Workspaces.Name},
	} {
		ids, err := kafka.TopicIDs(ctx, r.Kafka, g.table)
		if err != nil {
			return err
		}
		table, err := kafka.StableExtent(ctx, r.Kafka, g.table)
		if err != nil {
			return err
		}
		input, err := kafka.StableExtent(ctx, r.Kafka, g.input)
		if err != nil {
			return err
		}
		commits, err := kafka.Committed(ctx, r.Kafka, g.group, g.input)
		if err != nil {
			return err
		}
		var offsets []kadm.Offset
		for partition, span := range input {
			at := span.From // of the notices: all that are there are still to be counted
			if o, found := commits[partition]; found {
				at = o.At
			}
			said := committed.ChangelogEnd{Table: ids[g.table].String(), Offset: table[partition].To}.Metadata()
			offsets = append(offsets, kadm.Offset{
				Topic: g.input, Partition: partition, At: at, LeaderEpoch: -1, Metadata: said + " " + mark,
			})
		}
		if err := kafka.Commit(ctx, r.Kafka, g.group, offsets...); err != nil {
			return err
		}
	}
	return nil
}

func text(partition int32, offset int64) string {
	return (&tidemarkv1.Position{Partition: partition, Offset: offset}).Text()
}

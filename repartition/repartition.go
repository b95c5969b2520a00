// Package repartition copies an installation under another topic prefix, with another number of partitions.
//
// The processors, started under the new prefix, continue exactly where those of the old one stopped: no event is lost
// or folded or counted a second time, resends are duplicates, and versions continue. An interrupted run is continued by
// the next one: records are copied in transactions, with their old position in a header, so none is copied twice. At
// the end both tables are compared row by row.
//
// Nothing under the old prefix is changed or deleted. Run fails while a processor runs there, or if events arrive
// meanwhile.
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

// A Move copies the installation From to To.
type Move struct {
	Kafka    kafka.Config
	From, To topology.Streams   // of From only the names count
	Report   func(Stage, int64) // called for each record of a stage, with its number; may be nil

	hook func(*kgo.Record) error // for tests: called before a record is written; may be nil
}

// A Stage is a part of the work, as progress reports name it.
type Stage string

// The stages, in their order.
const (
	Reading     Stage = "reading copies of earlier runs"
	Events      Stage = "events"
	DeadLetters Stage = "dead letters"
	Notices     Stage = "notices that are not counted yet"
	Rows        Stage = "rows"
	Predictions Stage = "predictions"
	Comparing   Stage = "comparing"
)

// A Summary counts what is under the new prefix.
type Summary struct {
	Events      int64             `json:"events"`
	Unfolded    int64             `json:"unfolded"` // events that are still to be folded
	DeadLetters int               `json:"dead_letters"`
	Notices     int               `json:"notices"`
	Retries     int               `json:"retries"` // replayed dead letters that their sinks had not read
	Predictions int               `json:"predictions"`
	Sinks       []SinkStart       `json:"sinks,omitempty"`
	Misplaced   int               `json:"strays"` // rows not copied: they are in a wrong partition, which views ignore
	Files       diff.Summary      `json:"files"`
	Workspaces  diff.Summary      `json:"workspaces"`
	Different   []diff.Difference `json:"different,omitempty"` // the first ten
}

// A SinkStart is where the new group of a sink begins to read.
type SinkStart struct {
	Group  string `json:"group"`
	Begins string `json:"begins"` // AtEnd or AtStart
}

// Where the new group of a sink begins: at the end of what was copied, or at the first record.
const (
	AtEnd   = "end"
	AtStart = "start"
)

// ErrDiffer is returned if the tables are not equal.
var ErrDiffer = errors.New("the tables differ")

var errForeign = errors.New("something else writes under the new prefix")

// mark ends the metadata of the new groups' commits, until a processor commits.
const mark = "repartition"

// Run copies and compares. It returns the error of ctx when that ends first; the next run continues.
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
		run.readCopied, run.copyEvents, run.copyDeadLetters, run.copyRetries, run.copyNotices, run.copyRows,
		run.copyPredictions, run.nothingArrived, run.compare, run.continueSinks, run.finish,
	} {
		if err := step(ctx); err != nil {
			return &run.summary, err
		}
	}
	return &run.summary, nil
}

// quiet fails while a processor or a sink runs under the old prefix.
func (m *Move) quiet(ctx context.Context) error {
	for _, g := range []struct{ group, topic string }{
		{m.From.FilesGroup, m.From.Events.Name}, {m.From.WorkspacesGroup, m.From.Notify.Name},
	} {
		lag, err := kafka.Lags(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		if lag.Members > 0 {
			return fmt.Errorf("processors are running: group %s has %d members: stop `process`, "+
				"or wait some 10 s for one that was killed",
				g.group, lag.Members)
		}
	}
	return m.quietSinks(ctx)
}

// unused fails once processors run, or have committed, under the new prefix.
func (m *Move) unused(ctx context.Context) error {
	for _, g := range []struct{ group, topic string }{
		{m.To.FilesGroup, m.To.Events.Name}, {m.To.WorkspacesGroup, m.To.Notify.Name},
	} {
		lag, err := kafka.Lags(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		if lag.Members > 0 {
			return fmt.Errorf("the new prefix is in use: group %s has %d members", g.group, lag.Members)
		}
		commits, err := kafka.Committed(ctx, m.Kafka, g.group, g.topic)
		if err != nil {
			return err
		}
		for partition, o := range commits {
			if !strings.HasSuffix(o.Metadata, mark) {
				return inUse(g.group, g.topic, partition, o.At)
			}
		}
	}
	return nil
}

func inUse(group, topic string, partition int32, offset int64) error {
	return fmt.Errorf("the new prefix is in use: group %s has read partition %d of %s up to %d; "+
		"to copy again choose another prefix", group, partition, topic, offset)
}

// createTopics creates the new topics, with the retention of the old ones.
func (m *Move) createTopics(ctx context.Context) error {
	from := m.From.Topics()
	existing, err := m.existing(ctx)
	if err != nil {
		return err
	}
	kept, err := kafka.Retentions(ctx, m.Kafka, existing)
	if err != nil {
		return err
	}
	to := m.To.Topics()
	for i := range to {
		if retention, found := kept[from[i].Name]; found && to[i].Retention != 0 {
			to[i].Retention = retention
		}
	}
	_, err = kafka.ApplyTopics(ctx, m.Kafka, to)
	return err
}

// A run is one call of Run.
type run struct {
	*Move
	writer    *writer
	positions positions
	last      map[int32]int64 // by old partition: the offset of the last event that was copied
	expired   int64           // new offsets that have expired: copies keep the timestamps that retention counts from
	fromID    string          // topic ids of the events topics
	toID      string
	hashed    int // how many partitions the old installation hashes its keys over
	events    kafka.Spans
	folded    map[int32]int64 // what the old files group reads next
	counted   map[int32]int64 // what the old workspaces group reads next in the notices
	notices   kafka.Spans
	resumed   bool  // an earlier run has copied all events before the old group's commits
	read      int64 // events of the old topic
	stage     Stage
	staged    int64 // records in that stage
	summary   Summary
}

// open reads the offsets and commits of the old installation, waits for its open transactions, and fences an earlier
// run.
func (r *run) open(ctx context.Context) error {
	existing, err := r.existing(ctx)
	if err != nil {
		return err
	}
	for _, t := range existing {
		spans, err := kafka.StableExtent(ctx, r.Kafka, t.Name)
		if err != nil {
			return err
		}
		switch t.Name {
		case r.From.Events.Name:
			r.events = spans
		case r.From.Notify.Name:
			r.notices = spans
		}
		// If partitions were added to some topics only, the others have the number that all keys are hashed over.
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
	if r.counted, err = r.committed(ctx, r.From.WorkspacesGroup, r.From.Notify.Name,
		r.From.Workspaces.Name); err != nil {
		return err
	}
	commits, err := kafka.Committed(ctx, r.Kafka, r.To.FilesGroup, r.To.Events.Name)
	if err != nil {
		return err
	}
	r.resumed = len(commits) > 0
	r.writer, err = newWriter(ctx, r.Kafka, r.To.FilesGroup, r.hook)
	return err
}

// committed returns the offsets that a group reads next. It fails if the brokers have forgotten the group's commits.
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
		return nil, fmt.Errorf("%s has rows, and group %s has committed nothing in %s: its commits have expired; "+
			"run `process` once, stop it, and start again", table, group, topic)
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
		r.stage, r.staged = stage, 0
	}
	if r.staged++; r.Report != nil {
		r.Report(stage, r.staged)
	}
}

// nothingArrived fails if events or notices were written under the old prefix meanwhile.
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
			return fmt.Errorf("events arrived meanwhile: %d records in %s: stop what writes there "+
				"(`ingest`, `replay`, others) and start again",
				more, topic.name)
		}
	}
	return nil
}

// finish commits for the new groups once more, with the ends of their changelogs.
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
			at := span.From // all copied notices are still to be counted
			if o, found := commits[partition]; found {
				at = o.At
			}
			metadata := committed.ChangelogEnd{Table: ids[g.table].String(), Offset: table[partition].To}.Metadata()
			offsets = append(offsets, kadm.Offset{
				Topic: g.input, Partition: partition, At: at, LeaderEpoch: -1, Metadata: metadata + " " + mark,
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

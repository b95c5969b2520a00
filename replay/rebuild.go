package replay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Rebuild folds events into the table of another group, up to where the topic ended when the run began.
type Rebuild struct {
	Kafka   kafka.Config
	Streams topology.Streams // of Target
	Dir     string           // of the run's state file, beside the group's local store
	Select  Selection
	Rate    float64 // events a second; 0 is no limit
	Report  func(Progress)
	Now     func() time.Time // nil: the wall clock

	// Archive has events that may have expired from the topic; nil: there is none. Fold must use Join then.
	Archive    *Archive
	ArchiveURL string
	archived   kafka.Spans
	failed     context.CancelCauseFunc

	// Fold runs the group until its context ends. It asks admit for each event.
	Fold func(ctx context.Context, admit func(*tidemarkv1.Event, *tidemarkv1.Position) bool) error
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,98}[a-zA-Z0-9])?$`)

// Target returns streams with the live events and the group and table of another name.
func Target(s topology.Streams, name string) (topology.Streams, error) {
	group, table := s.Group(name)
	used := slices.ContainsFunc(s.Topics(), func(t topology.Topic) bool { return t.Name == table })
	if !nameForm.MatchString(name) || used || group == s.ReplayGroup || group == s.ServeGroup {
		return s, fmt.Errorf("group %q: want an unused name of letters, digits, '.', '_' and '-' "+
			"that begins and ends with a letter or digit", name)
	}
	s.FilesGroup, s.Files.Name = group, table
	return s, nil
}

// Run creates the table's topic, folds the selected events and returns once they are in the table. It returns the error
// of ctx when that ends first; the next run continues. In both cases the group has committed exactly the events that
// are in its table.
func (b *Rebuild) Run(ctx context.Context) error {
	before, err := b.resume(ctx)
	if err != nil {
		return err
	}
	table := b.Streams.Files
	if _, err := kafka.ApplyTopics(ctx, b.Kafka, []topology.Topic{table}); err != nil {
		return err
	}
	id, err := kafka.TopicID(ctx, b.Kafka, table.Name)
	if err != nil {
		return err
	}
	spans, err := b.selected(ctx)
	if err != nil {
		return err
	}
	widen(spans, before)
	if err := b.save(state{b.Select, spans, id, b.ArchiveURL}); err != nil {
		return err
	}
	begin, err := b.begin(ctx, spans)
	if err != nil {
		return err
	}
	pace := rate.NewLimiter(rate.Inf, 1)
	if b.Rate > 0 {
		pace = rate.NewLimiter(rate.Limit(b.Rate), max(1, int(math.Ceil(b.Rate/100))))
	}
	admit := func(e *tidemarkv1.Event, at *tidemarkv1.Position) bool {
		span, in := spans[at.GetPartition()]
		if !in || at.GetOffset() < span.From || at.GetOffset() >= span.To || !b.Select.Wants(e) {
			return false
		}
		_ = pace.Wait(ctx) // it fails when ctx ends: the group stops, and commits only what it has folded
		return true
	}
	folding, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	b.failed = fail
	group, folding := errgroup.WithContext(folding)
	reached := false
	group.Go(func() error { return b.Fold(folding, admit) })
	group.Go(func() error {
		defer fail(nil)
		var err error
		reached, err = b.watch(folding, spans, begin)
		return err
	})
	err = group.Wait()
	if err == nil || ctx.Err() != nil {
		err = errors.Join(err, b.clamp(context.WithoutCancel(ctx), spans))
	}
	if err == nil && !reached {
		err = context.Cause(folding)
	}
	return err
}

// selected returns the selected offsets of the topic, which begin where the archive does if there is one.
func (b *Rebuild) selected(ctx context.Context) (kafka.Spans, error) {
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	spans, err := b.Select.Spans(ctx, b.Kafka, b.Streams.Events.Name, now())
	if err != nil || b.Archive == nil {
		return spans, err
	}
	extent, err := kafka.Extent(ctx, b.Kafka, b.Streams.Events.Name)
	if err != nil {
		return nil, err
	}
	if b.archived, err = archivedSpans(ctx, b.Kafka, b.Archive, extent); err != nil {
		return nil, err
	}
	for partition, span := range spans {
		if whole, found := b.archived[partition]; found {
			spans[partition] = kafka.Span{From: whole.From, To: max(span.To, whole.To)}
		}
	}
	return spans, nil
}

// Join returns a consumer group that delivers the archived records before those of the topic.
func (b *Rebuild) Join(group sarama.ConsumerGroup) sarama.ConsumerGroup {
	if b.Archive == nil {
		return group
	}
	return &archiveGroup{ConsumerGroup: group, archive: b.Archive, spans: b.archived, fail: b.failed}
}

// A state is the content of a run's state file.
type state struct {
	Select Selection   `json:"select"`
	Spans  kafka.Spans `json:"spans"`
	Table  string      `json:"table"` // the topic's id

	Archive string `json:"archive,omitempty"` // its URL
}

func (b *Rebuild) path() string { return filepath.Join(b.Dir, "rebuild.json") }

// widen lets spans begin no later than those of the run before: "two hours ago" is relative to when that run began.
func widen(spans, earlier kafka.Spans) {
	for partition, before := range earlier {
		if now, in := spans[partition]; in {
			before = kafka.Span{From: min(now.From, before.From), To: now.To}
		}
		spans[partition] = before
	}
}

// resume returns the spans of an earlier run, nil if there is none, and clamps its commits, in case it was killed. It
// refuses to continue a table with another selection.
func (b *Rebuild) resume(ctx context.Context) (kafka.Spans, error) {
	data, err := os.ReadFile(b.path())
	if errors.Is(err, fs.ErrNotExist) {
		committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
		if err == nil && len(committed) > 0 {
			err = fmt.Errorf("group %s was started with another --data than %s: use that one, or another name",
				b.Streams.FilesGroup, b.Dir)
		}
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read the state file: %w", err)
	}
	var earlier state
	if err := json.Unmarshal(data, &earlier); err != nil {
		return nil, fmt.Errorf("read the state file %s: %w", b.path(), err)
	}
	if same, err := b.sameTable(ctx, earlier.Table); err != nil || !same {
		return nil, err
	}
	if earlier.Archive != b.ArchiveURL {
		return nil, fmt.Errorf("%s: the table was started with --archive %q: continue with that, "+
			"or choose another --group", b.Streams.FilesGroup, earlier.Archive)
	}
	if earlier.Select.String() != b.Select.String() {
		return nil, fmt.Errorf("%s: the table was started with another selection: %s. "+
			"Continue with that, or choose another --group",
			b.Streams.FilesGroup, earlier.Select)
	}
	return earlier.Spans, b.clamp(ctx, earlier.Spans)
}

// sameTable reports whether the table's topic still has that id. If not, the state file is ignored; it is an error if
// the group's commits are still there, as they belong to the rows that are lost.
func (b *Rebuild) sameTable(ctx context.Context, id string) (bool, error) {
	table := b.Streams.Files
	plan, err := kafka.PlanTopics(ctx, b.Kafka, []topology.Topic{table})
	if err != nil {
		return false, err
	}
	if len(plan) == 0 || !plan[0].Create {
		now, err := kafka.TopicID(ctx, b.Kafka, table.Name)
		if err != nil || now == id {
			return err == nil, err
		}
	}
	committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
	if err == nil && len(committed) > 0 {
		err = fmt.Errorf("%s was deleted, or --data is of another cluster, and group %s has commits: "+
			"a new table would lack the events before them; delete the group too, or choose another --group",
			table.Name, b.Streams.FilesGroup)
	}
	return false, err
}

// save writes the state file.
func (b *Rebuild) save(s state) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = os.MkdirAll(b.Dir, 0o750)
	}
	if err == nil {
		err = os.WriteFile(b.path()+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(b.path()+".new", b.path())
	}
	if err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	return nil
}

// begin commits the first offset of the partitions that the group has not read, and returns the group's offsets. In
// partitions without a selected event it commits the end.
func (b *Rebuild) begin(ctx context.Context, spans kafka.Spans) (map[int32]int64, error) {
	topic := b.Streams.Events.Name
	extent, err := kafka.Extent(ctx, b.Kafka, topic)
	if err != nil {
		return nil, err
	}
	committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, topic)
	if err != nil {
		return nil, err
	}
	next := map[int32]int64{}
	var first []kadm.Offset
	for partition, whole := range extent {
		if o, found := committed[partition]; found {
			if span, in := spans[partition]; in && o.At < min(whole.From, span.To) {
				return nil, fmt.Errorf("%s: selected events have expired: partition %d is read up to offset %d, "+
					"and %s begins at %d now: choose another --group",
					b.Streams.FilesGroup, partition, o.At, topic, whole.From)
			}
			next[partition] = o.At
			continue
		}
		next[partition] = whole.To
		if span, in := spans[partition]; in {
			next[partition] = max(span.From, whole.From)
			if _, found := b.archived[partition]; found {
				next[partition] = span.From
				continue // no commit: the archived records are to be read
			}
		}
		first = append(first, kadm.Offset{Topic: topic, Partition: partition, At: next[partition], LeaderEpoch: -1})
	}
	return next, kafka.Commit(ctx, b.Kafka, b.Streams.FilesGroup, first...)
}

// watchEvery is the interval at which the group's commits are read: about that of the commits.
const watchEvery = 500 * time.Millisecond

// watch returns once the group has committed all of spans.
func (b *Rebuild) watch(ctx context.Context, spans kafka.Spans, begin map[int32]int64) (reached bool, err error) {
	if spans, err = kafka.TrimTrailingMarkers(ctx, b.Kafka, b.Streams.Events.Name, spans); err != nil {
		return false, err
	}
	total := int64(0)
	for partition, span := range spans {
		total += max(0, span.To-begin[partition])
	}
	for {
		committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
		if ctx.Err() != nil {
			return false, nil
		}
		if err != nil && !kafka.Unreachable(err) {
			return false, err
		}
		remaining := int64(0)
		for partition, span := range spans {
			at := begin[partition]
			if o, ok := committed[partition]; ok {
				at = o.At
			}
			remaining += max(0, span.To-at)
		}
		if err == nil {
			if b.Report != nil {
				b.Report(Progress{Done: total - remaining, Total: total})
			}
			if remaining == 0 {
				return true, nil
			}
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(watchEvery):
		}
	}
}

// clamp resets commits beyond the selection: events there were not folded, and a comparison would count them as folded.
func (b *Rebuild) clamp(ctx context.Context, spans kafka.Spans) error {
	committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
	if err != nil {
		return err
	}
	var back []kadm.Offset
	for partition, span := range spans {
		if o, ok := committed[partition]; ok && o.At > span.To {
			back = append(back, kadm.Offset{
				Topic: b.Streams.Events.Name, Partition: partition, At: span.To,
				LeaderEpoch: -1,
			})
		}
	}
	for begun := time.Now(); ; { // a killed run is a member until its session times out
		err := kafka.Commit(ctx, b.Kafka, b.Streams.FilesGroup, back...)
		if !errors.Is(err, kafka.ErrHasMembers) || time.Since(begun) > giveUpAfter {
			return err
		}
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return err
		}
	}
}

// giveUpAfter is longer than the session timeout of the group's members.
const giveUpAfter = 20 * time.Second

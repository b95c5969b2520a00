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

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Rebuild folds events into a table of another group, up to where the topic ended when the run began.
type Rebuild struct {
	Kafka   kafka.Config
	Streams topology.Streams // of Target
	Dir     string           // where the run keeps what it was asked for, beside the group's local store
	Select  Selection
	Rate    float64 // events a second; 0 is no limit
	Report  func(Progress)
	Now     func() time.Time // nil: the wall clock

	// Fold runs the group until its context ends. It asks admit for each event.
	Fold func(ctx context.Context, admit func(*tidemarkv1.Event, *tidemarkv1.Position) bool) error
}

var nameForm = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,98}[a-zA-Z0-9])?$`)

// Target returns the streams of a group of another name: the events are the live ones, group and table its own, so that the same
// code can run on them.
func Target(s topology.Streams, name string) (topology.Streams, error) {
	group, table := s.Group(name)
	taken := slices.ContainsFunc(s.Topics(), func(t topology.Topic) bool { return t.Name == table })
	if !nameForm.MatchString(name) || taken || group == s.ReplayGroup {
		return s, fmt.Errorf("group %q: want a name of its own, of letters, digits, '.', '_' and '-', that ends with one of the first two", name)
	}
	s.FilesGroup, s.Files.Name = group, table
	return s, nil
}

// ErrOtherSelection says that the table holds what another selection gave.
var ErrOtherSelection = errors.New("the table was begun with another selection")

// Run makes the table's topic, folds what is selected, and returns once that is in the table. When ctx ends before, it returns
// its error; started again it goes on. The group then has committed exactly what its table holds.
func (b *Rebuild) Run(ctx context.Context) error {
	kept, err := b.resume(ctx)
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
	now := time.Now
	if b.Now != nil {
		now = b.Now
	}
	spans, err := b.Select.Spans(ctx, b.Kafka, b.Streams.Events.Name, now())
	if err != nil {
		return err
	}
	widen(spans, kept)
	if err := b.keep(rebuilding{b.Select, spans, id}); err != nil {
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
		_ = pace.Wait(ctx) // when ctx ends the group is leaving, and what is here already is folded or comes again
		return true
	}
	folding, stop := context.WithCancel(ctx)
	defer stop()
	group, folding := errgroup.WithContext(folding)
	reached := false
	group.Go(func() error { return b.Fold(folding, admit) })
	group.Go(func() error {
		defer stop()
		var err error
		reached, err = b.watch(folding, spans, begin)
		return err
	})
	err = group.Wait()
	if err == nil || ctx.Err() != nil {
		err = errors.Join(err, b.clamp(context.WithoutCancel(ctx), spans))
	}
	if err == nil && !reached {
		err = context.Cause(ctx)
	}
	return err
}

// A rebuilding is what a run keeps in its folder: what it was asked for, and what that meant.
type rebuilding struct {
	Select Selection   `json:"select"`
	Spans  kafka.Spans `json:"spans"`
	Table  string      `json:"table"` // the topic's id
}

func (b *Rebuild) path() string { return filepath.Join(b.Dir, "rebuild.json") }

// widen lets spans begin no later than those of the run that is gone on with: what "two hours ago" meant then, and the table
// does not hold yet, is asked for still.
func widen(spans, kept kafka.Spans) {
	for partition, before := range kept {
		if now, in := spans[partition]; in {
			before = kafka.Span{From: min(now.From, before.From), To: now.To}
		}
		spans[partition] = before
	}
}

// resume returns what an earlier run was to look at. It refuses to go on with a table that another selection gave, since it would
// be of neither, and ends what that run was killed before it could end.
func (b *Rebuild) resume(ctx context.Context) (kafka.Spans, error) {
	data, err := os.ReadFile(b.path())
	if errors.Is(err, fs.ErrNotExist) {
		committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
		if err == nil && len(committed) > 0 {
			err = fmt.Errorf("group %s was begun from another data folder than %s: use that one, or another name", b.Streams.FilesGroup, b.Dir)
		}
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("read the selection: %w", err)
	}
	var kept rebuilding
	if err := json.Unmarshal(data, &kept); err != nil {
		return nil, fmt.Errorf("read the selection in %s: %w", b.path(), err)
	}
	if same, err := b.sameTable(ctx, kept.Table); err != nil || !same {
		return nil, err
	}
	if kept.Select.String() != b.Select.String() {
		return nil, fmt.Errorf("%s: %w: %s. Go on with that, or choose another --group", b.Streams.FilesGroup, ErrOtherSelection, kept.Select)
	}
	return kept.Spans, b.clamp(ctx, kept.Spans)
}

// ErrPassed says that retention took events which a run that was cut short had not read.
var ErrPassed = errors.New("events of the rest were removed by retention")

// ErrTableGone says that the topic of the table was deleted, and the commits of its group were not.
var ErrTableGone = errors.New("the table was deleted, or --data is of another cluster; what its group has read would be missing in a new one")

// sameTable reports whether the table is the one that the run of the note wrote. When it is not, the note says nothing of what is
// asked for now; it refuses to go on when the group's commits speak of the other table.
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
		err = fmt.Errorf("%s: %w: delete the group %s too, or choose another --group", table.Name, ErrTableGone, b.Streams.FilesGroup)
	}
	return false, err
}

// keep writes down what the run is about to do, before it does.
func (b *Rebuild) keep(r rebuilding) error {
	data, err := json.Marshal(r)
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
		return fmt.Errorf("keep the selection: %w", err)
	}
	return nil
}

// begin commits where the group begins in partitions that it has not read, and returns where it stands in all. Partitions
// without a selected event are passed over.
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
	stand := map[int32]int64{}
	var first []kadm.Offset
	for partition, whole := range extent {
		if o, begun := committed[partition]; begun {
			if span, in := spans[partition]; in && o.At < min(whole.From, span.To) {
				return nil, fmt.Errorf("%s: %w: partition %d is read up to offset %d, and %s begins at %d now: choose another --group", b.Streams.FilesGroup, ErrPassed, partition, o.At, topic, whole.From)
			}
			stand[partition] = o.At
			continue
		}
		stand[partition] = whole.To
		if span, in := spans[partition]; in {
			stand[partition] = max(span.From, whole.From)
		}
		first = append(first, kadm.Offset{Topic: topic, Partition: partition, At: stand[partition], LeaderEpoch: -1})
	}
	return stand, kafka.Commit(ctx, b.Kafka, b.Streams.FilesGroup, first...)
}

// watchEvery is how often the group's commits are looked up: it commits about as often.
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
		left := int64(0)
		for partition, span := range spans {
			at := begin[partition]
			if o, ok := committed[partition]; ok {
				at = o.At
			}
			left += max(0, span.To-at)
		}
		if err == nil {
			if b.Report != nil {
				b.Report(Progress{Done: total - left, Total: total})
			}
			if left == 0 {
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

// clamp takes back what was committed beyond the selection: those events were passed over, so a comparison must not count them
// as folded.
func (b *Rebuild) clamp(ctx context.Context, spans kafka.Spans) error {
	committed, err := kafka.Committed(ctx, b.Kafka, b.Streams.FilesGroup, b.Streams.Events.Name)
	if err != nil {
		return err
	}
	var back []kadm.Offset
	for partition, span := range spans {
		if o, ok := committed[partition]; ok && o.At > span.To {
			back = append(back, kadm.Offset{Topic: b.Streams.Events.Name, Partition: partition, At: span.To, LeaderEpoch: -1})
		}
	}
	for begun := time.Now(); ; { // a run that was killed is a member until the brokers give it up
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

// giveUpAfter is longer than the brokers take to give up a member of the group that died: its session, and their look-out.
const giveUpAfter = 20 * time.Second

package processors

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"google.golang.org/protobuf/proto"

	"tidemark/codecs"
	"tidemark/file"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Files is the group that folds each event into the row of its file, and publishes what the event changed.
//
//	events ──▶ fold ──▶ index, notify     sent when the epoch is closed
//	             │  ├─▶ dlq               dead letters
//	             │  └─▶ events            events derived for the entries of a folder
//	             └────▶ files-table       after those are acknowledged
type Files struct {
	conf        Config
	topicID     string // id of the events topic, set by Run
	group       *epochs.Group
	metrics     *fileMetrics
	pathMatches sync.Map // *pathCache by partition
}

// NewFiles returns the files group. Run starts it.
func NewFiles(conf Config) *Files {
	f := &Files{conf: conf, metrics: newFileMetrics(conf.Metrics)}
	f.group = epochs.NewGroup(epochs.Config{
		Cluster:    conf.Kafka.Cluster(),
		Name:       conf.Streams.FilesGroup,
		Table:      conf.Streams.Files.Name,
		Dir:        filepath.Join(conf.Dir, "files"),
		Log:        conf.Log,
		InstanceID: conf.InstanceID,
		Guarantee:  conf.Guarantee,
		Metrics:    epochs.NewMetrics(conf.Metrics, "tidemark", conf.Streams.FilesGroup),
		Graph:      f.graph,
		Prepare:    f.prepare,
		Older:      olderFile,
		Index:      index,
		Mirror:     indexMirror(conf),
		Hasher:     kafka.FileHasher,
		Check:      func(ctx context.Context) error { return checkTopic(ctx, conf, f.topicID) },
		Interval:   conf.epoch(),
		RowCache:   conf.RowCache,
		Join:       conf.Join,

		MaxMessageBytes: topology.MaxMessageBytes,
	})
	return f
}

// Run processes until ctx ends. It returns an error only if the operator must decide: see ErrTopicRecreated.
func (f *Files) Run(ctx context.Context) error {
	topicID, err := lookUpTopic(ctx, f.conf)
	if err != nil || topicID == "" {
		return err
	}
	f.topicID = topicID
	return f.group.Run(ctx)
}

// Ready returns nil while the group processes, else why it does not.
func (f *Files) Ready() error { return f.group.Ready() }

// Duplicates returns how many events were dropped since the start because their id was remembered.
func (f *Files) Duplicates() int64 { return f.metrics.duplicates.Load() }

func (f *Files) graph(e *epochs.Epochs) *goka.GroupGraph {
	s := f.conf.Streams
	edges := []goka.Edge{
		goka.Input(goka.Stream(s.Events.Name), codecs.Bytes{}, e.Callback(f.fold)),
		goka.Persist(codecs.FileRow{}),
	}
	if !f.conf.TableOnly {
		edges = append(edges,
			goka.Output(goka.Stream(s.Index.Name), codecs.Index{}),
			goka.Output(goka.Stream(s.Notify.Name), codecs.Notice{}),
			goka.Output(goka.Stream(s.DLQ.Name), codecs.Bytes{}),
			goka.Output(goka.Stream(s.Events.Name), codecs.Bytes{}))
	}
	return goka.DefineGroup(goka.Group(s.FilesGroup), edges...)
}

// fold is the callback for an event.
func (f *Files) fold(ctx goka.Context, message any) {
	a := message.(*arrival)
	switch {
	case a.skipped:
		return
	case a.refused != nil:
		f.deadLetter(ctx, a, a.refused)
		return
	}
	f.metrics.unreadable(a.event)
	s, at := f.conf.Streams, &tidemarkv1.Position{Partition: ctx.Partition(), Offset: ctx.Offset()}
	if a.walk != "" {
		f.continueWalk(ctx, a, at)
		return
	}
	if !file.Touches(a.event) {
		f.metrics.events.noRow.Inc()
		f.emit(ctx, s.Notify, file.NoticeOf(nil, nil, a.event, at, false))
		return
	}
	before, _ := ctx.Value().(*tidemarkv1.FileState) // nil: a new file
	after, late, verdict := file.Apply(before, a.event, at, f.topicID)
	switch verdict {
	case file.Applied: // processed again after a restart: its outputs are in the log
		f.metrics.events.applied.Inc()
	case file.Duplicate:
		f.metrics.duplicate()
		if a.event.GetCause() != nil { // the entry may have moved to another folder since
			f.derive(ctx, a.event, before, before)
		}
	case file.BeyondWindow:
		f.deadLetter(ctx, a, beyondWindow)
	case file.Accepted:
		f.metrics.accepted(late)
		if !isFolder(after) || before != nil && !isFolder(before) { // the index has files only
			f.emit(ctx, s.Index, file.IndexOf(after))
		}
		f.emit(ctx, s.Notify, file.NoticeOf(before, after, a.event, at, late))
		setRow(ctx, before, after)
		f.derive(ctx, a.event, before, after)
	case file.Unchanged:
		f.metrics.events.unchanged.Inc()
		if a.event.GetCause() == nil {
			f.emit(ctx, s.Notify, file.NoticeOf(nil, nil, a.event, at, false))
		}
		if after != before {
			setRow(ctx, before, after)
		}
		f.derive(ctx, a.event, before, after)
	}
}

func isFolder(s *tidemarkv1.FileState) bool { return s.GetKind() == tidemarkv1.Kind_KIND_FOLDER }

// indexMirror keeps the last index record of each key at the newest version of its row; nil if there is no index.
func indexMirror(conf Config) *epochs.Mirror {
	if conf.TableOnly {
		return nil
	}
	return &epochs.Mirror{
		Topic: conf.Streams.Index.Name,
		Older: func(record, row []byte) bool {
			message, err := codecs.Index{}.Decode(record)
			return err == nil && message.(*tidemarkv1.IndexOp).GetVersion() < int64(versionOf(row, fileVersionField))
		},
		Record: func(row []byte) ([]byte, error) {
			state := new(tidemarkv1.FileState)
			if err := proto.Unmarshal(row, state); err != nil {
				return nil, fmt.Errorf("decode a row of %s: %w", conf.Streams.Files.Name, err)
			}
			return codecs.Index{}.Encode(file.IndexOf(state))
		},
	}
}

// emit publishes an output with the event's key.
func (f *Files) emit(ctx goka.Context, to topology.Topic, message any) {
	if !f.conf.TableOnly {
		ctx.Emit(goka.Stream(to.Name), ctx.Key(), message)
	}
}

// An arrival is a decoded record of the events topic, with the parts that goka's context does not have.
type arrival struct {
	event   *tidemarkv1.Event
	refused *refusal // nil if the event is valid
	key     []byte   // as received
	value   []byte

	walk    string // the value of a walk record's header: the stamp, and the index key to continue after
	skipped bool   // not admitted
}

// prepare decodes a record and sets its key to that of its row. It runs before the callback, on another goroutine.
func (f *Files) prepare(r *sarama.ConsumerMessage) any {
	a := &arrival{key: r.Key, value: r.Value}
	a.event, a.refused = understand(r, f.conf.Streams.Events)
	if a.refused != nil {
		return a
	}
	if a.walk, a.refused = marks(r, a.event); a.refused != nil {
		return a
	}
	name := ""
	if file.Touches(a.event) || a.walk != "" {
		name = a.event.GetFileId()
	}
	r.Key = []byte(tidemarkv1.JoinKey(a.event.GetWorkspaceId(), name))
	if f.conf.Admit != nil {
		a.skipped = !f.conf.Admit(a.event, &tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset})
	}
	return a
}

// marks reads the headers, and the cause, of a record that the group wrote itself.
func marks(r *sarama.ConsumerMessage, e *tidemarkv1.Event) (walk string, refused *refusal) {
	for _, h := range r.Headers {
		switch string(h.Key) {
		case topology.HeaderWalk:
			return string(h.Value), nil
		case topology.HeaderCause:
			cause, err := codecs.ParseCause(r.Value, e)
			if err != nil {
				return "", &refusal{codecs.ReasonBadField, err.Error()}
			}
			e.Cause = cause
		}
	}
	return "", nil
}

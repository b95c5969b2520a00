package processors

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"

	"tidemark/codecs"
	"tidemark/file"
	"tidemark/kafka"
	"tidemark/kafka/epochs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// Workspaces is the group that counts the files, types and members of each workspace from the notices. Notices may be
// repeated, and reordered after a failed send. Each is counted once, by its position.
type Workspaces struct {
	conf    Config
	topicID string // id of the events topic, which the positions are in
	group   *epochs.Group
	metrics *workspaceMetrics
}

// NewWorkspaces returns the workspaces group. Run starts it.
func NewWorkspaces(conf Config) *Workspaces {
	w := &Workspaces{conf: conf, metrics: newWorkspaceMetrics(conf.Metrics)}
	w.group = epochs.NewGroup(epochs.Config{
		Cluster:    conf.Kafka.Cluster(),
		Name:       conf.Streams.WorkspacesGroup,
		Table:      conf.Streams.Workspaces.Name,
		Dir:        filepath.Join(conf.Dir, "workspaces"),
		Log:        conf.Log,
		InstanceID: conf.InstanceID,
		Guarantee:  conf.Guarantee,
		Metrics:    epochs.NewMetrics(conf.Metrics, "tidemark", conf.Streams.WorkspacesGroup),
		Graph:      w.graph,
		Prepare:    w.prepare,
		Older:      olderBy(workspaceVersionField),
		Check:      func(ctx context.Context) error { return checkTopic(ctx, conf, w.topicID) },
		Hasher:     kafka.FileHasher,
		Interval:   conf.epoch(),
		RowCache:   conf.RowCache,

		MaxMessageBytes: topology.MaxMessageBytes,
	})
	return w
}

// Run processes until ctx ends. It returns an error only if the operator must decide: see ErrTopicRecreated.
func (w *Workspaces) Run(ctx context.Context) error {
	topicID, err := lookUpTopic(ctx, w.conf)
	if err != nil || topicID == "" {
		return err
	}
	w.topicID = topicID
	return w.group.Run(ctx)
}

// Ready returns nil while the group processes, else why it does not.
func (w *Workspaces) Ready() error { return w.group.Ready() }

func (w *Workspaces) graph(e *epochs.Epochs) *goka.GroupGraph {
	s := w.conf.Streams
	return goka.DefineGroup(goka.Group(s.WorkspacesGroup),
		goka.Input(goka.Stream(s.Notify.Name), codecs.Bytes{}, e.Callback(w.count)),
		goka.Persist(codecs.Proto[*tidemarkv1.WorkspaceState]{
			New: func() *tidemarkv1.WorkspaceState { return new(tidemarkv1.WorkspaceState) },
		}),
	)
}

// An input is a notice, or why it cannot be decoded.
type input struct {
	notice *tidemarkv1.Notice
	err    error
}

// prepare decodes a notice and sets its key to that of its workspace.
func (w *Workspaces) prepare(r *sarama.ConsumerMessage) any {
	message, err := codecs.Notice{}.Decode(r.Value)
	if err != nil {
		return &input{err: fmt.Errorf("notice at %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)}
	}
	n := message.(*tidemarkv1.Notice)
	if len(n.GetWorkspaceId()) > codecs.MaxID || len(n.GetMember().GetId()) > codecs.MaxID {
		return &input{err: fmt.Errorf("notice at %s/%d/%d: an id has more than %d bytes", r.Topic, r.Partition,
			r.Offset, codecs.MaxID)}
	}
	r.Key = []byte(tidemarkv1.JoinKey(n.GetWorkspaceId(), ""))
	return &input{notice: n}
}

// count is the callback for a notice.
func (w *Workspaces) count(ctx goka.Context, message any) {
	m := message.(*input)
	if m.err != nil {
		// Only another program writes such a record. It stays in the topic.
		w.metrics.unreadable.Inc()
		w.conf.Log.Warn("a notice was skipped: another program writes to this topic", "error", m.err)
		return
	}
	before, _ := ctx.Value().(*tidemarkv1.WorkspaceState) // nil: a new workspace
	after, done := file.Count(before, m.notice, w.topicID)
	if !done {
		w.metrics.repeated.Inc()
		return
	}
	w.metrics.counted.Inc()
	ctx.SetValue(after)
}

// Package model asks models about files and publishes their answers.
//
// A Sink is one rule of a rules file, with a consumer group of its own: a model that hangs delays its own rule only.
// It reads fastio-index and writes fastio-predictions: a Prediction for each version of a file that the rule selects,
// acknowledged before the version counts as delivered. Of several versions in one batch only the newest is predicted.
//
// A prediction may be appended twice. An older one may come behind a newer one: after a crash, until the newer one
// comes again; or when an operator replays a dead letter. So readers compare versions: a prediction is valid for the
// version of the file that it names, and for no other.
package model

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"tidemark/codecs"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
	"tidemark/topology"
)

// Config is what a Sink needs.
type Config struct {
	Rule     Rule           // of Load
	Topic    topology.Topic // fastio-predictions
	Producer interface {    // of kafka.NewProducer
		ProduceSync(ctx context.Context, records ...*kgo.Record) kgo.ProduceResults
	}
}

// A Prediction is a record of fastio-predictions, as JSON. Its key is workspace/file/rule. Its time is the record's.
type Prediction struct {
	Op           string          `json:"op"`             // upsert, or delete for a file that is no longer active
	Into         string          `json:"into,omitempty"` // search: the search sink shows it with the file
	ID           string          `json:"id"`             // this and the next four are those of the index record
	WorkspaceID  string          `json:"workspace_id"`
	FileID       string          `json:"file_id"`
	Version      int64           `json:"version"`
	Position     string          `json:"position"`
	Rule         string          `json:"rule"`
	Model        string          `json:"model,omitempty"`
	ModelVersion string          `json:"model_version,omitempty"`
	Outputs      json.RawMessage `json:"outputs,omitempty"` // by name, each a value, or a list in row-major order
}

// A Sink asks the model of one rule. It implements sinks.Sink.
type Sink struct {
	Config
	client *http.Client
	slots  *semaphore.Weighted // one for each request in flight

	mu      sync.Mutex
	recent  map[string]answer // by the id of the index record
	cleared time.Time
}

// A task is what to do for one record.
type task struct {
	op       *tidemarkv1.IndexOp
	values   []any // of the inputs
	answer   answer
	rejected *sinks.Rejected
	asked    bool // and answered
	done     bool
}

// An answer is what the model answered for a version of a file. A deleted one has no outputs.
type answer struct {
	version      int64
	inputs       string
	modelVersion string
	outputs      json.RawMessage
}

// New returns a sink. Nothing is connected before Check.
func New(c Config) *Sink {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Rule.MaxInFlight
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the other server would get the headers
	}}
	return &Sink{Config: c, client: client, slots: semaphore.NewWeighted(int64(c.Rule.MaxInFlight))}
}

// Deliver implements sinks.Sink. It sends the requests of a batch at the same time, and begins none after a failure.
func (s *Sink) Deliver(ctx context.Context, batch []*sinks.Record) error {
	tasks, ready, ask := s.plan(batch)
	var group errgroup.Group
	var failed atomic.Bool
	group.Go(func() error { return s.publish(ctx, ready) })
	for chunk := range slices.Chunk(ask, s.Rule.Batch) {
		group.Go(func() error {
			if err := s.slots.Acquire(ctx, 1); err != nil {
				return fmt.Errorf("wait for one of %d requests in flight: %w", s.Rule.MaxInFlight, err)
			}
			defer s.slots.Release(1)
			if failed.Load() {
				return nil
			}
			err := s.predict(ctx, chunk)
			failed.CompareAndSwap(false, err != nil)
			return err
		})
	}
	p := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}, Err: group.Wait()}
	asked := 0
	for i, t := range tasks {
		switch {
		case t.rejected != nil:
			p.Rejected[batch[i]] = t.rejected
		case !t.done:
			p.Again = append(p.Again, batch[i])
		case t.asked:
			asked++
		default: // also the deleted: the model has not accepted them
			p.Skipped++
		}
	}
	if len(p.Again) == len(batch) || asked == len(batch) {
		return p.Err
	}
	return p
}

// plan returns a task for each record, and those that can be published without a request and those that cannot.
func (s *Sink) plan(batch []*sinks.Record) (tasks, ready, ask []*task) {
	newest := map[string]int64{}
	for _, r := range batch {
		t := new(task)
		message, err := codecs.Index{}.Decode(r.Value)
		t.op, _ = message.(*tidemarkv1.IndexOp)
		if err == nil && (t.op.GetFile() == nil) != (t.op.GetOp() == tidemarkv1.IndexOp_OP_DELETE) {
			err = errors.New("an index record has a file, or is a delete")
		}
		if err != nil {
			t.rejected = &sinks.Rejected{Reason: err.Error()}
		}
		t.answer.version = t.op.GetVersion()
		newest[t.op.GetId()] = max(newest[t.op.GetId()], t.op.GetVersion())
		tasks = append(tasks, t)
	}
	for _, t := range tasks {
		id, version := t.op.GetId(), t.op.GetVersion()
		last := s.last(id, nil)
		switch {
		case t.rejected != nil:
		case version < newest[id], version <= last.version, !s.Rule.match(t.op):
			t.done = true
		case t.op.GetOp() == tidemarkv1.IndexOp_OP_DELETE:
			ready = append(ready, t)
		default:
			for _, in := range s.Rule.Inputs {
				t.values = append(t.values, fields[in.Field](t.op.GetFile()))
			}
			if t.answer.inputs = fmt.Sprintf("%#v", t.values); t.answer.inputs == last.inputs {
				t.answer.modelVersion, t.answer.outputs = last.modelVersion, last.outputs
				ready = append(ready, t)
			} else {
				ask = append(ask, t)
			}
		}
	}
	return tasks, ready, ask
}

// predict asks the model and publishes its answers. The loop halves a request that the model rejects.
func (s *Sink) predict(ctx context.Context, tasks []*task) error {
	err := s.ask(ctx, tasks)
	if err == nil {
		return s.publish(ctx, tasks)
	}
	rejected, ok := errors.AsType[*sinks.Rejected](err)
	if !ok {
		return err
	}
	for _, t := range tasks {
		t.rejected = rejected
	}
	return nil
}

// publish writes predictions and waits for their acknowledgement.
func (s *Sink) publish(ctx context.Context, tasks []*task) error {
	var records []*kgo.Record
	for _, t := range tasks {
		p := Prediction{
			Op: "delete", Into: s.Rule.Into,
			ID: t.op.GetId(), WorkspaceID: t.op.GetWorkspaceId(), FileID: t.op.GetFileId(),
			Version: t.op.GetVersion(), Position: t.op.GetPosition().Text(), Rule: s.Rule.Name,
		}
		if t.op.GetOp() == tidemarkv1.IndexOp_OP_UPSERT {
			p.Op, p.Model = "upsert", s.Rule.endpoint().Model
			p.ModelVersion, p.Outputs = t.answer.modelVersion, t.answer.outputs
		}
		value, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode prediction: %w", err)
		}
		partition := kafka.FilePartition([]byte(p.ID), s.Topic.Partitions)
		records = append(records, &kgo.Record{
			Topic: s.Topic.Name, Partition: partition, Key: []byte(p.ID + "/" + p.Rule), Value: value,
		})
	}
	if err := s.Producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write to %s: %w", s.Topic.Name, err)
	}
	for _, t := range tasks {
		t.done = true
		s.last(t.op.GetId(), &t.answer)
	}
	return nil
}

// last returns the last answer for a file, and sets it. It is known for a minute at most, and 1,000 files: then a
// version that comes again is asked again, and so are the same inputs, as the model may be a new one.
func (s *Sink) last(id string, set *answer) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.cleared) > time.Minute || len(s.recent) >= 1000 {
		s.recent, s.cleared = map[string]answer{}, time.Now()
	}
	if set != nil && len(set.inputs)+len(set.outputs) < 16<<10 {
		s.recent[id] = *set
	}
	return s.recent[id]
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A gap is the time between two steps of an epoch. The proxy extends it to seconds by holding a request or an answer.
type gap struct {
	name   string
	effect proxy.Effect
	keys   []kmsg.Key
	topics func(r *installation) []string
	short  int // hits in the short form
}

func outputs(r *installation) []string { return []string{r.topics.Index, r.topics.Notify} }
func rows(r *installation) []string    { return []string{r.topics.Files, r.topics.Workspaces} }
func derived(r *installation) []string { return append(outputs(r), rows(r)...) }

var (
	produce = []kmsg.Key{kmsg.Produce}
	offsets = []kmsg.Key{kmsg.OffsetCommit}
	joining = []kmsg.Key{kmsg.AddPartitionsToTxn, kmsg.AddOffsetsToTxn}
	within  = []kmsg.Key{kmsg.TxnOffsetCommit}
	ending  = []kmsg.Key{kmsg.EndTxn}
)

var (
	outputsNotSent  = gap{"outputs not sent", proxy.HoldRequests, produce, outputs, 0}
	outputsNotAcked = gap{"outputs not acked", proxy.HoldAnswers, produce, outputs, 1}
	rowsNotSent     = gap{"rows not sent", proxy.HoldRequests, produce, rows, 0}
	// emptyNotAcked is the gap in which a transaction has no records yet.
	emptyNotAcked = gap{"transaction begun", proxy.HoldAnswers, []kmsg.Key{kmsg.AddPartitionsToTxn}, nil, 0}
	commitNotSent = gap{"commit not sent", proxy.HoldRequests, ending, nil, 0}
)

// epochGaps are those of at_least_once, in the order of an epoch.
var epochGaps = []gap{
	outputsNotSent,
	outputsNotAcked,
	rowsNotSent,
	{"rows not acked", proxy.HoldAnswers, produce, rows, 1},
	{"offsets not sent", proxy.HoldRequests, offsets, nil, 0},
	{"offsets not acked", proxy.HoldAnswers, offsets, nil, 0},
}

// transactionGaps are those of exactly_once. Outputs and rows are sent together there.
var transactionGaps = []gap{
	{"partitions not added", proxy.HoldRequests, joining, nil, 0},
	{"partitions added, not acked", proxy.HoldAnswers, joining, nil, 0},
	{"records not sent", proxy.HoldRequests, produce, derived, 0},
	{"records not acked", proxy.HoldAnswers, produce, derived, 1},
	{"offsets not sent", proxy.HoldRequests, within, nil, 0},
	{"offsets not acked", proxy.HoldAnswers, within, nil, 0},
	commitNotSent,
	{"commit not acked", proxy.HoldAnswers, ending, nil, 1},
}

// fault is the name of the fault that kills a processor in the gap.
func (g gap) fault() string { return "kill -9, " + g.name }

func (g gap) hold(r *installation) *proxy.Fault {
	var of []string
	if g.topics != nil {
		of = g.topics(r)
	}
	return &proxy.Fault{Effect: g.effect, Match: func(q proxy.Request) bool {
		return slices.ContainsFunc(g.keys, func(k kmsg.Key) bool { return k.Int16() == q.Key }) &&
			(of == nil || overlap(q.Topics, of))
	}}
}

func overlap(topics, of []string) bool {
	return slices.ContainsFunc(topics, func(t string) bool { return slices.Contains(of, t) })
}

// awaitHeld waits, for at most 5 s, until a fault holds a request or an answer: of the program, if one is given.
func awaitHeld(ctx context.Context, f *proxy.Fault, of *rig.Program) error {
	_, err := rig.Until(ctx, 5*time.Second, func() (bool, error) {
		if of == nil || f.Hits.Load() == 0 {
			return f.Hits.Load() > 0, nil
		}
		ports, known := of.Ports()
		return !known || f.Holds(func(port int) bool { return ports[port] }), nil
	})
	if err != nil && ctx.Err() == nil {
		return errMissed
	}
	return err
}

// killInGap kills a processor while one step of its epochs is held open. Held requests that it had not sent are
// dropped.
func killInGap(g gap) func(context.Context, *run) (figures, error) {
	return func(ctx context.Context, r *run) (figures, error) {
		f := g.hold(r.installation)
		f.Forget = true
		lift := r.proxy.Inject(f)
		defer lift()
		p := pick(r.rnd, r.process)
		if err := awaitHeld(ctx, f, p); err != nil {
			return nil, err
		}
		if err := rig.Sleep(ctx, r.upTo(900*time.Millisecond)); err != nil {
			return nil, err
		}
		ports, known := p.Ports()
		if err := p.Kill(); err != nil {
			return nil, err
		}
		met := f.Hits.Load()
		for end := time.Now().Add(2 * time.Second); known &&
			r.proxy.Serves(func(port int) bool { return ports[port] }) && time.Now().Before(end); {
			if err := rig.Sleep(ctx, 5*time.Millisecond); err != nil { // until the proxy has closed its connections
				return nil, err
			}
		}
		lift()
		took, err := r.restart(ctx, p)
		return figures{"recovery s": round(took), "held": float64(met)}, err
	}
}

// moveCoordinator moves the coordinator of an instance's transactions while a commit, or its answer, is held: by kill
// -9, or by electing another leader of the partition with their state.
func moveCoordinator(ctx context.Context, r *run) (figures, error) {
	id := epochs.TransactionalID(r.prefix+"-files", instance(r.rnd.IntN(len(r.process))))
	victim, err := r.coordinator(ctx, r.admin.FindTxnCoordinators, id)
	if err != nil {
		return nil, err
	}
	var before int64
	if err := whileElecting(ctx, func() (err error) { before, err = r.committed(ctx); return err }); err != nil {
		return nil, fmt.Errorf("commits of the files group: %w", err)
	}
	f := gap{
		effect: pick(r.rnd, []proxy.Effect{proxy.HoldRequests, proxy.HoldAnswers}),
		keys:   ending,
	}.hold(r.installation)
	f.Brokers = []string{r.proxied[victim-1]}
	lift := r.proxy.Inject(f)
	defer lift()
	if err := awaitHeld(ctx, f, nil); err != nil {
		return nil, err
	}
	out := figures{}
	killed := r.rnd.IntN(2) == 0
	if killed {
		err = r.node("kill", victim)
	} else {
		err = r.moveFrom(ctx, "__transaction_state", victim)
	}
	if err != nil {
		return nil, err
	}
	out["held"] = float64(f.Hits.Load())
	lift()
	took, err := rig.Until(ctx, 90*time.Second, func() (bool, error) {
		after, err := r.committed(ctx)
		return err == nil && after > before, nil // an error: this coordinator has moved as well
	})
	if err != nil {
		return nil, fmt.Errorf("nothing is committed after the coordinator %d moved (killed: %t): %w", victim, killed,
			err)
	}
	if killed {
		out["killed"], out["s to the next commit after a kill"] = 1, round(took)
		r.startNode(victim)
		return out, nil
	}
	out["s to the next commit after a move"] = round(took)
	return out, nil
}

// coordinator returns the node that coordinates a group or a transactional id.
func (r *run) coordinator(ctx context.Context, find func(context.Context, ...string) kadm.FindCoordinatorResponses,
	name string,
) (node int, err error) {
	err = whileElecting(ctx, func() error {
		found := find(ctx, name)[name]
		node = int(found.NodeID)
		return found.Err
	})
	if err != nil {
		return 0, fmt.Errorf("coordinator of %s: %w", name, err)
	}
	return node, nil
}

// whileElecting retries while a coordinator is elected, or loads its state. After 30 s the fault counts as missed.
func whileElecting(ctx context.Context, ask func() error) error {
	for begin := time.Now(); ; {
		err := ask()
		switch soon := kerr.IsRetriable(err) || errors.Is(err, context.DeadlineExceeded); {
		case err == nil || ctx.Err() != nil || !soon:
			return err
		case time.Since(begin) > 30*time.Second:
			return fmt.Errorf("%w: %w", errMissed, err)
		}
		if err := rig.Sleep(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

// committed sums the committed offsets of the files group.
func (r *run) committed(ctx context.Context) (sum int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at, err := r.admin.FetchOffsets(ctx, r.prefix+"-files")
	at.Each(func(o kadm.OffsetResponse) { sum += max(0, o.At) })
	return sum, err
}

// moveFrom elects other leaders for the partitions of a topic that a node leads.
func (r *run) moveFrom(ctx context.Context, topic string, node int) error {
	found, err := r.admin.ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return err
	}
	var assign kadm.AlterPartitionAssignmentsReq
	elect := kadm.TopicsSet{}
	for _, p := range found[topic].Partitions {
		if int(p.Leader) != node {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(p.Replicas), func(n int32) bool { return int(n) == node })
		assign.Assign(topic, p.Partition, append(others, int32(node)))
		elect.Add(topic, p.Partition)
	}
	if _, err := r.admin.AlterPartitionAssignments(ctx, assign); err != nil {
		return err
	}
	_, err = r.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect)
	return err
}

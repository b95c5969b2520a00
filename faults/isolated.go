package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tidemark/e2e/rig"
	"tidemark/kafka/epochs"

	"github.com/twmb/franz-go/pkg/kadm"
)

// isolateBroker isolates a node from the other two until they have replaced it as leader, and some seconds longer.
// Clients still reach it: it serves outdated metadata, and accepts records that it cannot replicate any more.
func isolateBroker(ctx context.Context, r *run) (figures, error) {
	victim := 1 + r.rnd.IntN(nodes)
	return isolated(ctx, r, victim, func(figures) error { return rig.Sleep(ctx, r.upTo(10*time.Second)) })
}

// wipeBesideIsolated restarts a processor without its store while a node is isolated, which is its only bootstrap
// broker. The coordinators are other nodes: the processor reads the newest commits from them, and outdated rows from
// the isolated node.
func wipeBesideIsolated(ctx context.Context, r *run) (figures, error) {
	i := r.rnd.IntN(len(r.process))
	victim, err := r.coordinatesNothing(ctx, i)
	if err != nil {
		return nil, err
	}
	p := r.process[i]
	args := p.Args
	defer func() { p.Args = args }()
	var began time.Time
	out, err := isolated(ctx, r, victim, func(out figures) error {
		p.Args = slices.Clone(args)
		p.Args[slices.Index(args, "--brokers")+1] = r.proxies[victim-1]
		if err := errors.Join(p.Kill(), rig.Wipe(p.Data), p.Start()); err != nil {
			return err
		}
		began = time.Now()
		if _, err := p.AwaitReady(ctx, 30*time.Second); err == nil { // while the node is isolated it may stay unready
			out["ready beside it"] = 1
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	_, err = p.AwaitReady(ctx, 120*time.Second)
	out["rebuilt s"] = round(time.Since(began))
	return out, err
}

// isolated isolates a node. Once the others have replaced it, and all events acknowledged by then are folded, it
// calls do, and then reconnects the node.
func isolated(ctx context.Context, r *run, victim int, do func(figures) error) (figures, error) {
	led, err := r.ledBy(ctx, victim)
	if err != nil {
		return nil, err
	}
	reconnect := r.relay.isolate(victim)
	defer reconnect()
	cut := time.Now()
	took, err := r.traffic.next200(ctx, cut.Add(500*time.Millisecond), led, 60*time.Second)
	if err != nil {
		return nil, err
	}
	out := figures{"s to the next 200": round(took)}
	behind, err := r.folded(ctx, victim, 60*time.Second)
	if err != nil {
		return nil, err
	}
	out["s to folded"] = round(behind)
	err = do(out)
	out["isolated s"] = round(time.Since(cut))
	return out, err
}

// folded waits until the files group has committed all events that are acknowledged now, and returns how long that
// took. The isolated node is not asked: its commits are outdated.
func (r *run) folded(ctx context.Context, but int, limit time.Duration) (time.Duration, error) {
	want := r.traffic.acked()
	client, err := rig.Client(slices.Delete(slices.Clone(r.plain), but-1, but))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	var failed error
	waiting := map[int32]int64{}
	took, err := rig.Until(ctx, limit, func() (bool, error) {
		var committed kadm.OffsetResponses
		committed, failed = kadm.NewClient(client).FetchOffsets(ctx, r.prefix+"-files")
		clear(waiting)
		for p, offset := range want {
			if at, _ := committed.Lookup(r.topics.Events, p); at.At <= offset {
				waiting[p] = offset - at.At
			}
		}
		return failed == nil && len(waiting) == 0, nil
	})
	if err != nil {
		return 0, fmt.Errorf("acknowledged events are not folded, by partition %v: %w", waiting,
			errors.Join(err, failed))
	}
	return took, nil
}

// coordinatesNothing returns a node that coordinates neither the files group nor the transactions of the i-th
// processor.
func (r *run) coordinatesNothing(ctx context.Context, i int) (node int, err error) {
	group, id := r.prefix+"-files", epochs.TransactionalID(r.prefix+"-files", instance(i))
	ofGroup, err := r.coordinator(ctx, r.admin.FindGroupCoordinators, group)
	if err != nil {
		return 0, err
	}
	ofTransactions := 0
	if r.transactional() {
		if ofTransactions, err = r.coordinator(ctx, r.admin.FindTxnCoordinators, id); err != nil {
			return 0, err
		}
	}
	return pick(r.rnd, slices.DeleteFunc(others(ofGroup), func(n int) bool { return n == ofTransactions })), nil
}

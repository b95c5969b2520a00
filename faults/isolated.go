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
	"github.com/twmb/franz-go/pkg/kgo"
)

// isolateBroker cuts a node off from the other two until they do without it, and a while longer. Clients still reach it: it goes
// on telling what it knew, and takes what it can no longer have replicated.
func isolateBroker(ctx context.Context, r *run) (figures, error) {
	victim := 1 + r.rnd.IntN(nodes)
	return isolated(ctx, r, victim, func(figures) error { return rig.Sleep(ctx, r.upTo(10*time.Second)) })
}

// wipeBesideIsolated has a processor begin without a store while a node is isolated, which is all that it knows at first. The
// coordinators are elsewhere, so that it learns of the newest commits, and of old rows.
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
		if _, err := p.AwaitReady(ctx, 30*time.Second); err == nil { // it need not be, as long as this lasts
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

// isolated isolates a node. When the others do without it, and all that was acknowledged by then is folded, it does something, and then
// heals the node.
func isolated(ctx context.Context, r *run, victim int, do func(figures) error) (figures, error) {
	led, err := r.ledBy(ctx, victim)
	if err != nil {
		return nil, err
	}
	heal := r.relay.isolate(victim)
	defer heal()
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

// folded waits until the files group has committed what is acknowledged now, and returns how long that took. A node that is isolated is not
// asked: it would tell old commits.
func (r *run) folded(ctx context.Context, but int, limit time.Duration) (time.Duration, error) {
	begin, want := time.Now(), r.traffic.acked()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var seeds []string
	for _, n := range others(but) {
		seeds = append(seeds, r.plain[n-1])
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(seeds...))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	for {
		committed, err := kadm.NewClient(client).FetchOffsets(ctx, r.prefix+"-files")
		waiting := map[int32]int64{}
		for p, offset := range want {
			if at, _ := committed.Lookup(r.topics.Events, p); at.At <= offset {
				waiting[p] = offset - at.At
			}
		}
		if err == nil && len(waiting) == 0 {
			return time.Since(begin), nil
		}
		if e := rig.Sleep(ctx, 200*time.Millisecond); e != nil {
			return 0, fmt.Errorf("events that were acknowledged are not folded after %v, by partition %v: %w", time.Since(begin), waiting, errors.Join(err, e))
		}
	}
}

// coordinatesNothing returns a node that coordinates neither the files group nor the transactions of the i-th processor.
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

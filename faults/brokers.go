package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kadm"
)

// killBroker kills a node, or the one that leads the quorum, and starts it again some seconds later.
func killBroker(controller bool) func(context.Context, *run) (figures, error) {
	return func(ctx context.Context, r *run) (figures, error) {
		victim := 1 + r.rnd.IntN(nodes)
		if controller {
			var err error
			if victim, err = r.controller(ctx); err != nil {
				return nil, err
			}
		}
		led, err := r.ledBy(ctx, victim)
		if err != nil {
			return nil, err
		}
		if err := r.node("kill", victim); err != nil {
			return nil, err
		}
		killed := time.Now()
		took, err := r.traffic.next200(ctx, killed.Add(100*time.Millisecond), led, 60*time.Second)
		if err != nil {
			return nil, err
		}
		if err := rig.Sleep(ctx, r.between(time.Second, 8*time.Second)); err != nil {
			return nil, err
		}
		r.startNode(victim)
		return figures{"s to the next 200": round(took)}, nil
	}
}

// pauseBroker sends a node SIGSTOP: its connections stay open.
func pauseBroker(ctx context.Context, r *run) (figures, error) {
	victim := 1 + r.rnd.IntN(nodes)
	led, err := r.ledBy(ctx, victim)
	if err != nil {
		return nil, err
	}
	if err := r.node("pause", victim); err != nil {
		return nil, err
	}
	begin := time.Now()
	err = rig.Sleep(ctx, r.between(3*time.Second, 15*time.Second)) // the brokers' session timeout is 9 s
	if err = errors.Join(err, r.node("cont", victim)); err != nil {
		return nil, err
	}
	took, err := r.traffic.next200(ctx, begin.Add(100*time.Millisecond), led, 60*time.Second)
	return figures{"s to the next 200": round(took)}, err
}

// killTwo leaves one broker of three: below min.insync.replicas, so nothing may be acknowledged.
func killTwo(ctx context.Context, r *run) (figures, error) {
	left, busyPartitions := 1+r.rnd.IntN(nodes), r.traffic.busyPartitions()
	for _, n := range others(left) {
		if err := r.node("kill", n); err != nil {
			return nil, err
		}
	}
	if err := rig.Sleep(ctx, 500*time.Millisecond); err != nil { // requests that were in flight have arrived
		return nil, err
	}
	w, end := r.traffic.watch()
	outage := 60 * time.Second
	if r.quick {
		outage = 12 * time.Second
	}
	if err := rig.Sleep(ctx, outage); err != nil {
		return nil, err
	}
	end()
	if n := len(w.ok); n > 0 {
		return nil, fmt.Errorf("%d webhooks were answered 200 with one broker of three, the last one %v after those "+
			"in flight had 500 ms", n, w.last.Sub(w.begin).Round(time.Millisecond))
	}
	for _, n := range others(left) {
		r.startNode(n)
	}
	if err := r.awaitNodes(); err != nil {
		return nil, err
	}
	back := time.Now()
	took, err := r.traffic.next200(ctx, back, busyPartitions, 90*time.Second)
	return figures{
		"503 p99 ms": p99(w.slow), "503s": float64(w.refused),
		"s from back to 200 everywhere": round(took),
	}, err
}

// loneLeader stops a leader's followers and then kills it: what it acknowledged alone is lost.
func loneLeader(ctx context.Context, r *run) (figures, error) {
	victim := 1 + r.rnd.IntN(nodes)
	led, err := r.ledBy(ctx, victim)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range others(victim) {
		errs = append(errs, r.node("pause", n))
	}
	const before = 500 * time.Millisecond // requests that the followers have answered, or have in their fetches
	errs = append(errs, rig.Sleep(ctx, before))
	alone, end := r.traffic.watch()
	errs = append(errs, rig.Sleep(ctx, r.between(1500*time.Millisecond, 2500*time.Millisecond)-before))
	end()
	errs = append(errs, r.node("kill", victim))
	for _, n := range others(victim) {
		errs = append(errs, r.node("cont", n))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	took, err := r.traffic.next200(ctx, time.Now(), led, 60*time.Second)
	if err != nil {
		return nil, err
	}
	r.startNode(victim)
	return figures{"s to the next 200": round(took), acknowledgedAlone: float64(len(alone.ok))}, nil
}

const acknowledgedAlone = "200s without followers" // 0, unless the ingress is wrong

// moveLeaders elects other leaders for the partitions of every topic, several times.
func moveLeaders(ctx context.Context, r *run) (figures, error) {
	w, end := r.traffic.watch()
	defer end()
	rounds := 8
	if r.quick {
		rounds = 3
	}
	moved := 0
	for range rounds {
		found, err := r.admin.ListTopics(ctx, r.topics.Events, r.topics.Files, r.topics.Notify, r.topics.Index)
		if err != nil {
			return nil, err
		}
		var assign kadm.AlterPartitionAssignmentsReq
		elect := kadm.TopicsSet{}
		found.EachPartition(func(p kadm.PartitionDetail) {
			assign.Assign(p.Topic, p.Partition, append(p.Replicas[1:], p.Replicas[0]))
			elect.Add(p.Topic, p.Partition)
			moved++
		})
		if _, err := r.admin.AlterPartitionAssignments(ctx, assign); err != nil {
			return nil, err
		}
		if _, err := r.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect); err != nil {
			return nil, err
		}
		if err := rig.Sleep(ctx, 1500*time.Millisecond); err != nil {
			return nil, err
		}
	}
	end()
	return figures{"leaders moved": float64(moved), "longest s without a 200": round(w.gap)}, nil
}

// others returns the numbers of all brokers but one.
func others(but int) (all []int) {
	for n := 1; n <= nodes; n++ {
		if n != but {
			all = append(all, n)
		}
	}
	return all
}

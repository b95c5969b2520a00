package main

import (
	"context"
	"time"

	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/time/rate"
)

func (r *run) toEvents(q proxy.Request) bool { return overlap(q.Topics, []string{r.topics.Events}) }

// cutAcks drops the acknowledgements of events that are in the log: the sender repeats them.
func cutAcks(ctx context.Context, r *run) (figures, error) {
	busyPartitions := r.traffic.busyPartitions()
	f := &proxy.Fault{Effect: proxy.CutAnswers, Match: r.toEvents}
	lift := r.proxy.Inject(f)
	defer lift()
	if err := rig.Sleep(ctx, r.between(2*time.Second, 5*time.Second)); err != nil {
		return nil, err
	}
	lift()
	begin := time.Now()
	took, err := r.traffic.next200(ctx, begin, busyPartitions, 60*time.Second)
	return figures{"acks lost": float64(f.Hits.Load()), "s to the next 200": round(took)}, err
}

// holdAcks holds one broker's acknowledgements for longer than senders wait, and then kills a role that waits for them.
func holdAcks(ctx context.Context, r *run) (figures, error) {
	f := &proxy.Fault{
		Effect: proxy.HoldAnswers, Brokers: []string{pick(r.rnd, r.proxied)},
		Match: func(q proxy.Request) bool { return q.Key == kmsg.Produce.Int16() },
	}
	w, end := r.traffic.watch()
	defer end()
	lift := r.proxy.Inject(f)
	defer lift()
	// the ingress answers 503 after 2.5 s
	if err := rig.Sleep(ctx, r.between(3*time.Second, 6*time.Second)); err != nil {
		return nil, err
	}
	p := pick(r.rnd, append(append([]*rig.Program{}, r.ingress...), r.process...))
	if err := p.Kill(); err != nil {
		return nil, err
	}
	lift()
	end()
	took, err := r.restart(ctx, p)
	return figures{"held": float64(f.Hits.Load()), "503s": float64(w.refused), "recovery s": round(took)}, err
}

// slowBroker delays every answer of a broker by 2 s.
func slowBroker(ctx context.Context, r *run) (figures, error) {
	w, end := r.traffic.watch()
	defer end()
	lift := r.proxy.Inject(
		&proxy.Fault{Effect: proxy.DelayAnswers, Brokers: []string{pick(r.rnd, r.proxied)}, Delay: 2 * time.Second})
	defer lift()
	if err := rig.Sleep(ctx, r.between(8*time.Second, 15*time.Second)); err != nil {
		return nil, err
	}
	lift()
	end()
	most := 0.0
	for _, p := range r.all() {
		most = max(most, p.Usage().RSSMB)
	}
	begin := time.Now()
	err := r.traffic.awaitTraffic(ctx, 60*time.Second)
	return figures{
		"200 p99 ms": p99(w.ok), "503s": float64(w.refused), "503 p99 ms": p99(w.slow), "largest RSS MB": most,
		"s to the next 200": round(time.Since(begin)),
	}, err
}

// idle has idle connections closed while hardly any events are sent.
func idle(ctx context.Context, r *run) (figures, error) {
	r.traffic.trickle.Store(rate.NewLimiter(3, 1))
	defer r.traffic.trickle.Store(nil)
	f := &proxy.Fault{Effect: proxy.IdleOut, Delay: time.Second}
	lift := r.proxy.Inject(f)
	defer lift()
	if err := rig.Sleep(ctx, 2*time.Second); err != nil { // requests in flight end
		return nil, err
	}
	w, end := r.traffic.watch()
	defer end()
	if err := rig.Sleep(ctx, r.between(10*time.Second, 20*time.Second)); err != nil {
		return nil, err
	}
	end()
	return figures{
		"connections closed": float64(f.Hits.Load()), "200s": float64(len(w.ok)), "200 p99 ms": p99(w.ok),
		"5xx": float64(w.refused),
	}, nil
}

// cutOff partitions one broker from all clients: packets are lost, connections stay open. The brokers still reach
// each other.
func cutOff(ctx context.Context, r *run) (figures, error) {
	busyPartitions := r.traffic.busyPartitions()
	lift := r.proxy.Inject(&proxy.Fault{Effect: proxy.Silence, Brokers: []string{pick(r.rnd, r.proxied)}})
	defer lift()
	if err := rig.Sleep(ctx, r.between(4*time.Second, 20*time.Second)); err != nil {
		return nil, err
	}
	lift()
	healed := time.Now()
	took, err := r.traffic.next200(ctx, healed, busyPartitions, 90*time.Second)
	return figures{"s from healed to 200 everywhere": round(took)}, err
}

// reset closes all connections to a broker and refuses new ones for a moment.
func reset(ctx context.Context, r *run) (figures, error) {
	busyPartitions := r.traffic.busyPartitions()
	f := &proxy.Fault{Effect: proxy.Refuse, Brokers: []string{pick(r.rnd, r.proxied)}}
	lift := r.proxy.Inject(f)
	defer lift()
	if err := rig.Sleep(ctx, r.between(time.Second, 8*time.Second)); err != nil {
		return nil, err
	}
	lift()
	begin := time.Now()
	took, err := r.traffic.next200(ctx, begin, busyPartitions, 60*time.Second)
	return figures{"refused": float64(f.Hits.Load()), "s to the next 200": round(took)}, err
}

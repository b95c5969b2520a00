package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/e2e/proxy"
	"tidemark/e2e/rig"
)

const maxInstances = 4

// instanceCounts are those of which each role is measured. On few cores the rate cannot grow, but the cost can.
var instanceCounts = []int{1, 2, maxInstances}

// An instancesRun is that of several instances of one role on the same work.
type instancesRun struct {
	Role        string             `json:"role"`
	Instances   int                `json:"instances"`
	Repetition  int                `json:"repetition"`
	PerS        float64            `json:"per_s"`
	CPUus       float64            `json:"cpu_us_each"`        // of all instances together, for an event or a webhook
	BrokerUs    float64            `json:"broker_cpu_us_each"` // with what the proxy costs the broker
	Partitions  []int              `json:"partitions,omitempty"`
	EventBytes  float64            `json:"event_bytes,omitempty"` // in the topic, as ingest writes it
	Connections int                `json:"connections"`           // of all instances to the broker
	Requests    map[string]float64 `json:"requests_per_thousand"` // events, by kind
	span
}

// instances measures process and ingest in several instances.
func (u *suite) instances(ctx context.Context) error {
	c, err := u.shared(ctx)
	if err != nil {
		return err
	}
	counter, err := countRequests(u.brokers)
	if err != nil {
		return err
	}
	defer counter.Close()
	for rep := range (u.reps + 1) / 2 { // no target depends on it
		for i := range instanceCounts {
			n := instanceCounts[(i+rep)%len(instanceCounts)]
			for role, measure := range []func() (instancesRun, error){
				func() (instancesRun, error) { return c.processes(ctx, counter, n) },
				func() (instancesRun, error) { return c.ingests(ctx, counter, n) },
			} {
				name := []string{"process", "ingest"}[role]
				run, ok, err := counted(ctx, u, fmt.Sprintf("%d of %s", n, name), rep+1, measure)
				if err != nil {
					return err
				}
				if ok {
					run.Role, run.Instances, run.Repetition = name, n, rep+1
					u.report.Instances = append(u.report.Instances, run)
					say("%d of %s: %.1f us of CPU each, %.0f/s, %.0f MB, %d connections", n, name, run.CPUus, run.PerS,
						run.PeakRSSMB, run.Connections)
				}
			}
		}
	}
	return nil
}

// processes has instances share the input, each with a local store of its own, from their start to the last commit.
func (c *contest) processes(ctx context.Context, counter *requests, n int) (run instancesRun, err error) {
	if err := c.renew(ctx); err != nil {
		return run, err
	}
	var programs []*rig.Program
	for k := range n {
		name := instanceName(k + 1)
		command := []string{"process", "--groups", "files", "--instance-id", name}
		p := rig.New(c.binary, c.dir, name, append(command, counter.of(c.installation).flags()...)...).Store()
		defer p.Close()
		programs = append(programs, p)
		if err := errors.Join(os.RemoveAll(p.Data), os.RemoveAll(p.Log)); err != nil {
			return run, err
		}
	}
	o, err := observe(c.brokerPID, programs...)
	if err != nil {
		return run, err
	}
	counter.reset()
	for _, p := range programs {
		if err := p.Start(); err != nil {
			return run, err
		}
	}
	if err := c.awaitCommit(ctx, c.group(), programs...); err != nil {
		return run, err
	}
	if run, err = c.together(o, counter, float64(c.events), 1); err != nil {
		return run, err
	}
	if run.Partitions, err = c.shares(ctx); err != nil {
		return run, err
	}
	if len(run.Partitions) < n || slices.Min(run.Partitions) == 0 {
		return run, fmt.Errorf("%d instances have %v partitions", n, run.Partitions)
	}
	for _, p := range programs {
		if err := stop(p); err != nil {
			return run, err
		}
	}
	return run, c.want.check(ctx, c.brokers, c.topics.Index, c.topics.Notify, c.topics.Files)
}

// ingests has instances share webhooks, which come over connections that send the next one when one is answered. The
// events go to topics of their own.
func (c *contest) ingests(ctx context.Context, counter *requests, n int) (run instancesRun, err error) {
	s := c.setup
	s.events = 0
	i, err := s.install(ctx)
	if err != nil {
		return run, err
	}
	var programs []*rig.Program
	for k := range n {
		p, err := counter.of(i).ingress(ctx, "ingest"+instanceName(k+1))
		if err != nil {
			return run, err
		}
		defer p.Close()
		programs = append(programs, p)
	}
	crowd := s.crowd(programs...)
	crowd.run(ctx, time.Second) // warm up
	before := rig.End(ctx, i.client, i.topics.Events)
	o, err := observe(c.brokerPID, programs...)
	if err != nil {
		return run, err
	}
	counter.reset()
	accepted := len(crowd.run(ctx, c.phase()/2).took["200"])
	if run, err = c.together(o, counter, float64(accepted), 2); err != nil {
		return run, err
	}
	end := rig.End(ctx, i.client, i.topics.Events)
	if written := end - before; accepted == 0 || written < int64(accepted) {
		return run, wrongOutput{fmt.Errorf("%d webhooks were answered 200, and %d are in the topic", accepted, written)}
	}
	sizes, err := i.sizes(ctx)
	if err != nil {
		return run, err
	}
	run.EventBytes = per(sizes[i.topics.Events], float64(end))
	for _, p := range programs {
		if err := stop(p); err != nil {
			return run, err
		}
	}
	return run, i.close(ctx)
}

// together ends an observation of instances, each of which has so many listeners.
func (c *contest) together(
	o *observation, counter *requests, events float64, listeners int,
) (run instancesRun, err error) {
	run.Requests = counter.per(events / 1000)
	if run.span, err = o.end(); err != nil {
		return run, err
	}
	run.PerS, run.CPUus = per(events, run.Seconds), per(run.CPU*1e6, events)
	run.BrokerUs = per(run.BrokerCPU*1e6, events)
	for _, p := range o.programs {
		ports, _ := p.Ports() // of accepted connections too, but those have the port of their listener
		run.Connections += len(ports) - listeners
	}
	return run, nil
}

// shares returns how many partitions each member of the group has.
func (c *contest) shares(ctx context.Context) (partitions []int, err error) {
	groups, err := c.admin.DescribeGroups(ctx, c.group())
	if err = errors.Join(err, groups.Error()); err != nil {
		return nil, err
	}
	for _, m := range groups[c.group()].Members {
		assigned, _ := m.Assigned.AsConsumer()
		n := 0
		for _, t := range assigned.Topics {
			if t.Topic == c.topics.Events {
				n += len(t.Partitions)
			}
		}
		partitions = append(partitions, n)
	}
	slices.Sort(partitions)
	return partitions, nil
}

// requests counts the requests to the broker, by kind.
type requests struct {
	*proxy.Proxy
	mu    sync.Mutex
	count map[string]float64
}

func countRequests(brokers []string) (r *requests, err error) {
	r = &requests{count: map[string]float64{}}
	if r.Proxy, err = proxy.Start(proxy.Config{Brokers: brokers}); err != nil {
		return nil, err
	}
	r.Inject(&proxy.Fault{Effect: proxy.HoldRequests, Match: func(q proxy.Request) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.count[kmsg.NameForKey(q.Key)]++
		return false // nothing is held
	}})
	return r, nil
}

// of returns the installation behind the proxy.
func (r *requests) of(i *installation) *installation {
	behind := *i
	behind.brokers = r.Addrs()
	return &behind
}

func (r *requests) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.count)
}

func (r *requests) per(n float64) map[string]float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	each := map[string]float64{}
	for kind, count := range r.count {
		each[kind] = per(count, n)
	}
	return each
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"tidemark/parquetlog"
	"tidemark/sinks"
	"tidemark/topology"
)

// A sinkCommand delivers to other systems.
type sinkCommand struct {
	Names []string `arg:"" name:"name" enum:"search,notify,archive,model" help:"Sinks to run in this process: search, notify, archive, model."`
	roleFlags
	dataFlags
	InstanceID string `help:"Name of this instance, unique and the same after a restart: a restarted instance then gets its partitions back at once." name:"instance-id" placeholder:"NAME"`
	searchFlags
	notifyFlags
	archiveFlags
	modelFlags
	Rebuild bool `help:"Fill a new search index from fastio-index, replace the present one by it, and end. Sinks go on meanwhile." env:"-"`
}

// sinkMemory is the soft memory limit of a sink, in bytes. The binary itself takes some 48 MB of resident memory more.
const sinkMemory = 72_000_000

// Run delivers until ctx ends.
func (c *sinkCommand) Run(ctx context.Context, con console) error {
	slices.Sort(c.Names)
	c.Names = slices.Compact(c.Names)
	if c.Rebuild && !slices.Equal(c.Names, []string{topology.SinkSearch}) {
		return usagef("--rebuild works only with `tidemark sink search`")
	}
	if os.Getenv("GOMEMLIMIT") == "" { // else the heap grows to twice what is live before garbage is collected
		debug.SetMemoryLimit(int64(len(c.Names)) * sinkMemory)
	}
	ctx, done := context.WithCancel(ctx)
	defer done()
	return c.runRole(ctx, con, c.role, func(h *host) (services []service, err error) {
		for _, name := range c.Names {
			var more []service
			switch name {
			case topology.SinkSearch:
				more, err = c.search(h, done)
			case topology.SinkNotify:
				if c.NotifyRules == "" {
					return nil, usagef("--notify-rules is missing: the file of rules; see docs/notify.md")
				}
				more, err = c.notifyFlags.services(h, c.InstanceID)
			case topology.SinkArchive:
				if c.ArchiveURL == "" {
					return nil, usagef("--archive-url is missing: s3://bucket/prefix, or file:///folder")
				}
				more, err = c.archiveFlags.services(h, c.Data, c.InstanceID)
			case topology.SinkModel:
				if c.ModelRules == "" {
					return nil, usagef("--model-rules is missing: the file of rules; see docs/model.md")
				}
				more, err = c.modelFlags.services(h, c.InstanceID)
			}
			if err != nil {
				return nil, err
			}
			services = append(services, more...)
		}
		return []service{together("sinks", services...)}, nil
	})
}

// role returns the roles of all sinks that are named.
func (c *sinkCommand) role(streams topology.Streams) topology.Role {
	var roles []topology.Role
	for _, role := range streams.SinkRoles() {
		if slices.ContainsFunc(c.Names, func(name string) bool { return role.Name == "sink-"+name }) {
			roles = append(roles, role)
		}
	}
	return topology.RunRoles(roles...)
}

func (c *sinkCommand) search(h *host, done func()) ([]service, error) {
	if err := c.refuseEmbedded(); err != nil {
		return nil, err
	}
	if c.SearchURL == "" {
		return nil, usagef("--search-url is missing: http(s)://host:port of OpenSearch or Elasticsearch")
	}
	sink, err := c.open(h.log, h.streams)
	if err != nil {
		return nil, err
	}
	if c.Rebuild {
		return []service{{name: "rebuild", run: h.gate.then(func(ctx context.Context) error {
			if err := c.rebuild(ctx, h, sink); err != nil {
				return err
			}
			done()
			<-ctx.Done()
			return nil
		})}}, nil
	}
	return c.searchFlags.services(h, sink, c.InstanceID)
}

// sinkConfig returns the configuration of a loop.
func (h *host) sinkConfig(name, instance string, topics ...topology.Topic) sinks.Config {
	if h.sinkMetrics == nil {
		h.sinkMetrics = sinks.NewMetrics(h.registry)
	}
	return sinks.Config{
		Name: name, Kafka: h.kafka, Streams: h.streams, Topics: topics, InstanceID: instance,
		Log: h.log.With("role", "sink"), Metrics: h.sinkMetrics,
	}
}

// sink returns the service of a loop. check finds wrong settings of its destination, before the loop begins.
func (h *host) sink(name string, loop *sinks.Loop, check func(context.Context) error) service {
	var starting atomic.Pointer[error] // of check; nil: it has passed
	notYet := errors.New("the destination has not been checked yet")
	starting.Store(&notYet)
	h.readiness.Add("sink "+name, h.gate.ready(func() error {
		if err := starting.Load(); err != nil {
			return *err
		}
		return loop.Ready()
	}))
	return service{name: "sink " + name, run: h.gate.then(func(ctx context.Context) error {
		err := checkDestination(ctx, check, func(err error) {
			starting.Store(&err)
			h.log.WarnContext(ctx, "the destination does not answer, trying again", "sink", name, "error", err)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("check the destination: %w", err)
		}
		starting.Store(nil)
		return loop.Run(ctx)
	})}
}

// The time of one check, and of all while the destination does not answer.
const (
	checkTimeout  = 20 * time.Second
	checkRetryFor = time.Minute
)

// checkDestination repeats check while waiting may help. Any other error is one of the settings.
func checkDestination(ctx context.Context, check func(context.Context) error, failed func(error)) error {
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		bounded, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		err := check(bounded)
		if err != nil && !temporary(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithMaxElapsedTime(checkRetryFor), backoff.WithNotify(func(err error, _ time.Duration) { failed(err) }))
	return err
}

// temporary reports whether waiting may help against an error: the destination does not answer, or is busy.
func temporary(err error) bool {
	_, network := errors.AsType[net.Error](err)
	_, later := errors.AsType[*sinks.Later](err)
	return network || later || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		parquetlog.Busy(err)
}

// together returns one service of several that stop at the same time: a destination that is down delays the stop of its
// sink by some seconds.
func together(name string, services ...service) service {
	return service{name: name, run: func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		for _, s := range services {
			group.Go(func() error { return s.run(ctx) })
		}
		return group.Wait()
	}}
}

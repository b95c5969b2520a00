package epochs

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/lovoo/goka"

	"tidemark/kafka/committed"
	"tidemark/kafka/localstore"
)

// A Group runs one goka processor with epochs until its context ends. goka's processor ends with the first error and
// cannot run twice; a Group builds the next one after a pause that grows.
type Group struct {
	conf Config

	mu        sync.Mutex
	processor *goka.Processor // nil between two attempts
	epochs    *Epochs         // of the processor
	err       error           // why the last attempt ended
}

// The pause between two attempts, and how long an attempt must have run for the next pause to be short again.
const (
	minRestartPause = 250 * time.Millisecond
	maxRestartPause = 15 * time.Second
	stableRun       = time.Minute
)

// drainTimeout is how long a stopping processor waits for acknowledgements, for example while no broker answers.
// Records whose effects are not acknowledged by then are processed again.
const drainTimeout = 15 * time.Second

// storeSettings leave most of the memory to the row cache: a block has few rows that are used, and must be searched.
// The block cache is for the filters and indexes of tables, which each read needs: 35 MB for 5 million rows.
var storeSettings = localstore.Settings{Cache: 64 << 20, MemTable: 32 << 20, WrittenOften: true}

// NewGroup returns a group that does nothing until Run.
func NewGroup(conf Config) *Group {
	return &Group{conf: conf.withDefaults(), err: errors.New("not started")}
}

// Run processes until ctx ends, then waits for what is in flight, commits and returns nil. A failure is logged,
// returned by Ready, and followed by another attempt, unless Check refuses it. A configuration that cannot work is an
// error at once.
func (g *Group) Run(ctx context.Context) error {
	if err := g.conf.validate(); err != nil {
		g.set(nil, nil, err)
		return err
	}
	pauses := backoff.ExponentialBackOff{
		InitialInterval: minRestartPause, MaxInterval: maxRestartPause,
		Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	for {
		if g.conf.Check != nil {
			if err := g.conf.Check(ctx); err != nil {
				g.set(nil, nil, err)
				return err
			}
		}
		begin := time.Now()
		err := g.attempt(ctx)
		if ctx.Err() != nil {
			if err != nil {
				g.conf.Log.WarnContext(ctx, "processor did not stop cleanly, what was in flight is processed again",
					"group", g.conf.Name, "error", err)
			}
			return nil
		}
		if time.Since(begin) >= stableRun {
			pauses.Reset()
		}
		pause := pauses.NextBackOff()
		g.set(nil, nil, err)
		g.conf.Metrics.restarted()
		g.conf.Log.ErrorContext(ctx, "processor ended, it will be restarted",
			"group", g.conf.Name, "pause", pause.String(), "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// Ready returns nil while the processor runs and its table is recovered, else the reason.
func (g *Group) Ready() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.processor == nil:
		return fmt.Errorf("group %s is not running: %w", g.conf.Name, g.err)
	case !g.processor.Recovered():
		if progress := g.epochs.recoverySoFar(time.Now()); progress != "" {
			return fmt.Errorf("group %s is recovering its table: %s", g.conf.Name, progress)
		}
		return fmt.Errorf("group %s is joining or recovering its table", g.conf.Name)
	}
	return nil
}

func (g *Group) set(p *goka.Processor, e *Epochs, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.processor, g.epochs, g.err = p, e, err
}

// attempt runs one processor from its start to its end.
func (g *Group) attempt(ctx context.Context) (err error) {
	id, err := g.conf.Cluster.TopicID(ctx, g.conf.Table)
	if err != nil {
		return err
	}
	pin := id.String()
	if g.conf.Index != nil {
		pin += indexLayout
	}
	store, err := localstore.OpenWith(g.conf.Dir, pin, g.conf.Log, storeSettings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	epochs := newEpochs(g.conf, store, id.String())
	options := append(clientOptions(g.conf.Cluster, g.conf.Hasher, g.conf.Log), epochs.options()...)
	graph := g.conf.Graph(epochs)
	epochs.codecs = codecsOf(graph)
	processor, err := goka.NewProcessor(g.conf.Cluster.Brokers, graph, options...)
	if err != nil {
		return fmt.Errorf("build processor: %w", err)
	}
	g.set(processor, epochs, nil)
	stopping := context.AfterFunc(ctx, func() { time.AfterFunc(drainTimeout, func() { epochs.failAll(errClosed) }) })
	defer stopping()
	if err := processor.Run(ctx); err != nil {
		return epochs.cause(err)
	}
	if ctx.Err() == nil {
		return errors.New("the processor ended without an error")
	}
	return nil
}

// clientOptions returns the options of a processor for its clients and hasher. goka's own clients may lose and reorder
// records.
func clientOptions(c committed.Cluster, hasher func() hash.Hash32, log *slog.Logger) []goka.ProcessorOption {
	if hasher == nil {
		hasher = goka.DefaultHasher()
	}
	return []goka.ProcessorOption{
		goka.WithLogger(committed.GokaLog(log)),
		goka.WithHasher(hasher),
		goka.WithNilHandling(goka.NilProcess),
		goka.WithPartitionChannelSize(prefetchRecords),
		goka.WithConsumerSaramaBuilder(committed.Consumer(c)),
		goka.WithTopicManagerBuilder(committed.TopicManager(c, committed.NoMinEnd)),
	}
}

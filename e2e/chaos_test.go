package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tidemark/e2e/provider"
	"tidemark/e2e/rig"

	"golang.org/x/time/rate"
)

// A plan is how often each role is killed.
type plan struct {
	processor, ingress int
	wipe               bool          // the processor's local store is removed after its last kill
	hold               time.Duration // acknowledgements are held for up to this long before most kills of the processor
	always             bool          // before each
	foreign            bool          // another producer writes to the events topic too

	// during replaces the kills of processor and ingress. When it returns, the rest is sent at full speed.
	during func(ctx context.Context, pace *rate.Limiter) error
}

// chaos kills roles at random moments while traffic flows, and paces the senders so that it flows until the last kill.
type chaos struct {
	*fixture
	plan   plan
	rnd    *rand.Rand
	sender *provider.Sender
	pace   *rate.Limiter
	total  int // deliveries of the history

	kills, ingressKills, held, withoutTraffic int
	recovery                                  []time.Duration // from the start of a processor to its first notice
	ingressGap                                []time.Duration
}

// run kills as planned. It returns an error when there was no traffic left to kill in, or a role ended by itself.
func (c *chaos) run(ctx context.Context) error {
	defer c.pace.SetLimit(rate.Inf)
	var order []bool // true: the processor
	for i := range c.plan.processor + c.plan.ingress {
		order = append(order, i < c.plan.processor)
	}
	c.rnd.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for i, processor := range order { // the processor's last kill is the last of all: its store may be removed
		if !processor && i == len(order)-1 {
			for j := range order {
				if order[j] {
					order[j], order[i] = false, true
					break
				}
			}
		}
	}
	estimate := 5 * time.Second
	for i, processor := range order {
		c.adapt(order[i:], estimate)
		begin := time.Now()
		var err error
		if processor {
			last := c.kills == c.plan.processor-1
			err = c.killProcessor(ctx, last && c.plan.wipe)
			estimate = max((estimate+time.Since(begin))/2, time.Second)
		} else {
			err = c.killIngress(ctx)
		}
		if err != nil {
			return fmt.Errorf("kill %d of %d: %w", i+1, len(order), err)
		}
	}
	return nil
}

// adapt sets the senders' rate so that the remaining deliveries last for the remaining kills, and a little longer.
func (c *chaos) adapt(order []bool, processor time.Duration) {
	need := 2 * time.Second
	for _, p := range order {
		if p {
			need += processor
		} else {
			need += 2 * time.Second
		}
	}
	left := max(c.total-c.sender.Resolved(), 1)
	c.pace.SetLimit(rate.Limit(max(20, 0.9*float64(left)/need.Seconds())))
}

// killProcessor waits for its first output, lets it run for a while, most times with acknowledgements held, and kills
// it.
func (c *chaos) killProcessor(ctx context.Context, wipe bool) error {
	notify := c.topics.Notify
	if err := rig.AwaitGrowth(ctx, c.client, notify, rig.End(ctx, c.client, notify)); err != nil {
		return err
	}
	sleep(ctx, c.upTo(700*time.Millisecond))
	release := func() {}
	acked, seen := c.sender.OK.Load(), rig.End(ctx, c.client, notify)
	if c.plan.hold > 0 && (c.plan.always || c.rnd.IntN(4) > 0) {
		c.held++
		release = c.proxy.Hold()
		defer release()
		sleep(ctx, c.plan.hold/2+c.upTo(c.plan.hold/2))
	} else {
		sleep(ctx, 100*time.Millisecond+c.upTo(200*time.Millisecond))
		c.flows(ctx, acked)
	}
	if c.sender.OK.Load() == acked && rig.End(ctx, c.client, notify) == seen {
		c.withoutTraffic++
	}
	if err := c.process.Kill(); err != nil {
		return err
	}
	release()
	c.kills++
	if wipe {
		if err := rig.Wipe(c.process.Data); err != nil {
			return err
		}
	}
	// Requests that the killed process had sent may still arrive; the growth after them is the new process's.
	sleep(ctx, 150*time.Millisecond)
	before := rig.End(ctx, c.client, notify)
	if c.once {
		before += partitions // the marker with which the new process aborts the killed one's transaction
	}
	begin := time.Now()
	if err := errors.Join(c.process.Start(), rig.AwaitGrowth(ctx, c.client, notify, before)); err != nil {
		return fmt.Errorf("after a restart: %w\n%s", err, c.process.Tail())
	}
	c.recovery = append(c.recovery, time.Since(begin))
	return nil
}

// flows waits a while for more 200s than those before: on a busy machine none may come for half a second.
func (c *chaos) flows(ctx context.Context, before int64) {
	for begin := time.Now(); c.sender.OK.Load() == before && time.Since(begin) < 5*time.Second; {
		sleep(ctx, 10*time.Millisecond)
	}
}

func (c *chaos) killIngress(ctx context.Context) error {
	if err := rig.AwaitGrowth(ctx, c.client, c.topics.Events, rig.End(ctx, c.client, c.topics.Events)); err != nil {
		return err
	}
	sleep(ctx, c.upTo(500*time.Millisecond))
	acked := c.sender.OK.Load()
	sleep(ctx, 100*time.Millisecond+c.upTo(100*time.Millisecond))
	c.flows(ctx, acked)
	if c.sender.OK.Load() == acked {
		c.withoutTraffic++
	}
	if err := c.ingest.Kill(); err != nil {
		return err
	}
	c.ingressKills++
	acked = c.sender.OK.Load()
	if err := c.ingest.Start(); err != nil {
		return err
	}
	gap, err := rig.Until(ctx, 30*time.Second, func() (bool, error) { return c.sender.OK.Load() > acked, nil })
	if err != nil {
		return fmt.Errorf("no 200 after a restart of the ingress: %w\n%s", err, c.ingest.Tail())
	}
	c.ingressGap = append(c.ingressGap, gap)
	return nil
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.rnd.Int64N(int64(d))) }

// sleep ends early with ctx, after which nothing waits.
func sleep(ctx context.Context, d time.Duration) { _ = rig.Sleep(ctx, d) }

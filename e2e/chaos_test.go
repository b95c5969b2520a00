package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"tidemark/e2e/provider"

	"golang.org/x/time/rate"
)

// A plan says how often what is killed.
type plan struct {
	processor, ingress int
	wipe               bool          // the last kill of the processor takes its local store too
	hold               time.Duration // acknowledgements are held for up to this long before most kills of the processor
	always             bool          // before each
	foreign            bool          // others write to the events topic too
}

// chaos kills roles at random moments while traffic flows, and paces the senders so that it does until the last kill.
type chaos struct {
	rig    *rig
	plan   plan
	rnd    *rand.Rand
	sender *provider.Sender
	pace   *rate.Limiter
	total  int // deliveries there will be

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
	for i, processor := range order { // the processor's last kill comes last: it may take the store with it
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

// adapt sets the senders' rate so that what is left lasts for the kills that are left, and a bit more.
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

// grows waits until a topic has grown past a bound.
func (c *chaos) grows(ctx context.Context, topic string, past int64) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for c.rig.end(topic) <= past {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s stays at %d: %w", topic, past, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// killProcessor waits for its first output, lets it run for a while, most times with acknowledgements held, and kills it.
func (c *chaos) killProcessor(ctx context.Context, wipe bool) error {
	notify := c.rig.topics.Notify
	if err := c.grows(ctx, notify, c.rig.end(notify)); err != nil {
		return err
	}
	sleep(ctx, c.upTo(700*time.Millisecond))
	release := func() {}
	acked, seen := c.sender.OK.Load(), c.rig.end(notify)
	if c.plan.hold > 0 && (c.plan.always || c.rnd.IntN(4) > 0) {
		c.held++
		release = c.rig.proxy.Hold()
		defer release()
		sleep(ctx, c.plan.hold/2+c.upTo(c.plan.hold/2))
	} else {
		sleep(ctx, 100*time.Millisecond+c.upTo(200*time.Millisecond))
		c.flows(ctx, acked)
	}
	if c.sender.OK.Load() == acked && c.rig.end(notify) == seen {
		c.withoutTraffic++
	}
	if err := c.rig.process.kill(); err != nil {
		return fmt.Errorf("%w\n%s", err, c.rig.process.tail())
	}
	release()
	c.kills++
	if wipe {
		if err := os.RemoveAll(c.rig.data("process")); err != nil {
			return err
		}
	}
	// What the dead process had sent may still arrive: let that settle, so that the next growth is the new process's.
	sleep(ctx, 150*time.Millisecond)
	before := c.rig.end(notify)
	if c.rig.once {
		before += partitions // the marker by which the new process aborts what the dead one had open
	}
	begin := time.Now()
	c.rig.process.start(c.rig.t)
	if err := c.grows(ctx, notify, before); err != nil {
		return fmt.Errorf("after a restart: %w\n%s", err, c.rig.process.tail())
	}
	c.recovery = append(c.recovery, time.Since(begin))
	return nil
}

// flows waits a while for another 200 than those that were there: on a busy machine none may come for half a second.
func (c *chaos) flows(ctx context.Context, before int64) {
	for begin := time.Now(); c.sender.OK.Load() == before && time.Since(begin) < 5*time.Second; {
		sleep(ctx, 10*time.Millisecond)
	}
}

func (c *chaos) killIngress(ctx context.Context) error {
	if err := c.grows(ctx, c.rig.topics.Events, c.rig.end(c.rig.topics.Events)); err != nil {
		return err
	}
	sleep(ctx, c.upTo(500*time.Millisecond))
	acked := c.sender.OK.Load()
	sleep(ctx, 100*time.Millisecond+c.upTo(100*time.Millisecond))
	c.flows(ctx, acked)
	if c.sender.OK.Load() == acked {
		c.withoutTraffic++
	}
	if err := c.rig.ingest.kill(); err != nil {
		return fmt.Errorf("%w\n%s", err, c.rig.ingest.tail())
	}
	c.ingressKills++
	begin, acked := time.Now(), c.sender.OK.Load()
	c.rig.ingest.start(c.rig.t)
	for c.sender.OK.Load() <= acked {
		if time.Since(begin) > 30*time.Second {
			return fmt.Errorf("no 200 for 30 s after a restart of the ingress\n%s", c.rig.ingest.tail())
		}
		sleep(ctx, 10*time.Millisecond)
	}
	c.ingressGap = append(c.ingressGap, time.Since(begin))
	return nil
}

func (c *chaos) upTo(d time.Duration) time.Duration { return time.Duration(c.rnd.Int64N(int64(d))) }

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

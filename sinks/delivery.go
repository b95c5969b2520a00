package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/cenkalti/backoff/v5"

	"tidemark/deadletters"
)

// A delivery is a batch on its way to the sink.
type delivery struct {
	*Loop
	batch    []*Record
	accepted int // attempts of the Loop in which the destination accepted a record, before this batch
	rejected int // dead letters
	skipped  int

	refused []refusal // of one round
	untried []*Record
}

// A refusal is a record that the destination refuses by itself.
type refusal struct {
	*Record
	why *Rejected
}

// enoughRefusals of single records without an acceptance end a round: the destination may refuse everything.
const enoughRefusals = 5

// deliver returns when every record of the batch is applied or a dead letter, or ctx ends. If the batch is not due, it
// returns a *notDueError.
//
// A refused record becomes a dead letter once the destination has accepted another one since the batch began. Until
// then it is tried again: if the destination or its settings are wrong, every record that arrives is refused.
func (l *Loop) deliver(ctx, pausing context.Context, batch []*Record) (*delivery, error) {
	d := &delivery{Loop: l, batch: batch, accepted: l.retry.acceptances()}
	for open := batch; len(open) > 0; {
		d.refused, d.untried = nil, nil
		if err := d.try(ctx, pausing, open); err != nil {
			return nil, err
		}
		refused, behind := d.refused, d.untried
		for len(refused) > 0 && d.atFault(refused[0]) {
			if err := d.reject(ctx, refused[0]); err != nil {
				return nil, err
			}
			refused = refused[1:]
		}
		open = nil
		if len(refused) > 0 {
			if err := d.tryAgain(ctx, pausing, refused[0]); err != nil {
				return nil, err
			}
			for _, r := range refused[1:] {
				open = append(open, r.Record)
			}
		}
		open = append(open, behind...)
	}
	return d, nil
}

// accepting reports whether the destination has accepted a record since the batch began.
func (d *delivery) accepting() bool { return d.retry.acceptances() > d.accepted }

func (d *delivery) atFault(r refusal) bool { return r.why.Answer == "" || r.Retried || d.accepting() }

// try delivers records until each is applied, or refused by itself: those that are refused together are halved.
func (d *delivery) try(ctx, pausing context.Context, records []*Record) error {
	if len(d.refused) >= enoughRefusals && !d.accepting() {
		d.untried = append(d.untried, records...)
		return nil
	}
	open, refused := records, map[*Record]*Rejected{}
	err := d.retry.do(ctx, pausing, func(ctx context.Context) (err error) {
		open, err = d.attempt(ctx, open, refused)
		return err
	})
	if _, ok := errors.AsType[*Rejected](err); err != nil && !ok {
		return err
	}
	together := map[*Rejected][]*Record{}
	for _, r := range records {
		if why := refused[r]; why != nil {
			together[why] = append(together[why], r)
		}
	}
	for _, r := range records { // in their order
		why := refused[r]
		switch all := together[why]; {
		case why == nil || all[0] != r:
		case len(all) == 1:
			d.refused = append(d.refused, refusal{r, why})
		default:
			half := len(all) / 2
			err := d.try(ctx, pausing, all[:half])
			if err == nil {
				err = d.try(ctx, pausing, all[half:])
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// attempt delivers records once. It adds those that are refused, and returns those that are not applied.
func (d *delivery) attempt(ctx context.Context, open []*Record, refused map[*Record]*Rejected) ([]*Record, error) {
	err := d.sink.Deliver(ctx, open)
	partial, isPartial := errors.AsType[*Partial](err)
	rejected, isRejected := errors.AsType[*Rejected](err)
	later, _ := errors.AsType[*Later](err)
	switch {
	case isPartial:
		maps.Copy(refused, partial.Rejected)
		d.skipped += partial.Skipped
		if len(partial.Again)+len(partial.Rejected)+partial.Skipped < len(open) {
			d.retry.accept()
		}
		if len(partial.Again) == 0 {
			return nil, nil
		}
		err = cmp.Or(partial.Err, errNotApplied)
		if len(partial.Again) < len(open) {
			err = &progressError{err}
		}
		return partial.Again, err
	case isRejected:
		for _, r := range open {
			refused[r] = rejected
		}
	case notDue(err) && len(open) == len(d.batch):
		return open, &notDueError{later.Pause}
	case err == nil:
		d.retry.accept()
	}
	return open, err
}

var errNotApplied = errors.New("the destination has not applied all records")

// tryAgain delivers a refused record until the destination accepts it, or it counts as at fault.
func (d *delivery) tryAgain(ctx, pausing context.Context, r refusal) error {
	err := again(pausing, nil, func() error {
		d.refused = nil
		if err := d.try(ctx, pausing, []*Record{r.Record}); err != nil {
			return backoff.Permanent(err)
		}
		if len(d.refused) == 0 {
			return nil
		}
		if r = d.refused[0]; !d.atFault(r) && !d.retry.noteRejection(ctx, r.why) {
			return r.why
		}
		if err := d.reject(ctx, r); err != nil {
			return backoff.Permanent(err)
		}
		return nil
	})
	if err != nil {
		d.retry.clearRefusing()
	}
	return err
}

// reject writes a dead letter and waits until it is acknowledged.
func (d *delivery) reject(ctx context.Context, r refusal) error {
	dead := deadletters.NewRecord(d.config.Streams.DLQ.Name, r.read, deadletters.Failure{
		Reason: deadletters.ReasonSinkRejected, Message: r.why.Reason, Answer: r.why.Answer, Sink: d.config.Name,
	})
	if err := d.dead.ProduceSync(ctx, dead).FirstErr(); err != nil {
		return fmt.Errorf("produce the dead letter of %s: %w", r.Position(), err)
	}
	d.rejected++
	d.config.Log.WarnContext(ctx, "the destination rejected a record, it is a dead letter now: see `tidemark dlq show`",
		"entry", r.Position()+"@"+d.config.Name, "reason", r.why.Reason, "answer", r.why.Answer)
	return nil
}

// count counts the records of the batch, and others that the sink did not get.
func (d *delivery) count(others int) {
	d.metrics.count(len(d.batch)-d.rejected-d.skipped, d.rejected, d.skipped+others)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"tidemark/e2e/rig"
)

// A trial is one run of a variant. Times and CPU are from the first index record to the last commit.
type trial struct {
	Variant    string `json:"variant"`
	Repetition int    `json:"repetition"`

	EventsPerS     float64 `json:"events_per_s"`
	ClientCPU      float64 `json:"cpu_s_per_million"`
	BrokerCPU      float64 `json:"broker_cpu_s_per_million"`
	TotalClientCPU float64 `json:"total_client_cpu_s"` // from its start to its end, by wait4
	span

	MB      map[string]float64 `json:"mb"`      // of the topics index, notify and table
	Records map[string]int64   `json:"records"` // end offsets: with the markers of transactions
	StoreMB float64            `json:"store_mb"`
}

// contest is an input that programs read, and the topics that they write by turns.
type contest struct {
	*installation
	*peers
	brokerPID int
	want      *want
	runs      int
}

// throughput runs tidemark and its peers on one input by turns.
func (u *suite) throughput(ctx context.Context) error {
	c, err := u.shared(ctx)
	if err != nil {
		return err
	}
	if err := c.control(ctx, u.report); err != nil {
		return err
	}
	for rep := range u.reps {
		for i := range u.variants { // each begins once: a run may suffer from what the one before left to do
			if err := u.repeat(ctx, c, u.variants[(i+rep)%len(u.variants)], rep+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// A wrongOutput is what a program's records lack.
type wrongOutput struct{ error }

// control proves that the check refuses a program that loses an event, the last of a partition.
func (c *contest) control(ctx context.Context, r *comparison) error {
	last := len(c.want.events[0]) - 1
	for last >= 0 && c.want.events[0][last] == (outcome{}) {
		last--
	}
	_, err := c.run(ctx, variant{"control", "franz-go loop that loses an event", franz("-lose", strconv.Itoa(last))})
	wrong := wrongOutput{}
	switch {
	case err == nil:
		return errors.New("the control, which loses an event, was not refused: no figure counts")
	case !errors.As(err, &wrong):
		return fmt.Errorf("the control: %w", err)
	}
	r.Control = wrong.Error()
	say("control refused: %v", wrong)
	return nil
}

// repeat runs a variant until a run counts or fails.
func (u *suite) repeat(ctx context.Context, c *contest, v variant, rep int) error {
	figures, ok, err := counted(ctx, u, v.name, rep, func() (trial, error) {
		figures, err := c.run(ctx, v)
		figures.Variant, figures.Repetition = v.name, rep
		say("%-13s %7.0f events/s, CPU %5.1f s/M, broker %5.1f s/M, %5.0f MB, foreign CPU %2.0f %%", v.name,
			figures.EventsPerS, figures.ClientCPU, figures.BrokerCPU, figures.PeakRSSMB, 100*figures.Foreign)
		return figures, err
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		say("refused: %v", err)
		why, _, _ := strings.Cut(err.Error(), "\n")
		u.report.Refused = append(u.report.Refused, unused{u.part, v.name, rep, why, figures.Foreign})
	case ok:
		u.report.Runs = append(u.report.Runs, figures)
	}
	return nil
}

// run runs a variant on fresh topics and in a fresh group, and checks its outputs.
func (c *contest) run(ctx context.Context, v variant) (figures trial, err error) {
	if err := c.renew(ctx); err != nil {
		return figures, err
	}
	c.runs++
	p := v.start(c, c.data())
	if err := errors.Join(os.RemoveAll(c.data()), os.RemoveAll(p.Log), p.Start()); err != nil {
		return figures, err
	}
	defer p.Close()
	if figures, err = c.measure(ctx, p); err != nil {
		return figures, fmt.Errorf("%w\n%s", err, p.Tail())
	}
	if err := stop(p.Program); err != nil {
		return figures, err
	}
	figures.TotalClientCPU = per(p.TotalCPU().Seconds(), 1)
	if figures.StoreMB, err = folderMB(c.data()); err != nil {
		return figures, err
	}
	if err := c.want.check(ctx, c.brokers, c.topics.Index, c.topics.Notify, p.table); err != nil {
		return figures, wrongOutput{err}
	}
	return figures, nil
}

// measure waits until a program has committed the input.
func (c *contest) measure(ctx context.Context, p started) (figures trial, err error) {
	_, err = rig.Until(ctx, patience, func() (bool, error) {
		return rig.End(ctx, c.client, c.topics.Index) > 0, p.Signal(0)
	})
	if err != nil {
		return figures, fmt.Errorf("wait for the first index record: %w", err)
	}
	o, err := observe(c.brokerPID, p.Program)
	if err != nil {
		return figures, err
	}
	if err := c.awaitCommit(ctx, p.group, p.Program); err != nil {
		return figures, err
	}
	used, err := o.end()
	if err != nil {
		return figures, err
	}
	million := float64(c.events) / 1e6
	figures = trial{
		span: used, EventsPerS: per(float64(c.events), used.Seconds), ClientCPU: per(used.CPU, million),
		BrokerCPU: per(used.BrokerCPU, million), MB: map[string]float64{}, Records: map[string]int64{},
	}
	sizes, err := c.sizes(ctx)
	for name, topic := range map[string]string{"index": c.topics.Index, "notify": c.topics.Notify, "table": p.table} {
		figures.MB[name], figures.Records[name] = per(sizes[topic]/1e6, 1), rig.End(ctx, c.client, topic)
	}
	return figures, err
}

// renew deletes what the variant before wrote, and tidemark's group: its members are static and do not leave.
func (c *contest) renew(ctx context.Context) error {
	if err := c.deleteTopics(ctx, c.topics.Events); err != nil {
		return err
	}
	group := c.group()
	for n := range maxInstances + 1 {
		left, err := c.admin.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs(instanceName(n)))
		err = errors.Join(err, left.Error())
		if err != nil && !isAny(err, kerr.UnknownMemberID, kerr.GroupIDNotFound) {
			return fmt.Errorf("remove the member of %s: %w", group, err)
		}
	}
	if _, err := c.admin.DeleteGroup(ctx, group); err != nil && !isAny(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("delete %s: %w", group, err)
	}
	if err := rig.CreateTopics(ctx, c.binary, c.flags()...); err != nil {
		return err
	}
	for _, topic := range []string{c.topics.Index, c.topics.Notify, c.topics.Files} {
		if end := rig.End(ctx, c.client, topic); end != 0 { // it asks until each partition has a leader
			return fmt.Errorf("%s is not a new topic, its end is %d", topic, end)
		}
	}
	return nil
}

func isAny(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"tidemark/e2e/rig"
)

// A comparison is all that the report shows.
type comparison struct {
	Machine     []string `json:"machine"`
	Events      int      `json:"events"`
	Unique      int      `json:"unique"`
	Files       int      `json:"files"`
	Partitions  int      `json:"partitions"`
	Repetitions int      `json:"repetitions"`
	MaxForeign  float64  `json:"max_foreign"`
	Control     string   `json:"control"` // why the control was refused
	Runs        []trial  `json:"runs"`
	Discarded   []trial  `json:"discarded"` // for foreign CPU
	Refused     []trial  `json:"refused"`   // for wrong outputs, or because they failed
}

// A trial is one run of a variant. Times and CPU are from the first index record to the last commit.
type trial struct {
	Variant    string  `json:"variant"`
	Repetition int     `json:"repetition"`
	Why        string  `json:"why,omitempty"` // it does not count
	Seconds    float64 `json:"seconds"`

	EventsPerS     float64 `json:"events_per_s"`
	ClientCPU      float64 `json:"cpu_s_per_million"`
	BrokerCPU      float64 `json:"broker_cpu_s_per_million"`
	PeakRSSMB      float64 `json:"peak_rss_mb"`
	TotalClientCPU float64 `json:"total_client_cpu_s"` // from its start to its end, by wait4
	Foreign        float64 `json:"foreign_cpu_share"`

	MB      map[string]float64 `json:"mb"`      // of the topics index, notify and table
	Records map[string]int64   `json:"records"` // end offsets: with the markers of transactions
}

// contest is the input that all variants read, and the topics that they write by turns.
type contest struct {
	*installation
	peers
	admin     *kadm.Client
	brokerPID int
	want      *want
	runs      int
}

const attempts = 3 // of a run, when other programs use the CPU

// compare runs tidemark and its peers on one input by turns, checks all that they write, and writes the report.
func compare(ctx context.Context, s setup) (result, error) {
	c := &contest{}
	var err error
	if c.brokerPID, err = strconv.Atoi(os.Getenv("KAFKA_PID")); err != nil {
		return nil, errors.New("KAFKA_PID is not set: compare counts the CPU time of a broker on this machine, " +
			"as that of `deploy/kafka/kafka.sh run`")
	}
	compared, err := selected(s.only)
	if err != nil {
		return nil, err
	}
	if err := c.build(s.dir); err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.Go(func() (err error) { c.want, err = newWant(s); return err })
	group.Go(func() (err error) { c.installation, err = s.install(ctx); return err })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	c.admin = kadm.NewClient(c.client)
	r := &comparison{
		Machine: describeMachine(), Events: s.events, Unique: c.want.unique, Files: len(c.want.files),
		Partitions: s.partitions, Repetitions: s.reps, MaxForeign: s.foreign,
	}
	if err := c.control(ctx, r); err != nil {
		return nil, err
	}
	for rep := range s.reps {
		for i := range compared { // each begins once: a run may suffer from what the one before left to do
			if err := c.repeat(ctx, r, compared[(i+rep)%len(compared)], rep+1); err != nil {
				return nil, err
			}
		}
	}
	if err := errors.Join(r.write(s.report), c.close(ctx)); err != nil {
		return nil, err
	}
	return result{
		"measured": "compare", "report": filepath.Join(s.report, reportFile), "runs": len(r.Runs),
		"discarded": len(r.Discarded),
	}, r.incomplete(compared)
}

// incomplete returns an error if a run was refused, or a variant has no figures.
func (r *comparison) incomplete(compared []variant) (err error) {
	for _, run := range r.Refused {
		err = errors.Join(err, fmt.Errorf("%s was refused: %s", run.Variant, run.Why))
	}
	for _, v := range compared {
		if r.spread(v.name, eventRate.of).n == 0 {
			err = errors.Join(err, fmt.Errorf("%s has no run that counts", v.name))
		}
	}
	return err
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
func (c *contest) repeat(ctx context.Context, r *comparison, v variant, rep int) error {
	for range attempts {
		figures, err := c.run(ctx, v)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		figures.Variant, figures.Repetition = v.name, rep
		say("%-13s %7.0f events/s, CPU %5.1f s/M, broker %5.1f s/M, %5.0f MB, foreign CPU %2.0f %%", v.name,
			figures.EventsPerS, figures.ClientCPU, figures.BrokerCPU, figures.PeakRSSMB, 100*figures.Foreign)
		switch {
		case err != nil:
			say("refused: %v", err)
			figures.Why, _, _ = strings.Cut(err.Error(), "\n")
			r.Refused = append(r.Refused, figures)
			return nil
		case figures.Foreign <= c.foreign:
			r.Runs = append(r.Runs, figures)
			return nil
		}
		figures.Why = fmt.Sprintf("other programs used %.0f %% of the CPU", 100*figures.Foreign)
		say("discarded: %s", figures.Why)
		r.Discarded = append(r.Discarded, figures)
	}
	return nil
}

// run runs a variant on fresh topics and in a fresh group, and checks its outputs.
func (c *contest) run(ctx context.Context, v variant) (figures trial, err error) {
	if err := c.renew(ctx); err != nil {
		return figures, err
	}
	c.runs++
	data := filepath.Join(c.dir, "data")
	p := v.start(c, data)
	if err := errors.Join(os.RemoveAll(data), os.RemoveAll(p.Log), p.Start()); err != nil {
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
	begin, client := time.Now(), p.Usage()
	before, err := loadNow(c.brokerPID)
	if err != nil {
		return figures, err
	}
	if err := c.awaitCommit(ctx, p); err != nil {
		return figures, err
	}
	took, used := time.Since(begin), p.Usage()
	after, err := loadNow(c.brokerPID)
	if err != nil {
		return figures, err
	}
	million := float64(c.events) / 1e6
	figures = trial{
		Seconds: per(took.Seconds(), 1), EventsPerS: per(float64(c.events), took.Seconds()),
		ClientCPU: per((used.CPU - client.CPU).Seconds(), million),
		BrokerCPU: per((after.broker - before.broker).Seconds(), million),
		PeakRSSMB: per(used.PeakMB, 1), Foreign: per(foreign(before, after, used.CPU-client.CPU, took), 1),
		MB: map[string]float64{}, Records: map[string]int64{},
	}
	sizes, err := c.sizes(ctx)
	for name, topic := range map[string]string{"index": c.topics.Index, "notify": c.topics.Notify, "table": p.table} {
		figures.MB[name], figures.Records[name] = per(sizes[topic]/1e6, 1), rig.End(ctx, c.client, topic)
	}
	return figures, err
}

func (c *contest) awaitCommit(ctx context.Context, p started) error {
	_, err := rig.Until(ctx, patience, func() (bool, error) {
		if err := p.Signal(0); err != nil {
			return false, err
		}
		lag, err := rig.Lag(ctx, c.client, p.group, c.topics.Events)
		return lag == 0 && err == nil, nil // else the group does not exist yet
	})
	if err != nil {
		return fmt.Errorf("the group has not committed its input: %w", err)
	}
	return nil
}

// sizes returns the bytes of each topic.
func (c *contest) sizes(ctx context.Context) (map[string]float64, error) {
	dirs, err := c.admin.DescribeAllLogDirs(ctx, nil)
	sizes := map[string]float64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) { sizes[p.Topic] += float64(p.Size) })
	})
	return sizes, err
}

// renew deletes what the variant before wrote, and tidemark's group: it is a static member and does not leave.
func (c *contest) renew(ctx context.Context) error {
	all, err := c.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	old := slices.DeleteFunc(all.Names(), func(name string) bool {
		return name == c.topics.Events || !strings.HasPrefix(name, c.prefix+"-")
	})
	if len(old) > 0 {
		deleted, err := c.admin.DeleteTopics(ctx, old...)
		if err = errors.Join(err, deleted.Error()); err != nil {
			return err
		}
	}
	group := c.group()
	left, err := c.admin.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs(instance))
	if err = errors.Join(err, left.Error()); err != nil && !isAny(err, kerr.UnknownMemberID, kerr.GroupIDNotFound) {
		return fmt.Errorf("remove the member of %s: %w", group, err)
	}
	if _, err := c.admin.DeleteGroup(ctx, group); err != nil && !isAny(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("delete %s: %w", group, err)
	}
	if err := rig.CreateTopics(ctx, c.binary, c.flags()...); err != nil {
		return err
	}
	for _, topic := range []string{c.topics.Index, c.topics.Notify, c.topics.Files} {
		if rig.End(ctx, c.client, topic) != 0 { // it asks until each partition has a leader
			return fmt.Errorf("%s is not a new topic", topic)
		}
	}
	return nil
}

func isAny(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// Config of a Sink. Rule names the subscription in fastio-deliveries, logs and metrics.
type Config struct {
	Rule   string
	Sender Sender
	Match  func(*tidemarkv1.Notice) bool
	Render func([]*tidemarkv1.Notice) (*Message, error)
	Digest bool // one message for the notices of a workspace in a batch, else one for each notice
	// Hold returns when a batch may be sent that begins with a notice of that time: after quiet hours, or when a digest
	// has been collected. nil: at once.
	Hold    func(first, now time.Time) time.Time
	Rate    *rate.Limiter // of messages; nil: no limit
	Store   Store
	Log     *slog.Logger
	Metrics *Metrics
}

// A Sink delivers the notices that one rule matches to its channel, in order per file. It records an intent before each
// attempt and the result after it. So a message is sent twice only if a process ends between an attempt and its result.
type Sink struct {
	Config
	webhook bool // its receiver belongs to someone else: attempts get rare, and end
	now     func() time.Time

	mu       sync.Mutex
	accepted time.Time             // when the channel last accepted a message
	paused   time.Time             // the end of the pause that it asked for
	warned   time.Duration         // the age at the last warning since then
	disabled map[viewKey]time.Time // where the rule is disabled, and when that was last seen
}

// New returns the sink of a rule.
func New(c Config) *Sink {
	_, webhook := c.Sender.(*WebhookSender)
	return &Sink{Config: c, webhook: webhook, now: time.Now, disabled: map[viewKey]time.Time{}}
}

var errDisabled = errors.New("disabled: mend the receiver, then enable the rule")

// A group is the notices of one message, with their records.
type group struct {
	records []*sinks.Record
	notices []*tidemarkv1.Notice
}

// Deliver implements sinks.Sink.
func (s *Sink) Deliver(ctx context.Context, batch []*sinks.Record) error {
	result := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
	var matched group
	for _, r := range batch {
		if n, err := (codecs.Notice{}).Decode(r.Value); err != nil {
			result.Rejected[r] = &sinks.Rejected{Reason: err.Error()}
		} else if n := n.(*tidemarkv1.Notice); s.Match(n) {
			matched.records, matched.notices = append(matched.records, r), append(matched.notices, n)
		}
	}
	if len(matched.records) > 0 {
		if s.Hold != nil {
			if at := s.Hold(matched.records[0].Time, s.now()); at.After(s.now()) {
				return s.held(at)
			}
		}
		known, err := s.Store.Open(ctx, s.Rule, batch)
		if err != nil {
			return err
		}
		if err := s.checkDisabled(batch[0], known); err != nil {
			return err
		}
		again := s.sendAll(ctx, s.groups(matched, known, result), known, result)
		result.Again = slices.DeleteFunc(matched.records, func(r *sinks.Record) bool { return !again[r] })
	}
	if len(result.Rejected)+len(result.Again) == 0 {
		return nil
	}
	return result
}

// groups leaves out what was answered before, and repeats of a notice.
func (s *Sink) groups(matched group, known map[string]Delivery, result *sinks.Partial) (groups []*group) {
	digests, seen := map[string]*group{}, map[string]bool{}
	for i, n := range matched.notices {
		r, d := matched.records[i], known[n.GetOpId()]
		g := digests[n.GetWorkspaceId()]
		switch {
		case d.State == stateRejected:
			result.Rejected[r] = &sinks.Rejected{Reason: "rejected before", Answer: d.Answer}
			continue
		case d.State == stateSent || seen[n.GetOpId()]:
			s.Metrics.messages.WithLabelValues(s.Rule, "skipped").Inc()
			continue
		case !s.Digest || g == nil:
			g = &group{}
			groups, digests[n.GetWorkspaceId()] = append(groups, g), g
		}
		seen[n.GetOpId()] = true
		g.records, g.notices = append(g.records, r), append(g.notices, n)
	}
	return groups
}

// sendAll goes on after a message that fails, with other files: if one of them is accepted, the message is at fault and
// not the channel. After two failures in a row it stops.
func (s *Sink) sendAll(
	ctx context.Context, groups []*group, known map[string]Delivery, result *sinks.Partial,
) (again map[*sinks.Record]bool) {
	again = map[*sinks.Record]bool{}
	blocked, failures := map[string]bool{}, 0
	for _, g := range groups {
		wait := failures >= 2
		for _, r := range g.records {
			wait = wait || blocked[string(r.Key)]
		}
		err := ctx.Err()
		if err == nil && !wait {
			err = s.send(ctx, g, known)
		}
		rejected, isRejected := errors.AsType[*sinks.Rejected](err)
		switch {
		case isRejected:
			for _, r := range g.records {
				result.Rejected[r] = rejected
			}
			continue
		case errors.Is(err, errDisabled):
			failures = 2
		case err != nil:
			failures++
		case !wait:
			failures = 0
			continue
		}
		result.Err = cmp.Or(result.Err, err)
		for _, r := range g.records {
			blocked[string(r.Key)], again[r] = true, true
		}
	}
	return again
}

// send makes an attempt, if it is time for one. The error is for all records of g.
func (s *Sink) send(ctx context.Context, g *group, known map[string]Delivery) error {
	op, now := g.notices[0].GetOpId(), s.now()
	d := known[op]
	if d.First.IsZero() {
		d.First = now
	}
	alive, paused := s.alive(known, d.First)
	for _, at := range []time.Time{s.due(op, d, alive), paused} {
		if at.After(now) {
			return s.later(at, errors.New(cmp.Or(d.Answer, "the destination asked for a pause")))
		}
	}
	if s.Rate != nil {
		if turn := s.Rate.ReserveN(now, 1); turn.DelayFrom(now) > 0 {
			turn.CancelAt(now)
			return s.held(now.Add(turn.DelayFrom(now)))
		}
	}
	if d.State == stateIntent {
		s.Metrics.messages.WithLabelValues(s.Rule, "again").Inc()
	}
	d.State, d.At, d.Attempts = stateIntent, now, d.Attempts+1
	if err := s.record(ctx, g, known, d); err != nil {
		return err
	}
	// An attempt that is cut may have been accepted: it has some time after the end of ctx.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(5*time.Second, cancel) })()
	m, failed := s.Render(g.notices)
	if failed == nil {
		failed = s.Sender.Send(sending, m)
	} else {
		failed = &sinks.Rejected{Reason: "no message can be made of it: " + failed.Error()}
	}
	if failed != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // the partition goes to another process
	}
	outcome := s.judge(&d, failed, alive)
	s.Metrics.messages.WithLabelValues(s.Rule, d.State).Inc()
	return cmp.Or(s.record(sending, g, known, d), outcome)
}

// record keeps d for the notices of g in known, and acknowledged in the store.
func (s *Sink) record(ctx context.Context, g *group, known map[string]Delivery, d Delivery) (err error) {
	for i, n := range g.notices {
		d.Offset, d.Retried = g.records[i].Offset, g.records[i].Retried
		known[n.GetOpId()] = d
		err = cmp.Or(err, s.Store.Put(ctx, s.Rule, n.GetOpId(), g.records[i].Partition, d))
	}
	return err
}

// alive returns whether the channel has accepted a message since then, and until when it wants none.
func (s *Sink) alive(known map[string]Delivery, since time.Time) (alive bool, paused time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range known {
		if d.State == stateSent && d.At.After(s.accepted) {
			s.accepted = d.At
		}
	}
	return !s.accepted.Before(since), s.paused
}

// checkDisabled returns an error if a message of this partition, or of another one, has disabled the rule.
func (s *Sink) checkDisabled(first *sinks.Record, known map[string]Delivery) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	here := viewKey{s.Rule, first.Partition, first.Retried}
	delete(s.disabled, here)
	answer, now := "by a message of another partition", s.now()
	for _, d := range known {
		if d.State == stateDisabled {
			s.disabled[here], answer = now, d.Answer
		}
	}
	// Another process may have a partition by now.
	maps.DeleteFunc(s.disabled, func(_ viewKey, seen time.Time) bool { return now.Sub(seen) > 2*maxWait })
	s.Metrics.disabled.WithLabelValues(s.Rule).Set(float64(len(s.disabled)))
	if len(s.disabled) == 0 {
		return nil
	}
	return s.later(now.Add(maxWait), fmt.Errorf("%w: %s", errDisabled, answer))
}

const (
	maxWait      = time.Minute        // until a message that waits is looked at again: the channel may work by then
	giveUpAfter  = 72 * time.Hour     // on a message
	disableAfter = 5 * 24 * time.Hour // when nothing at all is accepted
)

// pauses are those of Standard Webhooks, scaled to 72 hours: between attempts while an endpoint accepts nothing.
var pauses = []time.Duration{
	5 * time.Second, 5 * time.Minute, 25 * time.Minute, 90 * time.Minute, 5 * time.Hour, 10 * time.Hour, 13 * time.Hour,
	18 * time.Hour, 24 * time.Hour,
}

// due returns when the next attempt is made. The jitter is the same each time it is asked.
func (s *Sink) due(op string, d Delivery, alive bool) time.Time {
	if d.Attempts == 0 {
		return time.Time{}
	}
	pause := min(5*time.Second<<min(d.Attempts-1, 10), 10*time.Minute)
	if s.webhook && !alive {
		pause = pauses[min(d.Attempts, len(pauses))-1]
	}
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(op)) // it never fails
	jitter := 0.8 + 0.4*rand.New(rand.NewPCG(seed.Sum64(), uint64(d.Attempts))).Float64()
	at := d.At.Add(time.Duration(jitter * float64(pause)))
	if d.After.After(at) {
		return d.After
	}
	return at
}

// held returns that nothing has failed, and the batch waits.
func (s *Sink) held(until time.Time) error {
	return &sinks.Later{Pause: min(max(until.Sub(s.now()), time.Millisecond), maxWait)}
}

func (s *Sink) later(at time.Time, err error) error {
	pause := min(max(at.Sub(s.now()), time.Second), maxWait)
	return &sinks.Later{Pause: pause, Err: fmt.Errorf("rule %s: %w", s.Rule, err)}
}

// judge sets the result of an attempt in d. It returns what becomes of the records.
func (s *Sink) judge(d *Delivery, failed error, alive bool) error {
	now := s.now()
	age := now.Sub(d.First)
	s.mu.Lock()
	defer s.mu.Unlock()
	if failed == nil {
		s.accepted, s.warned, d.State, d.At, d.Answer = now, 0, stateSent, now, ""
		s.Metrics.failing.WithLabelValues(s.Rule).Set(0)
		return nil
	}
	s.Metrics.failing.WithLabelValues(s.Rule).Set(age.Seconds())
	d.State, d.Answer = stateFailed, fmt.Sprintf("%.500s", failed)
	if wait, ok := errors.AsType[*sinks.Later](failed); ok {
		s.paused, d.Answer = now.Add(wait.Pause), fmt.Sprintf("%.500s", wait.Err)
		d.After = s.paused
	}
	refusal, isRefused := errors.AsType[*refused](failed)
	if isRefused {
		d.Refused++
	}
	log := s.Log.With("rule", s.Rule, "failing_for", age.Round(time.Second), "error", d.Answer)
	rejected, isRejected := errors.AsType[*sinks.Rejected](failed)
	tried := d.Attempts >= len(pauses) // not if the process was down
	switch {
	case isRejected:
		d.Answer = rejected.Answer
	case alive && d.Refused >= 10 && age >= time.Hour,
		tried && age >= giveUpAfter && (alive || isRefused && refusal.content):
		rejected = &sinks.Rejected{Answer: d.Answer, Reason: fmt.Sprintf(
			"failed %d times in %v: mend the receiver, then replay this", d.Attempts, age.Round(time.Second))}
	case errors.Is(failed, errGone), s.webhook && tried && age >= disableAfter:
		log.Error("a rule is disabled: mend the receiver, then enable it before retention deletes its notices")
		d.State, s.disabled[viewKey{}] = stateDisabled, now
		return s.later(now.Add(maxWait), fmt.Errorf("%w: %s", errDisabled, d.Answer))
	default:
		for _, limit := range []time.Duration{giveUpAfter / 10 * 9, giveUpAfter / 2} {
			if s.webhook && age >= limit && s.warned < limit {
				s.warned = age
				log.Warn("a receiver has failed for long: mend it, or the rule is disabled after 5 days")
			}
		}
		return s.later(s.due("", *d, alive), errors.New(d.Answer))
	}
	d.State = stateRejected
	return rejected
}

// Metrics of all rules.
type Metrics struct {
	messages          *prometheus.CounterVec
	failing, disabled *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		options := prometheus.GaugeOpts{Name: "tidemark_notify_" + name, Help: help}
		return prometheus.NewGaugeVec(options, []string{"rule"})
	}
	m := &Metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_notify_messages_total",
			Help: "Attempts by result. skipped: answered before; again: an earlier attempt has no result.",
		}, []string{"rule", "result"}),
		failing:  gauge("failing_seconds", "Age of the message that failed last, 0 once one is accepted."),
		disabled: gauge("disabled", "Above 0: the receiver accepted nothing for 5 days, or is gone."),
	}
	r.MustRegister(m.messages, m.failing, m.disabled)
	return m
}

package notify

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"golang.org/x/time/rate"

	"tidemark/codecs"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/sinks"
)

// Settings are those of all rules, and what their sinks share.
type Settings struct {
	Link         string // --notify-link; see CheckLink
	Out          *Outbound
	SMTPURL      string         // --smtp-url
	SMTPPassword string         // of its user
	SMTPRoots    *x509.CertPool // nil: the system's
	Store        Store
	Log          *slog.Logger
	Metrics      *Metrics
}

// A Sink delivers the notices that one rule matches to its channel, in order per file. It records an intent before each
// attempt and the result after it. A message is sent twice only if nobody knows the result of its attempt: at most
// inFlight messages of each partition after a crash, at most a batch when a paused owner continues.
type Sink struct {
	Sender
	Settings
	rule    *Rule
	limit   *rate.Limiter
	webhook bool // its receiver belongs to someone else: long pauses, then the rule is disabled
	now     func() time.Time

	mu       sync.Mutex
	accepted time.Time     // when the channel last accepted a message
	warned   time.Duration // the age at the last warning since then
	paused   time.Time     // the end of the pause that the channel asked for
	disabled time.Time     // when a message was last seen that has disabled the rule
}

// Sink returns the sink of one of the rules. It reads the secrets of the rule's channel.
func (r *Rules) Sink(rule *Rule, c Settings) (*Sink, error) {
	at := slices.IndexFunc(r.Channels, func(to Channel) bool { return to.Name == rule.Channel })
	sender, err := r.Channels[at].sender(c)
	if err != nil {
		return nil, fmt.Errorf("channel %s: %w", rule.Channel, err)
	}
	return newSink(rule, sender, c), nil
}

func newSink(rule *Rule, sender Sender, c Settings) *Sink {
	limit := rate.NewLimiter(rate.Inf, 0)
	if per := rule.Rate; per.Messages > 0 {
		limit = rate.NewLimiter(rate.Every(per.Per/time.Duration(per.Messages)), per.Messages)
	}
	_, webhook := sender.(*webhookSender)
	return &Sink{Sender: sender, Settings: c, rule: rule, limit: limit, webhook: webhook, now: time.Now}
}

// An item is a notice with its record.
type item struct {
	*sinks.Record
	notice *tidemarkv1.Notice
}

// Deliver implements sinks.Sink.
func (s *Sink) Deliver(ctx context.Context, batch []*sinks.Record) error {
	result := &sinks.Partial{Rejected: map[*sinks.Record]*sinks.Rejected{}}
	var matched []item
	for _, r := range batch {
		decoded, err := codecs.Notice{}.Decode(r.Value)
		if err != nil {
			result.Rejected[r] = &sinks.Rejected{Reason: err.Error()}
			continue
		}
		n := decoded.(*tidemarkv1.Notice)
		if matches, _ := s.rule.Match(n); matches {
			matched = append(matched, item{r, n})
		}
	}
	if len(matched) > 0 {
		if at, _ := s.rule.When(s.now(), matched[0].Time); at.After(s.now()) {
			return s.waiting(at, nil)
		}
		known, err := s.Store.Open(ctx, s.rule.Name, batch)
		if err != nil {
			return s.storeFailed(ctx, err)
		}
		if err := s.loadState(known); err != nil {
			return err
		}
		again := s.sendAll(ctx, s.group(matched, known, result), known, result)
		later, isLater := errors.AsType[*sinks.Later](result.Err)
		for _, i := range matched {
			if !again[i.Record] {
				continue
			}
			result.Again = append(result.Again, i.Record)
			// It is due earlier than when it failed if others have been accepted since.
			if d := known[i.notice.GetOpId()]; isLater && d.Attempts > 0 && s.accepting(d) {
				later.Pause = min(later.Pause, s.later(s.due(i.notice.GetOpId(), d, true), nil).Pause)
			}
		}
	}
	if len(result.Rejected)+len(result.Again) == 0 {
		return nil
	}
	return result
}

// group returns the notices of each message. It leaves out those that have a final result, and repeats of a notice. A
// digest that was attempted keeps its notices and so its id: no others join it.
func (s *Sink) group(matched []item, known map[string]Delivery, result *sinks.Partial) (groups [][]item) {
	type digest struct {
		workspace string
		first     int64
	}
	digests, seen := map[digest]int{}, map[string]bool{}
	for _, i := range matched {
		op := i.notice.GetOpId()
		d := known[op]
		if d.State == stateRejected {
			result.Rejected[i.Record] = &sinks.Rejected{Reason: "rejected before", Answer: d.Answer}
			continue
		}
		if d.State == stateSent || seen[op] {
			s.count("skipped")
			continue
		}
		seen[op] = true
		of := digest{i.notice.GetWorkspaceId(), d.First.UnixNano()}
		at, found := digests[of]
		if !found || s.rule.Digest == 0 {
			at, groups = len(groups), append(groups, nil)
			digests[of] = at
		}
		groups[at] = append(groups[at], i)
	}
	return groups
}

// inFlight is how many messages of a partition are sent at the same time while the channel accepts them.
const inFlight = 8

// sendAll sends messages about different files at the same time: more and more as long as all are accepted, and one by
// one after a failure. It goes on after a failure, with other files: if a message is accepted, the one that failed is
// at fault and not the channel. After two failures in a row it stops. It returns the records that are not delivered.
func (s *Sink) sendAll(
	ctx context.Context, groups [][]item, known map[string]Delivery, result *sinks.Partial,
) (again map[*sinks.Record]bool) {
	again = map[*sinks.Record]bool{}
	blocked, failures, width := map[string]bool{}, 0, 1 // blocked are the files of which one is not delivered
	for len(groups) > 0 {
		n := independent(groups[:min(width, len(groups))])
		errs := make([]error, n)
		wait := make([]bool, n)
		var sending sync.WaitGroup
		for i, g := range groups[:n] {
			isBlocked := func(i item) bool { return blocked[string(i.Key)] }
			if wait[i] = failures >= 2 || slices.ContainsFunc(g, isBlocked); wait[i] {
				continue
			}
			sending.Go(func() {
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = s.send(ctx, g, known)
				}
			})
		}
		sending.Wait()
		width = min(2*width, inFlight)
		for i, err := range errs {
			rejected, isRejected := errors.AsType[*sinks.Rejected](err)
			switch {
			case errors.Is(err, errDisabled):
				failures = 2
			case err != nil && !isRejected:
				failures++
			case err == nil && !wait[i]:
				failures = 0
				continue
			}
			width = 1
			for _, i := range groups[i] {
				if isRejected {
					result.Rejected[i.Record] = rejected
				} else {
					blocked[string(i.Key)], again[i.Record] = true, true
				}
			}
			if !isRejected {
				result.Err = cmp.Or(result.Err, err)
			}
		}
		groups = groups[n:]
	}
	return again
}

// independent returns how many of the first messages are about different files.
func independent(groups [][]item) int {
	seen := map[string]bool{}
	for n, g := range groups {
		for _, i := range g {
			if seen[string(i.Key)] {
				return n
			}
		}
		for _, i := range g {
			seen[string(i.Key)] = true
		}
	}
	return len(groups)
}

// send makes an attempt, if it is time for one. The error is for all records of g.
func (s *Sink) send(ctx context.Context, g []item, known map[string]Delivery) error {
	op, now := g[0].notice.GetOpId(), s.now()
	s.mu.Lock()
	d, paused := known[op], s.paused
	s.mu.Unlock()
	if d.First.IsZero() {
		d.First = now
	}
	accepting := s.accepting(d)
	for _, at := range []time.Time{s.due(op, d, accepting), paused} {
		if at.After(now) {
			return s.waiting(at, errors.New(cmp.Or(d.Answer, "the destination asked for a pause")))
		}
	}
	if turn := s.limit.ReserveN(now, 1); turn.DelayFrom(now) > 0 {
		turn.CancelAt(now)
		return s.waiting(now.Add(turn.DelayFrom(now)), nil)
	}
	if d.State == stateIntent {
		s.count("again")
	}
	d.State, d.At, d.Attempts = stateIntent, now, d.Attempts+1
	if err := s.record(ctx, g, known, d); err != nil {
		return s.storeFailed(ctx, err)
	}
	// An attempt that is cut may have been accepted: it has some time after the end of ctx.
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(5*time.Second, cancel) })()
	failed := s.attempt(sending, g)
	if failed != nil && errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // the partition goes to another process
	}
	outcome := s.recordResult(&d, failed, accepting)
	s.count(d.State)
	if err := s.record(sending, g, known, d); err != nil {
		return s.storeFailed(ctx, err)
	}
	return outcome
}

func (s *Sink) attempt(ctx context.Context, g []item) error {
	var notices []*tidemarkv1.Notice
	for _, i := range g {
		notices = append(notices, i.notice)
	}
	m, err := s.rule.Message(notices, s.Link)
	if err != nil {
		return &sinks.Rejected{Reason: "no message can be made of it: " + err.Error()}
	}
	return s.Send(ctx, m)
}

// record puts d into the store for each notice of g, and into known: a result also if the store fails.
func (s *Sink) record(ctx context.Context, g []item, known map[string]Delivery, d Delivery) (err error) {
	for _, i := range g {
		d.Offset, d.Retried = i.Offset, i.Retried
		err = cmp.Or(err, s.Store.Put(ctx, s.rule.Name, i.notice.GetOpId(), i.Partition, d))
		if d.State != stateIntent || err == nil {
			s.mu.Lock()
			known[i.notice.GetOpId()] = d
			s.mu.Unlock()
		}
	}
	return err
}

func (s *Sink) count(result string) { s.Metrics.messages.WithLabelValues(s.rule.Name, result).Inc() }

// Metrics of all rules.
type Metrics struct {
	messages          *prometheus.CounterVec
	failing, disabled *prometheus.GaugeVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	auto, rule := promauto.With(r), []string{"rule"}
	return &Metrics{
		messages: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "tidemark_notify_messages_total",
			Help: "Attempts by result. skipped: accepted before; again: an earlier attempt has no result.",
		}, []string{"rule", "result"}),
		failing: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_notify_failing_seconds", Help: "Age of the message that failed last; 0: accepted.",
		}, rule),
		disabled: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tidemark_notify_disabled", Help: "1: the receiver accepted nothing for 5 days, or is gone.",
		}, rule),
	}
}

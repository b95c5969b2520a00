package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/codecs"
	"tidemark/deadletters"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// maxAhead is how far ahead of this host's clock a record's timestamp may be without a warning.
const maxAhead = time.Minute

// sampled is how many records of each partition are read.
const sampled = 200

// sample reads the newest records of each partition, not older than since. It returns how many there are since then.
func (d *cluster) sample(
	ctx context.Context, topic string, since time.Time, each func(*kgo.Record),
) (total int64, err error) {
	spans, err := kafka.Extent(ctx, d.Kafka, topic)
	if err != nil {
		return 0, err
	}
	begin, err := kafka.OffsetsAt(ctx, d.Kafka, topic, since)
	if err != nil {
		return 0, err
	}
	for partition, span := range spans {
		from := min(max(span.From, begin[partition]), span.To)
		total += span.To - from
		spans[partition] = kafka.Span{From: max(from, span.To-sampled), To: span.To}
	}
	return total, kafka.Read(ctx, d.Kafka, topic, spans, func(r *kgo.Record) error {
		each(r)
		return nil
	})
}

// An eventSample summarizes the newest events.
type eventSample struct {
	resembles            func(name string) string
	read, dups, replayed int
	newest               time.Time
	seen                 map[string]bool // workspace and event id
	undecodable          map[string]int  // events, by reason
	unreadable           map[string]int  // fields, by name
	example              string          // position of an event with such a field
	unknown              map[string]int  // event names that resemble a known one
}

func (s *eventSample) add(r *kgo.Record) {
	s.read++
	if r.Timestamp.After(s.newest) {
		s.newest = r.Timestamp
	}
	e, err := codecs.ParseEvent(r.Value)
	if err != nil {
		reason := "unknown"
		if fault, ok := errors.AsType[*codecs.EventError](err); ok {
			reason = fault.Reason
		}
		s.undecodable[reason]++
		return
	}
	id := e.GetWorkspaceId() + "\x00" + e.GetEventId()
	isReplay := func(h kgo.RecordHeader) bool { return h.Key == topology.HeaderReplay && h.Value != nil }
	if slices.ContainsFunc(r.Headers, isReplay) {
		s.replayed++
	} else if s.seen[id] {
		s.dups++
	}
	s.seen[id] = true
	for _, field := range e.GetUnreadable() {
		s.unreadable[field]++
		s.example = (&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()
	}
	if s.resembles(e.GetEvent()) != "" {
		s.unknown[e.GetEvent()]++
	}
}

// events reads the newest events: whether any arrive, whether they can be decoded, and how many are duplicates.
func (d *cluster) events(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s := &eventSample{
		resembles: d.Resembles, seen: map[string]bool{},
		undecodable: map[string]int{}, unreadable: map[string]int{}, unknown: map[string]int{},
	}
	total, err := d.sample(ctx, d.Streams.Events.Name, d.Since, s.add)
	if err != nil {
		return []Finding{d.failed(err)}
	}
	since := d.Since.UTC().Format(time.RFC3339)
	if total == 0 {
		return one(Warning, "no events arrive: none since "+since,
			"send one: `tidemark send`; if that arrives, the webhook is not registered with the provider or does "+
				"not reach the ingress (--ingress-url tries it); if not, tidemark_ingress_requests_total says why it "+
				"is refused")
	}
	what := fmt.Sprintf("%d since %s, the newest %v ago", total, since, max(0, time.Since(s.newest).Round(time.Second)))
	if s.replayed > 0 {
		what += fmt.Sprintf("; %d of the newest %d were replayed", s.replayed, s.read)
	}
	if s.dups > 0 && !s.manyDuplicates() {
		what += fmt.Sprintf("; %d of the newest %d are duplicates, which have no effect", s.dups, s.read)
	}
	found := one(OK, what, "")
	if ahead := time.Until(s.newest).Round(time.Second); ahead > maxAhead {
		found = append(found, one(Warning,
			fmt.Sprintf("clocks: the newest of %d has a timestamp %v ahead of this host's clock", s.read, ahead),
			"synchronize the clocks of brokers, producers and this host (NTP); "+
				"where the check of topics says that records have the producer's time, change that too")...)
	}
	return append(found, s.findings()...)
}

// manyDuplicates reports whether more than one in ten is one.
func (s *eventSample) manyDuplicates() bool { return s.dups*10 > s.read }

// findings are the problems with events.
func (s *eventSample) findings() (found []Finding) {
	if len(s.undecodable) > 0 {
		found = append(found, Finding{
			Status: Warning, Detail: s.undecodable,
			What: fmt.Sprintf("schema: of the newest %d, %s cannot be decoded", s.read, counts(s.undecodable)),
			Fix: "`tidemark dlq list` says what is wrong with each; another producer than the ingress writes into " +
				"the topic, as the ingress refuses them with 400",
		})
	}
	if len(s.unreadable) > 0 {
		found = append(found, Finding{
			Status: Warning, Detail: s.unreadable,
			What: fmt.Sprintf("fields: in the newest %d, %s cannot be read, for example at %s", s.read,
				counts(s.unreadable), s.example),
			Fix: "they count as absent, and an event whose created cannot be read is ordered by its arrival; " +
				"have the sender write texts as strings, sizes as whole numbers and times as RFC 3339",
		})
	}
	if len(s.unknown) > 0 {
		aliases := sortedKeys(s.unknown)
		for i, name := range aliases {
			aliases[i] = name + "=" + s.resembles(name)
		}
		found = append(found, Finding{
			Status: Note, Detail: s.unknown,
			What: fmt.Sprintf("names: of the newest %d, %s have no effect, though their names resemble known ones",
				s.read, counts(s.unknown)),
			Fix: "if that is what they mean, start the ingress with --event-aliases " + strings.Join(aliases, ","),
		})
	}
	if s.manyDuplicates() {
		found = append(found, one(Warning,
			fmt.Sprintf("duplicates: of the newest %d, %d repeat another's id", s.read, s.dups),
			"they have no effect, each id is folded once; the sender gets its 200 late or never: "+
				"look at tidemark_ingress_ack_seconds and at the proxy before the ingress")...)
	}
	return found
}

// counts lists counts by name, the largest first.
func counts(byName map[string]int) string {
	names := sortedKeys(byName)
	slices.SortStableFunc(names, func(a, b string) int { return byName[b] - byName[a] })
	for i, name := range names {
		names[i] = strconv.Itoa(byName[name]) + " " + name
	}
	return strings.Join(names, ", ")
}

// deadLetters counts the open entries by reason.
func (d *cluster) deadLetters(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	entries, err := deadletters.New(d.Kafka, d.Streams).Entries(ctx, deadletters.Filter{Since: d.Since})
	if err != nil {
		return []Finding{d.failed(err)}
	}
	since := d.Since.UTC().Format(time.RFC3339)
	if len(entries) == 0 {
		return one(OK, "none open since "+since, "")
	}
	reasons, newest := map[string]int{}, time.Time{}
	for _, g := range deadletters.Groups(entries) {
		reason := g.Reason
		if g.Sink != "" {
			reason += " (" + g.Sink + ")"
		}
		reasons[reason] = g.Entries
		if g.Last.After(newest) {
			newest = g.Last
		}
	}
	return []Finding{{
		Status: Warning, Detail: reasons,
		What: fmt.Sprintf("%s since %s, the newest %v ago", counts(reasons), since,
			time.Since(newest).Round(time.Second)),
		Fix: "`tidemark dlq list` and `dlq show` say what is wrong with each; `dlq replay` puts them back, `dlq " +
			"drop` discards them",
	}}
}

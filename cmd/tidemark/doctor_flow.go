package main

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
	"tidemark/ingress"
	"tidemark/kafka"
	tidemarkv1 "tidemark/proto/tidemark/v1"
	"tidemark/topology"
)

// clocksApart is how far ahead of this host's clock a record may be stamped without a word.
const clocksApart = time.Minute

// sampled is how many records of each partition are looked at.
const sampled = 200

// sample reads the newest records of each partition, not older than since.
func (d *clusterDoctor) sample(ctx context.Context, topic string, since time.Time, each func(*kgo.Record)) (total int64, err error) {
	spans, err := kafka.Extent(ctx, d.config, topic)
	if err != nil {
		return 0, err
	}
	begin, err := kafka.OffsetsAt(ctx, d.config, topic, since)
	if err != nil {
		return 0, err
	}
	for partition, span := range spans {
		from := min(max(span.From, begin[partition]), span.To)
		total += span.To - from
		spans[partition] = kafka.Span{From: max(from, span.To-sampled), To: span.To}
	}
	return total, kafka.Read(ctx, d.config, topic, spans, func(r *kgo.Record) error {
		each(r)
		return nil
	})
}

// An eventSample is what the newest events show.
type eventSample struct {
	read, again, replayed int
	newest                time.Time
	seen                  map[string]bool
	unread                map[string]int // those that cannot be decoded, by reason
	unreadable            map[string]int // fields that cannot be read
	example               string         // where one of those lies
	foreign               map[string]int // names of no meaning that resemble one
}

func (s *eventSample) take(r *kgo.Record) {
	s.read++
	if r.Timestamp.After(s.newest) {
		s.newest = r.Timestamp
	}
	e, err := codecs.ParseEvent(r.Value)
	if err != nil {
		s.unread[reasonOf(err)]++
		return
	}
	id := e.GetWorkspaceId() + "\x00" + e.GetEventId()
	if slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == topology.HeaderReplay && h.Value != nil }) {
		s.replayed++ // an operator's doing, and no resend
	} else if s.seen[id] {
		s.again++
	}
	s.seen[id] = true
	for _, field := range e.GetUnreadable() {
		s.unreadable[field]++
		s.example = (&tidemarkv1.Position{Partition: r.Partition, Offset: r.Offset}).Text()
	}
	if ingress.Resembles(e.GetEvent()) != "" {
		s.foreign[e.GetEvent()]++
	}
}

// events looks at the newest events: whether any come, can be read, and how many come again.
func (d *clusterDoctor) events(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	s := &eventSample{seen: map[string]bool{}, unread: map[string]int{}, unreadable: map[string]int{}, foreign: map[string]int{}}
	total, err := d.sample(ctx, d.streams.Events.Name, d.since, s.take)
	if err != nil {
		return []finding{d.failed(err)}
	}
	if total == 0 {
		return []finding{{
			Status: warning, What: fmt.Sprintf("no events arrive: none since %s", d.since.UTC().Format(time.RFC3339)),
			Mend: "send one: `tidemark send`; if that arrives, the webhook is not registered with the provider or does not reach the ingress (--ingress-url tries it); if not, tidemark_ingress_requests_total says why it is refused",
		}}
	}
	found := []finding{{Status: fine, What: fmt.Sprintf("%d since %s, the newest %v ago", total, d.since.UTC().Format(time.RFC3339), max(0, time.Since(s.newest).Round(time.Second)))}}
	if ahead := time.Until(s.newest).Round(time.Second); ahead > clocksApart {
		found = append(found, finding{
			Status: warning, What: fmt.Sprintf("clocks: the newest of %d is stamped %v ahead of this host's clock", s.read, ahead),
			Mend: "set the clocks of brokers, producers and this host by NTP; where the check of topics says that producers stamp the records, change that too",
		})
	}
	if s.replayed > 0 {
		found[0].What += fmt.Sprintf("; %d of the newest %d were replayed", s.replayed, s.read)
	}
	if s.again > 0 && s.again*10 <= s.read {
		found[0].What += fmt.Sprintf("; %d of the newest %d are resends, which have no effect", s.again, s.read)
	}
	return append(found, s.findings()...)
}

// findings are what is to be looked at.
func (s *eventSample) findings() (found []finding) {
	if len(s.unread) > 0 {
		found = append(found, finding{
			Status: warning, What: fmt.Sprintf("schema: of the newest %d, %s cannot be decoded", s.read, counted(s.unread)),
			Mend: "they are in the dead letters with what to mend: `tidemark dlq list`; something other than the ingress writes into the topic, as that refuses them with 400", Detail: s.unread,
		})
	}
	if len(s.unreadable) > 0 {
		found = append(found, finding{
			Status: warning, What: fmt.Sprintf("fields: in the newest %d, %s cannot be read, for example at %s", s.read, counted(s.unreadable), s.example),
			Mend: "they count as absent, and an event whose created cannot be read is ordered by its arrival; have the sender write texts as strings, sizes as whole numbers and times as RFC 3339", Detail: s.unreadable,
		})
	}
	if len(s.foreign) > 0 {
		pairs := sortedKeys(s.foreign)
		for i, name := range pairs {
			pairs[i] = name + "=" + ingress.Resembles(name)
		}
		found = append(found, finding{
			Status: noted, What: fmt.Sprintf("names: of the newest %d, %s have no effect, though their names resemble known ones", s.read, counted(s.foreign)),
			Mend: "if that is what they mean, start the ingress with --event-aliases " + strings.Join(pairs, ","), Detail: s.foreign,
		})
	}
	if s.again*10 > s.read {
		found = append(found, finding{
			Status: warning, What: fmt.Sprintf("duplicates: of the newest %d, %d repeat another's id", s.read, s.again),
			Mend: "they have no effect, each id is folded once; the sender gets its 200 late or never: look at tidemark_ingress_ack_seconds and at the proxy before the ingress",
		})
	}
	return found
}

func reasonOf(err error) string {
	if fault, ok := errors.AsType[*codecs.EventError](err); ok {
		return fault.Reason
	}
	return "unknown"
}

// counted says counts by name, the most first.
func counted(counts map[string]int) string {
	names := sortedKeys(counts)
	slices.SortStableFunc(names, func(a, b string) int { return counts[b] - counts[a] })
	for i, name := range names {
		names[i] = strconv.Itoa(counts[name]) + " " + name
	}
	return strings.Join(names, ", ")
}

// deadLetters counts those that are open, by reason.
func (d *clusterDoctor) deadLetters(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	entries, err := deadletters.New(d.config, d.streams).Entries(ctx, deadletters.Filter{Since: d.since})
	if err != nil {
		return []finding{d.failed(err)}
	}
	if len(entries) == 0 {
		return []finding{{Status: fine, What: fmt.Sprintf("none open since %s", d.since.UTC().Format(time.RFC3339))}}
	}
	reasons, newest := map[string]int{}, time.Time{}
	for _, g := range deadletters.Groups(entries) {
		reasons[g.Reason] = g.Entries
		if g.Last.After(newest) {
			newest = g.Last
		}
	}
	return []finding{{
		Status: warning, What: fmt.Sprintf("%s since %s, the newest %v ago", counted(reasons), d.since.UTC().Format(time.RFC3339), time.Since(newest).Round(time.Second)),
		Mend: "`tidemark dlq list` and `dlq show` say what to mend in each; `dlq replay` puts them back, `dlq drop` lets them go", Detail: reasons,
	}}
}

// group returns the check of a consumer group: how far behind it is, and whether it moves.
func (d *clusterDoctor) group(name, topic, effect string) func(context.Context) []finding {
	return func(ctx context.Context) []finding {
		bounded, cancel := context.WithTimeout(ctx, questionTimeout)
		defer cancel()
		var before, after kafka.GroupLag
		err := patiently(bounded, func() (err error) {
			before, err = kafka.Lags(bounded, d.config, name, topic)
			return err
		})
		if err != nil {
			return []finding{d.failed(err)}
		}
		if found := lost(before); found != nil {
			return found
		}
		if before.Total() == 0 {
			return []finding{atRest(before)}
		}
		select {
		case <-time.After(d.watch):
		case <-ctx.Done():
		}
		bounded, cancel = context.WithTimeout(ctx, questionTimeout)
		defer cancel()
		if after, err = kafka.Lags(bounded, d.config, name, topic); err != nil {
			return []finding{d.failed(err)}
		}
		return []finding{moving(before, after, d.watch, effect)}
	}
}

// lost tells of records that left the log before they were read, and of commits past the end.
func lost(l kafka.GroupLag) (found []finding) {
	for _, p := range l.Partitions {
		switch {
		case p.Commit >= 0 && p.Commit < p.Start:
			found = append(found, finding{
				Status: failing, What: fmt.Sprintf("lost events: %s/%d kept nothing before offset %d, and the group had read up to %d only: %d records are gone", l.Topic, p.Partition, p.Start, p.Commit, p.Start-p.Commit),
				Mend: "raise retention.ms of the topic above the longest time that no processor runs; have the provider send again what is missing",
			})
		case p.Commit > p.End:
			found = append(found, finding{
				Status: failing, What: fmt.Sprintf("%s/%d ends at offset %d, and the group has committed %d: the topic was made anew, or its end was lost with a broker", l.Topic, p.Partition, p.End, p.Commit),
				Mend: "if it was made anew on purpose, reset the group's commits and start with --accept-new-log; else restore the broker that has the rest",
			})
		}
	}
	return found
}

func atRest(l kafka.GroupLag) finding {
	if l.Members == 0 {
		return finding{Status: warning, What: fmt.Sprintf("%s: nothing is left to read, but nobody is in the group (state %s)", l.Group, l.State), Mend: "start `tidemark process`, or the next event will wait", Detail: l.Partitions}
	}
	return finding{Status: fine, What: fmt.Sprintf("%s: lag 0, %d members", l.Group, l.Members), Detail: l.Partitions}
}

// littleLag is how many records, or as many as come in a second, a group may be behind without meaning anything: it commits a few
// times a second.
const littleLag = 100

// moving compares two readings.
func moving(before, after kafka.GroupLag, watched time.Duration, effect string) finding {
	var stuck []string
	var done, written int64
	for i, b := range before.Partitions {
		if i >= len(after.Partitions) {
			break
		}
		a := after.Partitions[i]
		done += max(0, a.Commit-max(b.Commit, b.Start, 0))
		written += a.End - b.End
		if b.Records() > 0 && a.Commit == b.Commit {
			stuck = append(stuck, fmt.Sprintf("%d (lag %d)", b.Partition, a.Records()))
		}
	}
	lag := after.Total()
	f := finding{Detail: after.Partitions}
	switch {
	case lag == 0:
		return atRest(after)
	case after.Members == 0:
		f.Status, f.What = failing, fmt.Sprintf("%s: lag %d and nobody in the group (state %s): %s", after.Group, lag, after.State, effect)
		f.Mend = "start `tidemark process`; if one runs, its log and /readyz say why it is not in the group"
	case len(stuck) > 0:
		f.Status, f.What = failing, fmt.Sprintf("%s: lag %d, and the commits of partitions %s did not move in %v, though it has %d members (state %s): %s", after.Group, lag, some(stuck), watched, after.Members, after.State, effect)
		f.Mend = "ask the processes for /readyz and look at their logs: one recovers its table, cannot write its outputs, or hangs; a restart loses nothing"
	case written > done && float64(lag) > max(float64(written)/watched.Seconds(), littleLag):
		f.Status, f.What = warning, fmt.Sprintf("%s: lag %d and growing: %d came and %d were read in %v", after.Group, lag, written, done, watched)
		f.Mend = "start more processes (up to one a partition), or look what slows them: tidemark_epoch_publish_seconds"
	default:
		f.Status, f.What = fine, fmt.Sprintf("%s: lag %d, little or shrinking: %d came and %d were read in %v, %d members", after.Group, lag, written, done, watched, after.Members)
	}
	return f
}

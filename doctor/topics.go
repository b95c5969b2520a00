package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tidemark/kafka"
	"tidemark/topology"
)

// What to do about a wrong number of partitions: of some topics, and of all.
const (
	unequalCounts = "every topic must have the same number: partitions were added to some, and Kafka cannot remove " +
		"them; stop the roles and follow \"Changing the partition count\" in docs/operating.md (`tidemark topics " +
		"repartition`)"
	otherCount = "every topic has this number: set --partitions to it; " +
		"to have another one, follow \"Changing the partition count\" in docs/operating.md"
)

// sameCount reports whether the errors say that each of n topics has one and the same other number of partitions.
func sameCount(errs []error, n int) bool {
	counts, found := 0, map[string]bool{}
	for _, err := range errs {
		if m, ok := errors.AsType[*kafka.Mismatch](err); ok && m.IsPartitionCount() {
			counts++
			found[m.Found] = true
		}
	}
	return counts == n && len(found) == 1
}

// topics compares the topics with what tidemark needs, or with what a single broker can have of it.
func (d *cluster) topics(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	want, found := d.Streams, []Finding(nil)
	if state, err := kafka.Describe(ctx, d.Kafka, want.Topics()); err != nil {
		return []Finding{d.failed(err)}
	} else if state.Single() && d.Single.Events.Replication < d.Streams.Events.Replication {
		want = d.Single
		found = one(Note, "one broker: no replication, fine for development",
			fmt.Sprintf("nothing for `tidemark dev`; the other commands need --replication %d --min-insync %d",
				want.Events.Replication, want.Events.MinISR))
	}
	optional := want.SinkTopics()
	needed := want.Topics()[:len(want.Topics())-len(optional)]
	errs := slices.Concat(separate(kafka.CheckTopics(ctx, d.Kafka, needed)),
		separate(kafka.CheckTopics(ctx, d.Kafka, optional)))
	if len(errs) == 0 {
		what := fmt.Sprintf("all %d exist with the expected settings, %d partitions each", len(want.Topics()),
			want.Events.Partitions)
		return append(append(found, one(OK, what, "")...), d.timestamps(ctx, want.Topics())...)
	}
	same := sameCount(errs, len(want.Topics()))
	for _, each := range errs {
		f := d.failed(each)
		if f.Fix == unequalCounts && same {
			f.Fix = otherCount
		}
		found = append(found, d.optional(f, each))
	}
	return found
}

// optional returns what an error is to an installation that may have no sinks.
func (d *cluster) optional(f Finding, err error) Finding {
	of := func(resource string) bool {
		return slices.ContainsFunc(d.Streams.SinkTopics(), func(t topology.Topic) bool { return t.Name == resource })
	}
	if missing, ok := errors.AsType[*kafka.NoTopic](err); ok && of(missing.Topic) {
		f.Status, f.Fix = Warning, "run `tidemark topics apply` before `tidemark sink`; nothing else needs this topic"
	}
	if denied, ok := errors.AsType[*kafka.Denied](err); ok && of(strings.TrimPrefix(denied.Resource, "topic ")) {
		f = Finding{Status: Skipped, What: "sink topics not checked: " + err.Error()}
	}
	return f
}

// timestamps looks for topics whose records have the producer's time.
func (d *cluster) timestamps(ctx context.Context, want []topology.Topic) []Finding {
	plan, err := kafka.PlanTopics(ctx, d.Kafka, want)
	if err != nil {
		return []Finding{d.failed(err)}
	}
	var topics []string
	for _, c := range plan {
		if c.Setting == kafka.TimestampType {
			topics = append(topics, c.Topic)
		}
	}
	if len(topics) == 0 {
		return nil
	}
	return one(Warning,
		fmt.Sprintf("%s: %s is not LogAppendTime, so a producer's wrong clock affects retention, --since and ages",
			strings.Join(topics, ", "), kafka.TimestampType),
		fmt.Sprintf("for each: `kafka-configs --bootstrap-server BROKER --alter --entity-type topics --entity-name %s"+
			" --add-config %s=LogAppendTime`; it applies to records produced after that",
			topics[0], kafka.TimestampType))
}

// replicas looks for partitions without a leader and for missing replicas.
func (d *cluster) replicas(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	unreachable := make([]int32, len(d.unreachable))
	for i, b := range d.unreachable {
		unreachable[i] = b.ID
	}
	state, err := kafka.Describe(ctx, d.Kafka, d.Streams.Topics(), unreachable...)
	if err != nil {
		return []Finding{d.failed(err)}
	}
	if state.Partitions == 0 {
		return one(Skipped, "not checked: there is no topic", "")
	}
	var offline, refusing, weak []kafka.UnderReplicated
	for _, w := range state.UnderReplicated {
		switch {
		case w.Offline:
			offline = append(offline, w)
		case w.BelowMinISR:
			refusing = append(refusing, w)
		default:
			weak = append(weak, w)
		}
	}
	var found []Finding
	report := func(status string, weak []kafka.UnderReplicated, what, fix string) {
		if len(weak) == 0 {
			return
		}
		texts := make([]string, len(weak))
		for i, w := range weak {
			texts[i] = w.String()
		}
		missing := d.missingBrokers(weak)
		found = append(found, Finding{
			Status: status, Fix: "start " + missing + fix, Detail: weak,
			What: fmt.Sprintf("%d of %d partitions %s without %s: %s", len(weak), state.Partitions, what, missing,
				firstFew(texts)),
		})
	}
	report(Failure, offline, "are offline",
		"; while most brokers are up, other replicas become leaders within seconds; until then nothing is read or "+
			"written")
	report(Failure, refusing, "refuse writes", ": fewer replicas are in sync than min.insync.replicas; webhooks to "+
		"them are answered 503")
	report(Warning, weak, "are under-replicated", ", or wait until it has caught up")
	if len(found) == 0 {
		return one(OK, fmt.Sprintf("all %d partitions have a leader and all their replicas", state.Partitions), "")
	}
	return found
}

// missingBrokers names the brokers whose replicas are not in sync.
func (d *cluster) missingBrokers(weak []kafka.UnderReplicated) string {
	var missing []kafka.Broker
	for _, w := range weak {
		for _, id := range w.NotInSync {
			has := func(b kafka.Broker) bool { return b.ID == id }
			if slices.ContainsFunc(missing, has) {
				continue
			}
			b := kafka.Broker{ID: id}
			if i := slices.IndexFunc(d.unreachable, has); i >= 0 {
				b = d.unreachable[i]
			}
			missing = append(missing, b)
		}
	}
	slices.SortFunc(missing, func(a, b kafka.Broker) int { return int(a.ID - b.ID) })
	return brokerNames(missing)
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tidemark/kafka"
	"tidemark/topology"
)

// topics compares the topics with what tidemark needs, or with what a single broker can have of it.
func (d *clusterDoctor) topics(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	want, found := d.streams.Topics(), []finding(nil)
	if state, err := kafka.Describe(ctx, d.config, want); err != nil {
		return []finding{d.failed(err)}
	} else if state.Single() && d.single.Events.Replication < d.streams.Events.Replication {
		want = d.single.Topics()
		found = append(found, finding{
			Status: noted, What: "one broker: no replication, fine for development",
			Mend: fmt.Sprintf("nothing, beside `tidemark dev`; roles of their own want to be told: --replication %d --min-insync %d", want[0].Replication, want[0].MinISR),
		})
	}
	err := kafka.CheckTopics(ctx, d.config, want)
	if err == nil {
		found = append(found, finding{Status: fine, What: fmt.Sprintf("all %d are there as they must be, with %d partitions each", len(want), want[0].Partitions)})
		return append(found, d.stamps(ctx, want)...)
	}
	errs := separate(err)
	for _, each := range errs {
		f := d.failed(each)
		if isCount(each) && alike(errs, len(want)) {
			f.Mend = otherCount
		}
		found = append(found, f)
	}
	return found
}

// stamps looks for topics whose records have the time of whoever produced them.
func (d *clusterDoctor) stamps(ctx context.Context, want []topology.Topic) []finding {
	plan, err := kafka.PlanTopics(ctx, d.config, want)
	if err != nil {
		return []finding{d.failed(err)}
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
	return []finding{{
		Status: warning, What: fmt.Sprintf("%s: %s is not LogAppendTime, so a producer whose clock is off moves retention, --since and ages", strings.Join(topics, ", "), kafka.TimestampType),
		Mend: fmt.Sprintf("for each: `kafka-configs --bootstrap-server BROKER --alter --entity-type topics --entity-name %s --add-config %s=LogAppendTime`; it holds for records from then on", topics[0], kafka.TimestampType),
	}}
}

// replicas looks for partitions that have lost some.
func (d *clusterDoctor) replicas(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	away := make([]int32, len(d.away))
	for i, b := range d.away {
		away[i] = b.ID
	}
	state, err := kafka.Describe(ctx, d.config, d.streams.Topics(), away...)
	if err != nil {
		return []finding{d.failed(err)}
	}
	if state.Partitions == 0 {
		return []finding{{Status: skipped, What: "not checked: there is no topic"}}
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
	var found []finding
	tell := func(status string, of []kafka.UnderReplicated, what, mend string) {
		if len(of) > 0 {
			texts := make([]string, len(of))
			for i, w := range of {
				texts[i] = w.String()
			}
			lacks := d.lacking(of)
			found = append(found, finding{
				Status: status, What: fmt.Sprintf("%d of %d partitions %s for want of %s: %s", len(of), state.Partitions, what, lacks, some(texts)),
				Mend: "start " + lacks + mend, Detail: of,
			})
		}
	}
	tell(failing, offline, "are offline", "; while most brokers are up others lead within seconds, and until then they are neither read nor written")
	tell(failing, refusing, "refuse writes", ": fewer are in sync than min.insync.replicas; webhooks to them are answered 503")
	tell(warning, weak, "are under-replicated", ", or wait until it has caught up")
	if len(found) == 0 {
		return []finding{{Status: fine, What: fmt.Sprintf("all %d partitions have a leader and all their replicas", state.Partitions)}}
	}
	return found
}

// lacking names the brokers whose replicas are not in sync.
func (d *clusterDoctor) lacking(of []kafka.UnderReplicated) string {
	var missing []kafka.Broker
	for _, w := range of {
		for _, id := range w.NotInSync {
			if slices.ContainsFunc(missing, func(b kafka.Broker) bool { return b.ID == id }) {
				continue
			}
			b := kafka.Broker{ID: id}
			if i := slices.IndexFunc(d.away, func(b kafka.Broker) bool { return b.ID == id }); i >= 0 {
				b = d.away[i]
			}
			missing = append(missing, b)
		}
	}
	slices.SortFunc(missing, func(a, b kafka.Broker) int { return int(a.ID - b.ID) })
	return brokerNames(missing)
}

// brokerNames says which brokers are meant, and where they are as far as that is known. None is one that the cluster does not have.
func brokerNames(brokers []kafka.Broker) string {
	if len(brokers) == 0 {
		return "another broker"
	}
	names := make([]string, len(brokers))
	for i, b := range brokers {
		if names[i] = "broker " + strconv.Itoa(int(b.ID)); b.Address != "" {
			names[i] += " (" + b.Address + ")"
		}
	}
	return strings.Join(names, " and ")
}

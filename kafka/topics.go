package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/topology"
)

// Settings of a topic. The first two are not topic configurations in Kafka.
const (
	partitions  = "partitions"
	replication = "replication.factor"
	retention   = "retention.ms"
	minInsync   = "min.insync.replicas"

	// TimestampType sets whose clock gives a topic's records their timestamps.
	TimestampType = "message.timestamp.type"
)

// A Change is one difference between a topic in the cluster and in package topology.
type Change struct {
	Topic   string
	Setting string // empty for a missing topic
	Found   string
	Wanted  string
	Create  bool // the topic is missing, and ApplyTopics creates it
}

// String describes the change in one line.
func (c Change) String() string {
	if c.Create {
		return fmt.Sprintf("topic %s: missing, to be created with %s", c.Topic, c.Wanted)
	}
	return fmt.Sprintf("topic %s: %s is %s, want %s", c.Topic, c.Setting, c.Found, c.Wanted)
}

// IsPartitionCount reports whether the difference is the number of partitions, which must be the same for all topics.
func (c Change) IsPartitionCount() bool { return c.Setting == partitions }

// Blocking reports whether tidemark refuses to run with this difference. The retention is the operator's choice. Topics
// that were created by releases which did not set TimestampType have producers' timestamps, which lose nothing.
func (c Change) Blocking() bool { return c.Setting != retention && c.Setting != TimestampType }

// A Mismatch is the error of a blocking Change.
type Mismatch struct{ Change }

func (m *Mismatch) Error() string { return m.String() }

// PlanTopics returns the differences between the cluster and the wanted topics, in their order.
func PlanTopics(ctx context.Context, c Config, want []topology.Topic) ([]Change, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.plan(ctx, want)
}

// CheckTopics returns an error that names every missing topic, and every Mismatch as found and as wanted.
func CheckTopics(ctx context.Context, c Config, want []topology.Topic) error {
	a, err := c.admin()
	if err != nil {
		return err
	}
	defer a.Close()
	return a.check(ctx, want)
}

func (a *admin) checkPartitions(ctx context.Context, want []topology.Topic) error {
	found, err := a.topics(ctx, names(want))
	if err != nil {
		return err
	}
	var errs []error
	for _, t := range want {
		if f, ok := found[t.Name]; ok && len(f.Partitions) > 0 && len(f.Partitions) != t.Partitions {
			errs = append(errs, &Mismatch{Change{
				Topic: t.Name, Setting: partitions, Found: strconv.Itoa(len(f.Partitions)),
				Wanted: strconv.Itoa(t.Partitions),
			}})
		}
	}
	return errors.Join(errs...)
}

// ApplyTopics creates the missing topics and returns them. It alters none: another partition count moves keys and
// another cleanup policy drops records, so a topic that exists and differs is an error for the operator to fix. It
// returns when every broker knows a leader for every partition. Two processes may apply at the same time.
func ApplyTopics(ctx context.Context, c Config, want []topology.Topic) ([]Change, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	plan, err := a.plan(ctx, want)
	if err != nil {
		return nil, err
	}
	var created []Change
	for _, change := range plan {
		if !change.Create {
			continue
		}
		i := slices.IndexFunc(want, func(t topology.Topic) bool { return t.Name == change.Topic })
		made, err := a.create(ctx, want[i])
		if err != nil {
			return created, err
		}
		if made {
			created = append(created, change)
		}
	}
	if err := a.waitForLeaders(ctx, want); err != nil {
		return created, err
	}
	return created, a.check(ctx, want)
}

func (a *admin) check(ctx context.Context, want []topology.Topic) error {
	plan, err := a.plan(ctx, want)
	if err != nil {
		return err
	}
	var errs []error
	for _, change := range plan {
		switch {
		case change.Create:
			errs = append(errs, missing(change.Topic))
		case change.Blocking():
			errs = append(errs, &Mismatch{change})
		}
	}
	return errors.Join(errs...)
}

func (a *admin) plan(ctx context.Context, want []topology.Topic) ([]Change, error) {
	found, err := a.topics(ctx, names(want))
	if err != nil {
		return nil, err
	}
	var existing []string
	for _, t := range want {
		if _, ok := found[t.Name]; ok {
			existing = append(existing, t.Name)
		}
	}
	settings, err := a.settings(ctx, existing)
	if err != nil {
		return nil, err
	}
	var plan []Change
	for _, t := range want {
		f, ok := found[t.Name]
		if !ok {
			plan = append(plan, Change{Topic: t.Name, Wanted: describe(t), Create: true})
			continue
		}
		plan = append(plan, compare(t, f, settings[t.Name])...)
	}
	return plan, nil
}

// compare lists what differs in one topic that exists.
func compare(want topology.Topic, found kmsg.MetadataResponseTopic, settings map[string]string) []Change {
	var plan []Change
	differ := func(setting, found, wanted string) {
		if found != wanted {
			plan = append(plan, Change{Topic: want.Name, Setting: setting, Found: found, Wanted: wanted})
		}
	}
	differ(partitions, strconv.Itoa(len(found.Partitions)), strconv.Itoa(want.Partitions))
	for _, p := range found.Partitions {
		if len(p.Replicas) != want.Replication { // one change per topic: its other partitions rarely differ
			differ(replication, strconv.Itoa(len(p.Replicas)), strconv.Itoa(want.Replication))
			break
		}
	}
	config := want.Config()
	for _, setting := range slices.Sorted(maps.Keys(config)) {
		differ(setting, settings[setting], config[setting])
	}
	return plan
}

// settings returns the configuration of topics, by topic and setting.
func (a *admin) settings(ctx context.Context, names []string) (map[string]map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	answers, err := a.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		return nil, a.fail("look up topic settings", err)
	}
	settings := map[string]map[string]string{}
	for _, answer := range answers {
		switch {
		case errors.Is(answer.Err, kerr.TopicAuthorizationFailed):
			return nil, &Denied{"topic " + answer.Name, "read its settings", "DescribeConfigs"}
		case answer.Err != nil:
			return nil, fmt.Errorf("settings of topic %s: %w", answer.Name, answer.Err)
		}
		settings[answer.Name] = map[string]string{}
		for _, c := range answer.Configs {
			settings[answer.Name][c.Key] = c.MaybeValue()
		}
	}
	return settings, nil
}

// create creates one topic. A topic that another process has just created is no error: the caller checks it afterwards.
func (a *admin) create(ctx context.Context, t topology.Topic) (made bool, err error) {
	config := map[string]*string{}
	for name, value := range t.Config() {
		config[name] = &value
	}
	answer, err := a.CreateTopic(ctx, int32(t.Partitions), int16(t.Replication), config, t.Name)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, kerr.TopicAlreadyExists):
		return false, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return false, &Denied{"topic " + t.Name, "create it", "Create"}
	case answer.ErrMessage != "":
		return false, fmt.Errorf("create topic %s with %s: %w: %s", t.Name, describe(t), err, answer.ErrMessage)
	default:
		return false, a.fail("create topic "+t.Name, err)
	}
}

// SizingOf returns the partitions and replicas of a topic that exists.
func SizingOf(ctx context.Context, c Config, topic string) (topology.Sizing, error) {
	var size topology.Sizing
	a, err := c.admin()
	if err != nil {
		return size, err
	}
	defer a.Close()
	found, err := a.topics(ctx, []string{topic})
	if err != nil {
		return size, err
	}
	t, there := found[topic]
	if !there {
		return size, missing(topic)
	}
	settings, err := a.settings(ctx, []string{topic})
	if err != nil {
		return size, err
	}
	size.Partitions = len(t.Partitions)
	for _, p := range t.Partitions {
		size.Replication = max(size.Replication, len(p.Replicas))
	}
	if size.MinISR, err = strconv.Atoi(settings[topic][minInsync]); err != nil {
		return size, fmt.Errorf("topic %s: %s is %q: %w", topic, minInsync, settings[topic][minInsync], err)
	}
	return size, nil
}

// Retentions returns the retention of topics that exist, by name; below 0 is unlimited.
func Retentions(ctx context.Context, c Config, topics []topology.Topic) (map[string]time.Duration, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	settings, err := a.settings(ctx, names(topics))
	if err != nil {
		return nil, err
	}
	kept := map[string]time.Duration{}
	for topic, values := range settings {
		ms, err := strconv.ParseInt(values[retention], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("topic %s: %s is %q: %w", topic, retention, values[retention], err)
		}
		kept[topic] = -time.Millisecond
		if ms >= 0 && ms <= math.MaxInt64/int64(time.Millisecond) { // else it is unlimited
			kept[topic] = time.Duration(ms) * time.Millisecond
		}
	}
	return kept, nil
}

// waitForLeaders returns when every broker knows every topic with a leader for each partition. A new topic reaches the
// brokers one after the other, and a client may ask any of them next.
func (a *admin) waitForLeaders(ctx context.Context, want []topology.Topic) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for {
		waiting, err := a.leaderless(ctx, names(want))
		if err == nil && waiting == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = errors.New(waiting)
			}
			return a.fail("wait for the topics' leaders", errors.Join(context.Cause(ctx), err))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// leaderless describes one topic or leader that some broker does not know yet; empty when there is none.
func (a *admin) leaderless(ctx context.Context, names []string) (string, error) {
	cluster, err := a.metadata(ctx, nil, nil)
	if err != nil {
		return "", err
	}
	for _, b := range cluster.Brokers {
		known, err := a.metadata(ctx, a.client.Broker(int(b.NodeID)), names)
		if err != nil {
			return "", fmt.Errorf("ask broker %d: %w", b.NodeID, err)
		}
		for _, t := range known.Topics {
			if t.ErrorCode != 0 {
				return fmt.Sprintf("broker %d, topic %s: %v", b.NodeID, *t.Topic, kerr.ErrorForCode(t.ErrorCode)), nil
			}
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 || p.Leader < 0 {
					return fmt.Sprintf("broker %d, topic %s, partition %d: no leader", b.NodeID, *t.Topic,
						p.Partition), nil
				}
			}
		}
	}
	return "", nil
}

// describe lists the settings that a topic is created with.
func describe(t topology.Topic) string {
	settings := []string{
		fmt.Sprintf("%s=%d", partitions, t.Partitions),
		fmt.Sprintf("%s=%d", replication, t.Replication),
	}
	config := t.Config()
	for _, name := range slices.Sorted(maps.Keys(config)) {
		settings = append(settings, name+"="+config[name])
	}
	return strings.Join(settings, " ")
}

func names(topics []topology.Topic) []string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	return names
}

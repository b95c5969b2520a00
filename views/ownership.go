package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"tidemark/kafka"
)

// A Share makes this instance hold only some partitions. The instances of an installation divide the partitions by a
// consumer group, and pass a request on to the one that holds the partition of its workspace.
type Share struct {
	// URL is where the other instances reach the API of this one: http or https, without a path. It identifies the
	// instance in the group.
	URL string
}

// The times of the group. A partition of an instance that was killed is assigned to another one after sessionTimeout.
const (
	sessionTimeout    = 10 * time.Second
	rebalanceTimeout  = 10 * time.Second
	heartbeatEvery    = time.Second
	ownersEvery       = time.Second
	ownersOften       = 100 * time.Millisecond // while a partition has no known owner
	leaveTimeout      = 3 * time.Second
	describeTimeout   = 3 * time.Second
	ownerDialTimeout  = 2 * time.Second
	ownerIdleConns    = 64
	maxInstanceIDSize = 249 // Kafka's limit
)

// A membership is this instance's place in the consumer group that divides the partitions. It reads and commits
// nothing: the group only assigns. What the others are assigned it learns from a description of the group, since the
// id of each member is its URL.
type membership struct {
	conf        kafka.Config
	group       string
	topic       string // any of the co-partitioned topics
	url         string
	running     context.Context // ends when the server stops: the group is left at once
	held        *holding
	log         *slog.Logger
	transport   http.RoundTripper // to the other instances
	owners      atomic.Pointer[[]string]
	refreshing  chan struct{}
	wasReady    atomic.Bool // the copy of all partitions that were held was complete once
	describedMu sync.Mutex
	described   chan struct{} // closed and replaced after each description

	outside bool // of the group, since it was removed from it; used by the callbacks, which do not run concurrently
}

// divide decides which partitions this instance holds.
func (s *Server) divide() error {
	partitions := s.conf.Streams.Events.Partitions
	if s.conf.Share == nil {
		s.held = holdAll(s.running, partitions)
		return nil
	}
	id := instanceID(s.conf.Share.URL)
	if u, err := url.Parse(s.conf.Share.URL); err != nil || u.Scheme != "http" && u.Scheme != "https" ||
		u.Host == "" || u.User != nil || u.Scheme+"://"+u.Host != s.conf.Share.URL || len(id) > maxInstanceIDSize {
		return fmt.Errorf("%q is not a URL of an instance: want http:// or https://, a host and a port, and nothing "+
			"else", s.conf.Share.URL)
	}
	s.held = newHolding(s.running, partitions)
	s.members = &membership{
		conf: s.conf.Kafka, group: s.conf.Streams.ServeGroup, topic: s.conf.Streams.Files.Name, url: s.conf.Share.URL,
		running: s.running, held: s.held, log: s.conf.Log, transport: ownerTransport(),
		refreshing: make(chan struct{}, 1), described: make(chan struct{}),
	}
	return nil
}

// run is a member of the group until the server stops. An error means that another instance has the same URL.
func (m *membership) run() error {
	client, err := m.join()
	if err != nil {
		return err
	}
	watching, stop := context.WithCancel(m.running)
	var watch sync.WaitGroup
	watch.Go(func() { m.watchOwners(watching, kadm.NewClient(client)) })
	err = m.poll(client)
	stop()
	watch.Wait()
	client.Close()
	if err == nil {
		m.leave()
	}
	return err
}

// poll waits for errors of the group, until the server stops.
func (m *membership) poll(client *kgo.Client) error {
	for {
		fetches := client.PollFetches(m.running)
		if m.running.Err() != nil {
			return nil
		}
		for _, failed := range fetches.Errors() {
			if errors.Is(failed.Err, kerr.FencedInstanceID) {
				return fmt.Errorf("another instance has joined the group %s with the address %s: give each instance "+
					"an --advertise-url of its own", m.group, m.url)
			}
			m.log.Warn("not in the group that divides the partitions, joining it again: this instance goes on with "+
				"the partitions that it had", "group", m.group, "error", failed.Err)
		}
	}
}

func (m *membership) join() (*kgo.Client, error) {
	opts, err := m.conf.Franz()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(opts,
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(m.topic), kgo.InstanceID(instanceID(m.url)),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(sessionTimeout), kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.HeartbeatInterval(heartbeatEvery),
		kgo.DisableAutoCommit(),
		kgo.AdjustFetchOffsetsFn(func(context.Context, map[string]map[int32]kgo.Offset) (
			map[string]map[int32]kgo.Offset, error,
		) {
			return nil, nil // this client reads nothing
		}),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, added map[string][]int32) {
			m.assigned(added[m.topic])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			m.revoked(lost[m.topic])
		}),
		kgo.OnPartitionsLost(func(context.Context, *kgo.Client, map[string][]int32) { m.outside = true }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return client, nil
}

// assigned adds partitions. An instance that was removed from the group, because it or the brokers did not respond, has
// kept its partitions until now: it read on, so its answers were as old as they said.
func (m *membership) assigned(added []int32) {
	if m.outside {
		m.outside = false
		has := map[int32]bool{}
		for _, p := range added {
			has[p] = true
		}
		m.held.assign(func(p int32) bool { return has[p] })
	} else {
		m.held.add(added)
	}
	m.refresh()
	m.log.Info("partitions assigned", "added", len(added), "held", len(m.held.partitions()))
}

// revoked gives up partitions. While the server stops, its last requests are answered from them.
func (m *membership) revoked(lost []int32) {
	if m.running.Err() != nil {
		return
	}
	m.held.remove(lost)
	m.refresh()
	m.log.Info("partitions given up", "lost", len(lost), "held", len(m.held.partitions()))
}

// leave makes the brokers assign the partitions to others at once. A member with an instance id does not leave by
// itself.
func (m *membership) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	opts, err := m.conf.Franz()
	if err != nil { // they were valid before
		return
	}
	client, err := kgo.NewClient(opts...)
	if err == nil {
		defer client.Close()
		var left kadm.LeaveGroupResponses
		left, err = kadm.NewClient(client).LeaveGroup(ctx,
			kadm.LeaveGroup(m.group).InstanceIDs(instanceID(m.url)).Reason("the process stops"))
		err = errors.Join(err, left.Error())
	}
	if err != nil {
		m.log.Warn("cannot leave the group: the partitions of this instance are assigned to others when its session "+
			"ends", "group", m.group, "session", sessionTimeout.String(), "error", err)
	}
}

// watchOwners looks up who holds which partition, until ctx ends.
func (m *membership) watchOwners(ctx context.Context, admin *kadm.Client) {
	failing := false
	for ctx.Err() == nil {
		complete, err := m.describe(ctx, admin)
		if failing != (err != nil) && ctx.Err() == nil {
			failing = err != nil
			m.log.WarnContext(ctx, "look up of the instances", "group", m.group, "failing", failing, "error", err)
		}
		pause := ownersEvery
		if !complete && err == nil {
			pause = ownersOften
		}
		select {
		case <-time.After(pause):
		case <-m.refreshing:
		case <-ctx.Done():
		}
	}
}

// describe updates the owners; complete reports whether each partition has one. While the group rebalances, brokers
// return no assignments, and the owners stay.
func (m *membership) describe(ctx context.Context, admin *kadm.Client) (complete bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	groups, err := admin.DescribeGroups(ctx, m.group)
	group := groups[m.group]
	if err = errors.Join(err, group.Err); err != nil {
		return false, err
	}
	if group.State == "Stable" {
		owners := ownersOf(group, m.topic, len(m.held.terms))
		complete = true
		for _, url := range owners {
			complete = complete && url != ""
		}
		m.owners.Store(&owners)
	}
	m.describedMu.Lock()
	defer m.describedMu.Unlock()
	close(m.described)
	m.described = make(chan struct{})
	return complete, nil
}

// ownersOf returns the URL of each partition's owner; empty where there is none.
func ownersOf(group kadm.DescribedGroup, topic string, partitions int) []string {
	owners := make([]string, partitions)
	for _, member := range group.Members {
		assigned, ok := member.Assigned.AsConsumer()
		if !ok || member.InstanceID == nil {
			continue
		}
		for _, t := range assigned.Topics {
			for _, p := range t.Partitions {
				if t.Topic == topic && int(p) < partitions {
					owners[p] = instanceURL(*member.InstanceID)
				}
			}
		}
	}
	return owners
}

// owner returns the URL of the other instance that holds a partition; empty if none is known.
func (m *membership) owner(partition int32) string {
	owners := m.owners.Load()
	if owners == nil || (*owners)[partition] == m.url {
		return ""
	}
	return (*owners)[partition]
}

// others returns the URLs of all other instances that hold partitions, in the order of those.
func (m *membership) others() (urls []string) {
	seen := map[string]bool{"": true}
	for p := range m.held.terms {
		if url := m.owner(int32(p)); !seen[url] {
			seen[url] = true
			urls = append(urls, url)
		}
	}
	return urls
}

// refresh requests a look-up of the owners.
func (m *membership) refresh() {
	select {
	case m.refreshing <- struct{}{}:
	default: // requested already
	}
}

// awaitOwners requests a look-up of the owners, and waits until there was one, or ctx ends.
func (m *membership) awaitOwners(ctx context.Context) {
	m.describedMu.Lock()
	described := m.described
	m.describedMu.Unlock()
	m.refresh()
	select {
	case <-described:
	case <-time.After(describeTimeout):
	case <-ctx.Done():
	}
}

// ready returns nil once requests can be passed on.
func (m *membership) ready() error {
	if m.owners.Load() == nil {
		return fmt.Errorf("group %s: it is not known yet which instance holds which partitions", m.group)
	}
	return nil
}

// instanceID returns the group.instance.id of the instance with a URL. Kafka allows letters, digits, ".", "_" and "-"
// in it. All others, and "_", are escaped by "_" and two hexadecimal digits.
func instanceID(url string) string {
	var b strings.Builder
	for i := range len(url) {
		switch c := url[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '-':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "_%02X", c)
		}
	}
	return b.String()
}

// instanceURL returns the URL of a group.instance.id; empty if it is that of another program.
func instanceURL(id string) string {
	decoded, err := url.PathUnescape(strings.ReplaceAll(id, "_", "%"))
	if err != nil || instanceID(decoded) != id {
		return ""
	}
	return decoded
}

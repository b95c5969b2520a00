package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"tidemark/topology"
)

// An admin asks a cluster about its topics.
type admin struct {
	*kadm.Client
	client  *kgo.Client
	brokers []string
	last    *lastConnect
}

func (c Config) admin(more ...kgo.Opt) (*admin, error) {
	opts, err := c.Franz()
	if err != nil {
		return nil, err
	}
	last := &lastConnect{}
	// Shorter than the client's own 30 s: who asks is starting up, and somebody is watching.
	opts = append(opts, kgo.RetryTimeout(6*time.Second), kgo.WithHooks(last))
	client, err := kgo.NewClient(append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return &admin{Client: kadm.NewClient(client), client: client, brokers: c.Brokers, last: last}, nil
}

// A TopicChecker checks topics repeatedly over one client: opening one takes a TLS handshake and a login each time.
type TopicChecker struct {
	admin *admin
	want  []topology.Topic
}

// NewTopicChecker returns a checker that connects when it is first used. The caller must close it.
func NewTopicChecker(c Config, want []topology.Topic) (*TopicChecker, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	return &TopicChecker{a, want}, nil
}

// Topics does what CheckTopics does.
func (t *TopicChecker) Topics(ctx context.Context) error { return t.admin.check(ctx, t.want) }

// Partitions returns an error that names every topic with another partition count than wanted: a *Mismatch for each. Missing
// topics are ignored.
func (t *TopicChecker) Partitions(ctx context.Context) error {
	return t.admin.checkPartitions(ctx, t.want)
}

// Close closes the client.
func (t *TopicChecker) Close() { t.admin.Close() }

// fail names the cluster, and the cause that an error hides which only says that time ran out or a connection ended.
func (a *admin) fail(doing string, err error) error {
	if errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "missing?") { // there kgo guesses itself
		err = fmt.Errorf("%w: the broker hangs up: it wants TLS, or a login, or refuses the one it got", err)
	}
	if cause := a.last.get(); cause != nil && !strings.Contains(err.Error(), cause.Error()) {
		err = errors.Join(err, fmt.Errorf("last connection: %w", cause))
	}
	return fmt.Errorf("%s at %s: %w", doing, strings.Join(a.brokers, ","), err)
}

// metadata asks one broker, or any for nil, what it knows of the topics. No cache is in between: a poll must see news.
func (a *admin) metadata(ctx context.Context, broker *kgo.Broker, names []string) (*kmsg.MetadataResponse, error) {
	request := kmsg.NewPtrMetadataRequest()
	request.AllowAutoTopicCreation = false
	request.Topics = make([]kmsg.MetadataRequestTopic, 0, len(names)) // none, not nil: nil asks for all
	for _, name := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		request.Topics = append(request.Topics, t)
	}
	if broker == nil {
		return request.RequestWith(ctx, a.client)
	}
	response, err := broker.RetriableRequest(ctx, request)
	if err != nil {
		return nil, err
	}
	metadata, ok := response.(*kmsg.MetadataResponse)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a metadata request", response)
	}
	return metadata, nil
}

// topics returns what the cluster knows of the named topics, by name. A missing topic is missing in the map.
func (a *admin) topics(ctx context.Context, names []string) (map[string]kmsg.MetadataResponseTopic, string, error) {
	response, err := a.metadata(ctx, nil, names)
	if err != nil {
		return nil, "", a.fail("ask for topics", err)
	}
	found := map[string]kmsg.MetadataResponseTopic{}
	for _, t := range response.Topics {
		name := ""
		if t.Topic != nil {
			name = *t.Topic
		}
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return nil, "", &Denied{"topic " + name, "describe it", "Describe"}
		case err != nil && !kerr.IsRetriable(err): // a retriable one is a partition without a leader, for now
			return nil, "", fmt.Errorf("topic %s: %w", name, err)
		default:
			found[name] = t
		}
	}
	cluster := ""
	if response.ClusterID != nil {
		cluster = *response.ClusterID
	}
	return found, cluster, nil
}

// TopicIDs returns the cluster's id and the topics' ids. A topic that was deleted and made again has another id, so the two
// together name one log.
func TopicIDs(ctx context.Context, c Config, names ...string) (clusterID string, ids map[string]string, err error) {
	a, err := c.admin()
	if err != nil {
		return "", nil, err
	}
	defer a.Close()
	topics, clusterID, err := a.topics(ctx, names)
	if err != nil {
		return "", nil, err
	}
	ids = map[string]string{}
	for _, name := range names {
		t, ok := topics[name]
		if !ok {
			return "", nil, missing(name)
		}
		if t.TopicID == [16]byte{} {
			return "", nil, fmt.Errorf("topic %s has no id: tidemark needs Kafka 2.8 or newer", name)
		}
		ids[name] = kadm.TopicID(t.TopicID).String()
	}
	return clusterID, ids, nil
}

// TopicID returns the id of one topic.
func TopicID(ctx context.Context, c Config, name string) (string, error) {
	_, ids, err := TopicIDs(ctx, c, name)
	return ids[name], err
}

// ErrNoTopic says that a topic is not there.
var ErrNoTopic = errors.New("does not exist")

func missing(name string) error {
	return fmt.Errorf("topic %s %w: create it with `tidemark topics apply`", name, ErrNoTopic)
}

// lastConnect remembers why the last connection could not be made: a request that ran out of time does not say it.
type lastConnect struct {
	mu  sync.Mutex
	err error
}

// OnBrokerConnect is kgo's hook.
func (l *lastConnect) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lastConnect) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

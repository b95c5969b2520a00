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

	"tidemark/kafka/committed"
	"tidemark/topology"
)

// An admin is a client for requests about topics and groups.
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
	// Shorter than kgo's 30 s: at start-up an operator waits for the answer.
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

// Partitions returns an error that names every topic with another partition count than wanted: a *Mismatch for each.
// Missing topics are ignored.
func (t *TopicChecker) Partitions(ctx context.Context) error {
	return t.admin.checkPartitions(ctx, t.want)
}

// Close closes the client.
func (t *TopicChecker) Close() { t.admin.Close() }

// fail adds the brokers to an error, and the cause of the last failed connection: the error may only say that time ran
// out.
func (a *admin) fail(doing string, err error) error {
	if errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "missing?") { // that one has kgo's own guess
		err = fmt.Errorf("%w: the broker closed the connection: it requires TLS or a login, or refuses the one it got",
			err)
	}
	if cause := a.last.get(); cause != nil && !strings.Contains(err.Error(), cause.Error()) {
		err = errors.Join(err, fmt.Errorf("last connection: %w", cause))
	}
	return fmt.Errorf("%s at %s: %w", doing, strings.Join(a.brokers, ","), err)
}

// metadata returns the metadata of topics from one broker, or any for nil. It is not cached: callers poll for changes.
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

// topics returns the metadata of topics, by name. A topic that does not exist is missing in the map.
func (a *admin) topics(ctx context.Context, names []string) (map[string]kmsg.MetadataResponseTopic, error) {
	response, err := a.metadata(ctx, nil, names)
	if err != nil {
		return nil, a.fail("look up topics", err)
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
			return nil, &Denied{"topic " + name, "describe it", "Describe"}
		case err != nil && !kerr.IsRetriable(err): // a retriable error means that a partition has no leader now
			return nil, fmt.Errorf("topic %s: %w", name, err)
		default:
			found[name] = t
		}
	}
	return found, nil
}

// TopicIDs returns the ids of topics, by name.
func TopicIDs(ctx context.Context, c Config, names ...string) (map[string]committed.TopicID, error) {
	a, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.topicIDs(ctx, names)
}

func (a *admin) topicIDs(ctx context.Context, names []string) (map[string]committed.TopicID, error) {
	return committed.TopicIDs(ctx, a.client, func(topic string, err error) error {
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return missing(topic)
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return &Denied{"topic " + topic, "describe it", "Describe"}
		}
		return a.fail("look up topics", err)
	}, names...)
}

// TopicID returns the id of one topic, without the cluster's.
func TopicID(ctx context.Context, c Config, name string) (string, error) {
	ids, err := TopicIDs(ctx, c, name)
	return ids[name].Topic, err
}

// ErrNoTopic says that a topic does not exist.
var ErrNoTopic = errors.New("does not exist")

// A NoTopic is the error of a topic that does not exist. It is an ErrNoTopic.
type NoTopic struct{ Topic string }

func (e *NoTopic) Error() string {
	return fmt.Sprintf("topic %s %v: create it with `tidemark topics apply`", e.Topic, ErrNoTopic)
}

func (e *NoTopic) Unwrap() error { return ErrNoTopic }

func missing(name string) error { return &NoTopic{name} }

// lastConnect keeps the error of the last connection attempt: a request that ran out of time does not name it.
type lastConnect struct {
	mu  sync.Mutex
	err error
}

// OnBrokerConnect is called by kgo.
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

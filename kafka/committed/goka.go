package committed

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"
	"github.com/lovoo/goka"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Cluster is how the package's clients reach Kafka. Each call of a function makes a value of its own, since goka's builders
// change what they are given.
type Cluster struct {
	Brokers []string // host:port of any of them
	// Sarama returns settings with ReaderSettings among them.
	Sarama func() (*sarama.Config, error)
	// Franz returns what reaches the cluster: addresses, TLS, login.
	Franz func() ([]kgo.Opt, error)
	// Explain says what a failed question about a topic means to who runs the program, and what mends it; nil: nothing more than
	// the error.
	Explain func(topic string, err error) error
}

// Explained returns the error of a question about a topic as Explain puts it.
func (c Cluster) Explained(topic string, err error) error {
	if err == nil || c.Explain == nil {
		return err
	}
	return c.Explain(topic, err)
}

// LogID names the log that a topic is: the cluster's id and the topic's, which is another one when the topic was deleted and made
// again. It asks for up to 6 s.
func (c Cluster) LogID(ctx context.Context, topic string) (string, error) {
	options, err := c.Franz()
	if err != nil {
		return "", err
	}
	client, err := kgo.NewClient(append(options, kgo.RetryTimeout(6*time.Second))...) // a person may be watching
	if err != nil {
		return "", err
	}
	defer client.Close()
	request := kmsg.NewPtrMetadataRequest() // kadm's would be answered from a cache, or given up sooner
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	request.Topics, request.AllowAutoTopicCreation = []kmsg.MetadataRequestTopic{t}, false
	response, err := request.RequestWith(ctx, client)
	if err != nil {
		return "", c.Explained(topic, fmt.Errorf("look up topic %s: %w", topic, err))
	}
	found := response.Topics[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil && found.TopicID == [16]byte{} {
		return "", c.Explained(topic, fmt.Errorf("look up topic %s: %w", topic, err))
	}
	if found.TopicID == [16]byte{} || response.ClusterID == nil {
		return "", fmt.Errorf("topic %s has no id: Kafka 2.8 or newer is needed", topic)
	}
	return *response.ClusterID + "/" + kadm.TopicID(found.TopicID).String(), nil
}

// At reaches brokers that want neither TLS nor a login.
func At(brokers ...string) Cluster {
	return Cluster{
		Brokers: brokers,
		Sarama: func() (*sarama.Config, error) {
			s := sarama.NewConfig()
			ReaderSettings(s, largestAnswer)
			return s, nil
		},
		Franz: func() ([]kgo.Opt, error) { return []kgo.Opt{kgo.SeedBrokers(brokers...)}, nil },
	}
}

// ReaderSettings are what reading needs so that nothing is passed over and nothing is handed out that is not committed. A record
// has at most maxBytes.
func ReaderSettings(s *sarama.Config, maxBytes int32) {
	s.Version = sarama.V2_8_0_0               // group epochs and stable offsets; newer brokers speak it too
	s.Metadata.AllowAutoTopicCreation = false // a typo must not become a topic of one partition
	s.Consumer.Return.Errors = true
	s.Consumer.Offsets.Initial = sarama.OffsetOldest // Newest skips what came before the first commit
	s.Consumer.Offsets.AutoCommit.Enable = true
	s.Consumer.Offsets.AutoCommit.Interval = 250 * time.Millisecond // who waits for an event that leaves no row waits for this
	s.Consumer.Offsets.Retry.Max = 10
	// What a transaction has not committed, or never will, is not there. A group also begins only where no commit of its offsets
	// is undecided any more.
	s.Consumer.IsolationLevel = sarama.ReadCommitted
	s.Consumer.Fetch.Default = maxBytes // one round trip for the largest record
	s.Consumer.Fetch.MaxBytes = 8 * maxBytes
	s.Consumer.Retry.Backoff = 500 * time.Millisecond
	// Past this a partition whose channel is full is dropped from the fetch and asked for anew; callbacks may wait for acks.
	s.Consumer.MaxProcessingTime = time.Second
	s.Consumer.Group.ResetInvalidOffsets = false // an offset out of range is for a person to judge, not to jump over
	s.Consumer.Group.Session.Timeout = 10 * time.Second
	s.Consumer.Group.Heartbeat.Interval = 3 * time.Second
	// A member that leaves waits up to 60 s for acknowledgements; the group must wait longer before it gives its partitions away.
	s.Consumer.Group.Rebalance.Timeout = 90 * time.Second
}

// TopicManager looks topics up, for goka's processors and views. It creates none: topics are made beforehand, so that two
// processes starting together do not race.
//
// goka recovers a table up to the end that its topic manager tells, and waits until it has read the record before it. This one
// tells the end of what can be read. A processor has to wait until no transaction is undecided below the table's end as it is:
// goka asks after the group's offsets were fetched, and the marker that makes offsets visible may be written before the marker
// that makes the rows visible which belong to them (KAFKA-10167). A row that is not waited for would be folded into once more.
// A view waits for nobody: what is undecided comes when it is decided.
func TopicManager(c Cluster, waits bool) goka.TopicManagerBuilder {
	return func(brokers []string) (goka.TopicManager, error) {
		config, err := c.Sarama()
		if err != nil {
			return nil, err
		}
		options, err := c.Franz()
		if err != nil {
			return nil, err
		}
		client, err := kgo.NewClient(append(options, kgo.SeedBrokers(brokers...), kgo.MetadataMinAge(250*time.Millisecond))...)
		if err != nil {
			return nil, err
		}
		inner, err := goka.NewTopicManager(brokers, config, goka.NewTopicManagerConfig())
		if err != nil {
			client.Close()
			return nil, err
		}
		ctx, cancel := context.WithCancel(context.Background())
		return &topicManager{TopicManager: inner, client: client, cluster: c, waits: waits, ctx: ctx, cancel: cancel}, nil
	}
}

type topicManager struct {
	goka.TopicManager
	client  *kgo.Client
	cluster Cluster
	waits   bool
	ctx     context.Context // ends with Close: goka's interface passes none
	cancel  context.CancelFunc
	once    sync.Once
}

// patience is how long a table's undecided transactions are waited for. A broker aborts those of an instance that died within
// their timeout, 15 s in package epochs, and the 10 s of its look-out for them.
const patience = time.Minute

// GetOffset returns the newest offset as TopicManager says, and others as they are.
func (m *topicManager) GetOffset(topic string, partition int32, at int64) (int64, error) {
	if at != sarama.OffsetNewest {
		return m.TopicManager.GetOffset(topic, partition, at)
	}
	ctx, cancel := context.WithTimeout(m.ctx, patience)
	defer cancel()
	end, err := m.end(ctx, topic, partition)
	if err != nil {
		return 0, err
	}
	for {
		last, err := Ends(ctx, m.client, topic, map[int32]int64{partition: end})
		if err != nil {
			return 0, fmt.Errorf("find the end of %s/%d: %w", topic, partition, err)
		}
		if end, found := last[partition]; found {
			return end, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("a transaction on %s/%d is still undecided, or its leader does not answer: %w", topic, partition, ctx.Err())
		}
	}
}

// end returns where the partition ends, with what is undecided if that is waited for.
func (m *topicManager) end(ctx context.Context, topic string, partition int32) (int64, error) {
	list := kadm.NewClient(m.client).ListCommittedOffsets
	if m.waits {
		list = kadm.NewClient(m.client).ListEndOffsets
	}
	listed, err := list(ctx, topic)
	end, found := listed.Lookup(topic, partition)
	switch {
	case found: // an error about other partitions does not matter
		err = end.Err
	case err == nil:
		err = kerr.UnknownTopicOrPartition
	}
	if err != nil {
		return 0, m.cluster.Explained(topic, fmt.Errorf("look up the end of %s/%d: %w", topic, partition, err))
	}
	return end.Offset, nil
}

func (m *topicManager) Close() error {
	m.once.Do(func() { m.cancel(); m.client.Close() })
	return m.TopicManager.Close()
}

// Consumer reads tables, for goka's processors and views.
func Consumer(c Cluster) goka.SaramaConsumerBuilder {
	return func(brokers []string, clientID string) (sarama.Consumer, error) {
		config, err := c.Sarama()
		if err != nil {
			return nil, err
		}
		config.ClientID = clientID
		return sarama.NewConsumer(brokers, config)
	}
}

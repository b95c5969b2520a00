package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ConsumerConfig says what a Consumer reads, and its bounds.
type ConsumerConfig struct {
	Group  string
	Topics []string
	// InstanceID makes the member a static one: a restart within the session timeout (45 s) moves no partition. It must
	// be unique in the group.
	InstanceID   string
	BatchRecords int // the most records of one batch; 0: 500
	// ControlRecords delivers the markers of transactions too. The last record of a partition may be one.
	ControlRecords bool
	// BufferBytes of unhandled records pause the fetching of a partition; 0: 1 MiB. Up to half as much may come on top.
	BufferBytes int
	CommitEvery time.Duration // 0: 1 s
	// DrainTimeout is how long a handler may go on when its partition is revoked or Run ends; 0: 10 s.
	DrainTimeout time.Duration
}

// A Handler handles the records of one partition from its assignment until Next returns ErrRevoked. It decides by
// Handled what is committed, which may be less than it has received. Any other error ends Run, so it retries what can
// be retried. It must return soon after ctx ended: until then the partition cannot go to another member.
type Handler func(ctx context.Context, p *AssignedPartition) error

// A Consumer is a member of a consumer group. It delivers committed records at least once, and in order per partition:
// see docs/decisions/0017-consume.md.
type Consumer struct {
	log     *slog.Logger
	cluster Config
	config  ConsumerConfig
	handle  Handler
	brokers *brokerErrors

	mu         sync.Mutex
	admin      *admin // nil: not running
	fail       context.CancelCauseFunc
	partitions map[topicPartition]*AssignedPartition
	notReady   error // nil: joined, and no error since
}

type topicPartition struct {
	topic     string
	partition int32
}

// NewConsumer returns a consumer that calls handle for each partition that it is assigned. It checks the configuration;
// nothing is connected before Run.
func NewConsumer(log *slog.Logger, cluster Config, config ConsumerConfig, handle Handler) (*Consumer, error) {
	if config.Group == "" || len(config.Topics) == 0 || slices.Contains(config.Topics, "") {
		return nil, errors.New("a consumer needs a group and topics")
	}
	config.BatchRecords = cmp.Or(config.BatchRecords, 500)
	config.BufferBytes = cmp.Or(config.BufferBytes, 1<<20)
	config.CommitEvery = cmp.Or(config.CommitEvery, time.Second)
	config.DrainTimeout = cmp.Or(config.DrainTimeout, 10*time.Second)
	c := &Consumer{log: log, cluster: cluster, config: config, handle: handle, notReady: errNotRunning}
	opts, err := c.options()
	if err == nil {
		err = kgo.ValidateOpts(opts...)
	}
	if err != nil {
		return nil, fmt.Errorf("consumer of group %s: %w", config.Group, err)
	}
	return c, nil
}

func readCommitted() []kgo.Opt {
	return []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // the marker of a transaction may be the last record: its offset counts
	}
}

func (c *Consumer) options() ([]kgo.Opt, error) {
	opts, err := c.cluster.Franz()
	if err != nil {
		return nil, err
	}
	opts = append(append(opts, readCommitted()...),
		kgo.ConsumerGroup(c.config.Group), kgo.ConsumeTopics(c.config.Topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // a commit outside of the log is for a person to judge
		// A partition that is resumed, or new, waits for the fetch that its broker has at hand, which waits for others'
		// records.
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(int32(c.config.BufferBytes/2)),
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(c.config.CommitEvery), kgo.AutoCommitCallback(c.committed),
		// The callbacks below never run while polled records are given to their partitions.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(c.assign), kgo.AdjustFetchOffsetsFn(c.located),
		kgo.OnPartitionsRevoked(c.revoke), kgo.OnPartitionsLost(c.lose),
		kgo.RebalanceTimeout(60*time.Second+c.config.DrainTimeout),
	)
	if c.config.InstanceID != "" {
		return append(opts, kgo.InstanceID(c.config.InstanceID)), nil // with kgo's own 45 s, which outlasts a restart
	}
	return append(opts, kgo.SessionTimeout(10*time.Second), kgo.HeartbeatInterval(3*time.Second)), nil
}

// Run consumes until ctx ends, which is no error, or a handler fails, or something is wrong that waiting does not mend:
// a missing topic, a missing right, a commit outside of the log. Brokers that do not answer are retried. Before it
// returns handlers finish their batch or are cancelled, what was handled is committed, and the group is left. It can be
// called again.
func (c *Consumer) Run(ctx context.Context) error {
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	err := c.reach(running)
	if err == nil {
		err = c.consume(running, fail)
	}
	if ctx.Err() != nil {
		err = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.admin, c.notReady = nil, cmp.Or(err, errNotRunning)
	return err
}

var errNotRunning = errors.New("not running")

// reach waits until a broker answers. kgo would go on for ever with a wrong password, and say so nowhere.
func (c *Consumer) reach(ctx context.Context) error {
	for {
		err := c.checkTopics(ctx)
		if err == nil || !Unreachable(err) {
			return err
		}
		c.setNotReady(err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *Consumer) checkTopics(ctx context.Context) error {
	a, err := c.cluster.admin()
	if err != nil {
		return err
	}
	defer a.Close()
	found, err := a.topics(ctx, c.config.Topics)
	for _, topic := range c.config.Topics {
		if _, ok := found[topic]; err == nil && !ok {
			return missing(topic)
		}
	}
	return err
}

// consume polls until ctx ends, and then leaves the group. It returns the cause.
func (c *Consumer) consume(ctx context.Context, fail context.CancelCauseFunc) error {
	client, err := c.open(fail)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		for _, failed := range fetches.Errors() {
			if err := c.judge(ctx, failed.Topic, failed.Partition, failed.Err); err != nil {
				fail(err)
			}
		}
		fetches.EachPartition(c.deliver)
		client.AllowRebalance()
	}
	c.setNotReady(errors.New("draining"))
	// Leaving the group revokes every partition. The time limit is for brokers that do not answer.
	leave, cancel := context.WithTimeout(context.Background(), c.config.DrainTimeout+2*commitTimeout)
	defer cancel()
	if err := client.LeaveGroupContext(leave); err != nil {
		c.log.WarnContext(ctx, "the group was not left, its partitions wait for the session timeout",
			"group", c.config.Group, "error", err)
	}
	client.Close()
	return context.Cause(ctx)
}

func (c *Consumer) open(fail context.CancelCauseFunc) (*kgo.Client, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	c.mu.Lock() // kgo's callbacks wait for what is set here
	defer c.mu.Unlock()
	last, brokers := &lastConnect{}, &brokerErrors{failed: map[int32]brokerError{}}
	client, err := kgo.NewClient(append(opts, kgo.WithHooks(last, brokers))...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	c.admin = &admin{Client: kadm.NewClient(client), client: client, brokers: c.cluster.Brokers, last: last}
	c.partitions, c.fail, c.brokers = map[topicPartition]*AssignedPartition{}, fail, brokers
	c.notReady = fmt.Errorf("not yet a member of group %s", c.config.Group)
	return client, nil
}

// commitTimeout is how long the commit at a revocation is retried. Without it, records are delivered again.
const commitTimeout = 5 * time.Second

func (c *Consumer) assign(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notReady = nil
	for topic, numbers := range partitions {
		for _, number := range numbers {
			p := newPartition(c, client, topicPartition{topic, number})
			c.partitions[p.topicPartition] = p
			go p.run()
		}
	}
}

// located is called with the offsets at which new partitions begin: committed ones, or negative.
func (c *Consumer) located(
	_ context.Context, offsets map[string]map[int32]kgo.Offset,
) (map[string]map[int32]kgo.Offset, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, partitions := range offsets {
		for number, offset := range partitions {
			if p := c.partitions[topicPartition{topic, number}]; p != nil {
				p.locate(offset.EpochOffset().Offset)
			}
		}
	}
	return offsets, nil
}

func (c *Consumer) revoke(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	c.stop(client, partitions, c.config.DrainTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	if err := client.CommitMarkedOffsets(ctx); err != nil {
		c.log.WarnContext(ctx, "the commit at a revocation failed, records will be delivered again",
			"group", c.config.Group, "error", err)
	}
}

func (c *Consumer) lose(_ context.Context, client *kgo.Client, partitions map[string][]int32) {
	c.setNotReady(fmt.Errorf("no longer a member of group %s", c.config.Group))
	// They may have another owner already. When this returns, kgo forgets the marks.
	c.stop(client, partitions, 0)
}

// stop waits until the handlers of partitions have finished their batch, and cancels those that take longer than limit.
func (c *Consumer) stop(client *kgo.Client, partitions map[string][]int32, limit time.Duration) {
	var stopping []*AssignedPartition
	c.mu.Lock()
	for topic, numbers := range partitions {
		for _, number := range numbers {
			at := topicPartition{topic, number}
			if p := c.partitions[at]; p != nil {
				delete(c.partitions, at)
				stopping = append(stopping, p)
			}
		}
	}
	c.mu.Unlock()
	for _, p := range stopping {
		close(p.stopping)
	}
	late := time.AfterFunc(limit, func() {
		for _, p := range stopping {
			p.cancel()
		}
	})
	defer late.Stop()
	for _, p := range stopping {
		<-p.done
		p.cancel()
	}
	client.ResumeFetchPartitions(partitions) // kgo would remember the pause until the partition comes back
}

func (c *Consumer) deliver(fetched kgo.FetchTopicPartition) {
	if len(fetched.Records) == 0 {
		return
	}
	c.mu.Lock()
	p := c.partitions[topicPartition{fetched.Topic, fetched.Partition}]
	c.mu.Unlock()
	if p == nil {
		c.fail(fmt.Errorf("records of partition %d of %s, which is not assigned", fetched.Partition, fetched.Topic))
		return
	}
	p.add(fetched.Records)
}

// committed is called with the answer to each periodic commit.
func (c *Consumer) committed(
	_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error,
) {
	c.mu.Lock()
	fail := c.fail
	c.mu.Unlock()
	if err == nil && response != nil {
		for _, topic := range response.Topics {
			for _, p := range topic.Partitions {
				err = cmp.Or(err, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	}
	if err == nil {
		return
	}
	c.log.Warn("commit failed", "group", c.config.Group, "error", err) // the next one commits more
	if errors.Is(err, kerr.GroupAuthorizationFailed) || errors.Is(err, kerr.TopicAuthorizationFailed) {
		fail(&Denied{"group " + c.config.Group, "commit to it", "Read"})
	}
}

// judge returns an error if waiting does not mend err. Otherwise Ready shows it until the group is joined again.
func (c *Consumer) judge(ctx context.Context, topic string, partition int32, err error) error {
	_, group := errors.AsType[*kgo.ErrGroupSession](err)
	answer, _ := errors.AsType[*kerr.Error](err)
	switch lost, truncated := errors.AsType[*kgo.ErrDataLoss](err); {
	case ctx.Err() != nil, errors.Is(err, kgo.ErrClientClosed):
		return nil
	case truncated:
		c.log.WarnContext(ctx, "the brokers have lost records that were read", "group", c.config.Group, "error", lost)
		return nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return deniedRead(topic)
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return &Denied{"group " + c.config.Group, "join it", "Read"}
	case errors.Is(err, kerr.FencedInstanceID):
		return fmt.Errorf("group %s: another member has the instance id %q: %w",
			c.config.Group, c.config.InstanceID, err)
	case errors.Is(err, kerr.UnknownTopicID): // kgo does not read it any more
		if failed := c.checkTopics(ctx); failed != nil && !Unreachable(failed) {
			return failed
		}
		return fmt.Errorf("topic %s was deleted and created again while it was read: %w", topic, err)
	case errors.Is(err, kerr.OffsetOutOfRange):
		return fmt.Errorf("partition %d of %s no longer has the offset at which group %s continues: "+
			"set its commit with kafka-consumer-groups --reset-offsets: %w", partition, topic, c.config.Group, err)
	case group && (answer == nil || answer.Retriable || slices.Contains(rejoins, answer)):
		c.setNotReady(c.admin.fail("join group "+c.config.Group, err))
		return nil
	case group:
		return c.admin.fail("join group "+c.config.Group, err)
	case Unreachable(err):
		return nil
	}
	return c.admin.fail(fmt.Sprintf("read partition %d of %s", partition, topic), err)
}

// rejoins are the answers to a member whose session has ended. It joins again.
var rejoins = []*kerr.Error{kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress}

package epochs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A kafkaTxnProducer is the txnProducer of a cluster. Records are produced by franz-go. The input offsets, which
// sarama's consumer group has read, are added by requests made here: franz-go's transactional consumer joins the group
// itself, and goka could not use it.
type kafkaTxnProducer struct {
	client          *kgo.Client
	group           string
	transactionalID string
	instance        string
	session         atomic.Pointer[groupMember] // nil between two sessions
	bound           *groupMember                // the session that bind was called in
}

// A groupMember is this instance's membership during one session of the consumer group.
type groupMember struct {
	id         string
	generation int32
}

func memberOf(s sarama.ConsumerGroupSession) *groupMember {
	return &groupMember{id: s.MemberID(), generation: s.GenerationID()}
}

// transactionVersions limits franz-go to the transaction protocol that Kafka 2.5 to 4.1 have in common, in which
// partitions and offsets are added to a transaction by explicit requests. With that of Kafka 4 (KIP-890) a produce
// request adds its partition itself. The requests for the offsets would have to use the same protocol, and franz-go
// does not say which one it uses. Brokers of Kafka 4 also protect the older protocol from late records.
func transactionVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(kmsg.Produce.Int16(), 11)
	v.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)
	v.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 4)
	v.SetMaxKeyVersion(kmsg.OffsetCommit.Int16(), 9) // topics by name
	return v
}

// openTxnProducer fences an earlier producer of the same transactional id: its open transaction is aborted now.
func openTxnProducer(conf Config, open opener, more ...kgo.Opt) (*kafkaTxnProducer, error) {
	p := &kafkaTxnProducer{
		group: conf.Name, instance: conf.InstanceID,
		transactionalID: TransactionalID(conf.Name, conf.InstanceID),
	}
	more = append(more, kgo.TransactionalID(p.transactionalID), kgo.TransactionTimeout(transactionTimeout),
		kgo.MaxVersions(transactionVersions()),
		kgo.ConcurrentTransactionsBackoff(concurrentTransactionsBackoff))
	var err error
	if p.client, err = open(more...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*transactionTimeout)
	defer cancel()
	if _, _, err := p.client.ProducerID(ctx); err != nil {
		p.client.Close()
		return nil, fmt.Errorf("initialise transactional id %s: %w", p.transactionalID, err)
	}
	return p, nil
}

// TransactionalID returns the transactional id of an instance of a group.
func TransactionalID(group, instance string) string { return group + "-" + instance }

func (p *kafkaTxnProducer) bind() { p.bound = p.session.Load() }

func (p *kafkaTxnProducer) begin() error {
	if p.bound == nil {
		return errClosed
	}
	return p.client.BeginTransaction()
}

func (p *kafkaTxnProducer) send(r *kgo.Record, acked func(r *kgo.Record, err error)) {
	p.client.Produce(context.Background(), r, acked)
}

// flush ends the linger time: all records of the transaction are sent. Each record's own callback gets its error.
func (p *kafkaTxnProducer) flush(ctx context.Context) { _ = p.client.Flush(ctx) }

func (p *kafkaTxnProducer) end(ctx context.Context, commit bool) error {
	if commit {
		if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return fmt.Errorf("commit transaction of %s: %w", p.transactionalID, err)
		}
		return nil
	}
	if err := p.client.AbortBufferedRecords(ctx); err != nil {
		return fmt.Errorf("abort transaction of %s: %w", p.transactionalID, err)
	}
	if err := p.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("abort transaction of %s: %w", p.transactionalID, err)
	}
	return nil
}

func (p *kafkaTxnProducer) addOffsets(ctx context.Context, next map[partitionID]inputOffset) error {
	m := p.bound
	producer, epoch, err := p.client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("transaction of %s: %w", p.transactionalID, err)
	}
	if err := p.addGroup(ctx, producer, epoch); err != nil {
		return fmt.Errorf("add group %s to the transaction of %s: %w", p.group, p.transactionalID, err)
	}
	request := kmsg.NewPtrTxnOffsetCommitRequest()
	request.TransactionalID, request.ProducerID, request.ProducerEpoch = p.transactionalID, producer, epoch
	request.Group, request.MemberID, request.Generation, request.InstanceID = p.group, m.id, m.generation, &p.instance
	for topic, offsets := range byTopic(next) {
		t := kmsg.NewTxnOffsetCommitRequestTopic()
		t.Topic = topic
		for partition, c := range offsets {
			p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.Metadata = partition, c.offset, &c.metadata
			t.Partitions = append(t.Partitions, p)
		}
		request.Topics = append(request.Topics, t)
	}
	err = retryCoordinator(ctx, func() error {
		response, err := request.RequestWith(ctx, p.client)
		if err != nil {
			return err
		}
		var refused error
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				refused = cmp.Or(refused, kerr.ErrorForCode(p.ErrorCode))
			}
		}
		return refused
	})
	if err != nil {
		return fmt.Errorf("add the offsets of group %s to the transaction of %s: %w", p.group, p.transactionalID, err)
	}
	return nil
}

// addGroup announces to the transaction coordinator that offsets of the group are added.
func (p *kafkaTxnProducer) addGroup(ctx context.Context, producer int64, epoch int16) error {
	request := kmsg.NewPtrAddOffsetsToTxnRequest()
	request.TransactionalID, request.Group = p.transactionalID, p.group
	request.ProducerID, request.ProducerEpoch = producer, epoch
	return retryCoordinator(ctx, func() error {
		response, err := request.RequestWith(ctx, p.client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.ErrorCode)
	})
}

// commitOffsets commits outside a transaction. The generation fences a former member.
func (p *kafkaTxnProducer) commitOffsets(ctx context.Context, next map[partitionID]inputOffset) error {
	m := p.bound
	switch {
	case m == nil:
		return errClosed
	case len(next) == 0:
		return nil
	}
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.MemberID, request.Generation, request.InstanceID = p.group, m.id, m.generation, &p.instance
	for topic, offsets := range byTopic(next) {
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic = topic
		for partition, c := range offsets {
			p := kmsg.NewOffsetCommitRequestTopicPartition()
			p.Partition, p.Offset, p.Metadata = partition, c.offset, &c.metadata
			t.Partitions = append(t.Partitions, p)
		}
		request.Topics = append(request.Topics, t)
	}
	err := retryCoordinator(ctx, func() error {
		response, err := request.RequestWith(ctx, p.client)
		if err != nil {
			return err
		}
		var refused error
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				refused = cmp.Or(refused, kerr.ErrorForCode(p.ErrorCode))
			}
		}
		return refused
	})
	if err != nil {
		return fmt.Errorf("commit the offsets of group %s: %w", p.group, err)
	}
	return nil
}

// concurrentTransactionsBackoff is the pause while the markers of the transaction before are being written. franz-go's
// own is 20 ms, longer than most epochs.
const concurrentTransactionsBackoff = 5 * time.Millisecond

// retryCoordinator repeats a request while the coordinator answers with a retriable error or is busy with the
// transaction before. When ctx ends it returns the last answer.
func retryCoordinator(ctx context.Context, ask func() error) error {
	pauses := backoff.ExponentialBackOff{
		InitialInterval: 5 * time.Millisecond, MaxInterval: 250 * time.Millisecond,
		Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	for {
		err := ask()
		if _, answered := errors.AsType[*kerr.Error](err); !answered ||
			!kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
			return err
		}
	}
}

func byTopic(next map[partitionID]inputOffset) map[string]map[int32]inputOffset {
	topics := map[string]map[int32]inputOffset{}
	for at, c := range next {
		if topics[at.topic] == nil {
			topics[at.topic] = map[int32]inputOffset{}
		}
		topics[at.topic][at.number] = c
	}
	return topics
}

package epochs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A clusterLedger holds transactions with a cluster: franz-go produces in them, and the input offsets, which sarama's group
// has read, are put into them by requests of our own. franz-go's own transactional consumer brings a group with it that goka
// could not use.
type kafkaTxnProducer struct {
	client          *kgo.Client
	group           string
	transactionalID string // transactional
	instance        string
	session         atomic.Pointer[groupMember] // nil between two sessions
	openedIn        *groupMember                // of the transaction that is open
}

// A membership is one session of the consumer group.
type groupMember struct {
	id         string
	generation int32
}

func memberOf(s sarama.ConsumerGroupSession) *groupMember {
	return &groupMember{id: s.MemberID(), generation: s.GenerationID()}
}

// transactionVersions keep franz-go to the transactions that Kafka 2.5 to 4.1 speak alike, in which partitions and offsets
// are added to a transaction by name. In those of Kafka 4 (KIP-890) a produce request adds its partition by itself, and whether
// the client has gone over to them cannot be asked; the requests for our offsets must be of the same kind. Brokers of Kafka 4
// protect the older kind from late records as well.
func transactionVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(kmsg.Produce.Int16(), 11)
	v.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)
	v.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 4)
	v.SetMaxKeyVersion(kmsg.OffsetCommit.Int16(), 9) // topics by name
	return v
}

// openLedger fences whoever used the transactional id before: a transaction of its own that is still open is aborted now.
func openTxnProducer(conf Config, open opener, more ...kgo.Opt) (*kafkaTxnProducer, error) {
	l := &kafkaTxnProducer{group: conf.Name, instance: conf.InstanceID, transactionalID: TransactionalID(conf.Name, conf.InstanceID)}
	more = append(more, kgo.TransactionalID(l.transactionalID), kgo.TransactionTimeout(transactionTimeout), kgo.MaxVersions(transactionVersions()),
		kgo.ConcurrentTransactionsBackoff(concurrentTransactionsBackoff))
	var err error
	if l.client, err = open(more...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*transactionTimeout)
	defer cancel()
	if _, _, err := l.client.ProducerID(ctx); err != nil {
		l.client.Close()
		return nil, fmt.Errorf("begin with transactional id %s: %w", l.transactionalID, err)
	}
	return l, nil
}

// TransactionalID is the name under which an instance of a group writes transactions. Two instances of one name fence each other.
func TransactionalID(group, instance string) string { return group + "-" + instance }

func (l *kafkaTxnProducer) begin() error {
	if l.openedIn = l.session.Load(); l.openedIn == nil {
		return errClosed
	}
	return l.client.BeginTransaction()
}

func (l *kafkaTxnProducer) send(r *kgo.Record, done func(offset int64, err error)) {
	send(l.client, r, done)
}

// flush ends the lingering of records: all that belong together were sent. What becomes of them each is told by itself.
func (l *kafkaTxnProducer) flush(ctx context.Context) { _ = l.client.Flush(ctx) }

func (l *kafkaTxnProducer) end(ctx context.Context, commit bool) error {
	if commit {
		if err := l.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return fmt.Errorf("commit transaction of %s: %w", l.transactionalID, err)
		}
		return nil
	}
	if err := l.client.AbortBufferedRecords(ctx); err != nil {
		return fmt.Errorf("abort transaction of %s: %w", l.transactionalID, err)
	}
	if err := l.client.EndTransaction(ctx, kgo.TryAbort); err != nil {
		return fmt.Errorf("abort transaction of %s: %w", l.transactionalID, err)
	}
	return nil
}

func (l *kafkaTxnProducer) addOffsets(ctx context.Context, next map[partitionID]inputOffset) error {
	m := l.openedIn // not a later session's: its partitions may be others
	producer, epoch, err := l.client.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("transaction of %s: %w", l.transactionalID, err)
	}
	if err := l.addGroup(ctx, producer, epoch); err != nil {
		return fmt.Errorf("add group %s to the transaction of %s: %w", l.group, l.transactionalID, err)
	}
	request := kmsg.NewPtrTxnOffsetCommitRequest()
	request.TransactionalID, request.ProducerID, request.ProducerEpoch = l.transactionalID, producer, epoch
	request.Group, request.MemberID, request.Generation, request.InstanceID = l.group, m.id, m.generation, &l.instance
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
		response, err := request.RequestWith(ctx, l.client)
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
		return fmt.Errorf("add the offsets of group %s to the transaction of %s: %w", l.group, l.transactionalID, err)
	}
	return nil
}

// addGroup tells the transaction's coordinator that offsets of the group will be in it.
func (l *kafkaTxnProducer) addGroup(ctx context.Context, producer int64, epoch int16) error {
	request := kmsg.NewPtrAddOffsetsToTxnRequest()
	request.TransactionalID, request.ProducerID, request.ProducerEpoch, request.Group = l.transactionalID, producer, epoch, l.group
	return retryCoordinator(ctx, func() error {
		response, err := request.RequestWith(ctx, l.client)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(response.ErrorCode)
	})
}

// commit needs no protection by a transaction, only by the generation.
func (l *kafkaTxnProducer) commitOffsets(ctx context.Context, next map[partitionID]inputOffset) error {
	m := l.session.Load()
	switch {
	case m == nil:
		return errClosed
	case len(next) == 0:
		return nil
	}
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group, request.MemberID, request.Generation, request.InstanceID = l.group, m.id, m.generation, &l.instance
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
		response, err := request.RequestWith(ctx, l.client)
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
		return fmt.Errorf("commit the offsets of group %s: %w", l.group, err)
	}
	return nil
}

// markersPause is how long to wait while the markers of the transaction before are being written; franz-go's own is 20 ms, as long as
// an epoch.
const concurrentTransactionsBackoff = 5 * time.Millisecond

// untilDecided asks again while the answer is that something else must come first, or another broker is to be asked.
func retryCoordinator(ctx context.Context, ask func() error) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := ask()
		if _, told := errors.AsType[*kerr.Error](err); !told || !kerr.IsRetriable(err) && !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		select {
		case <-time.After(pause):
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

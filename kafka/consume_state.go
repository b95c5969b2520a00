package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (c *Consumer) setNotReady(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notReady = err
}

// Ready returns nil while the group is joined, every partition assigned has an offset to read from and the brokers
// answer.
func (c *Consumer) Ready() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.admin == nil:
		return c.notReady
	case c.notReady != nil:
		return errors.Join(c.notReady, c.brokers.recent())
	}
	for at, p := range c.partitions {
		if offset, _ := p.next(); offset == unlocated {
			unknown := fmt.Errorf("the commit of partition %d of %s is not known yet", at.partition, at.topic)
			return errors.Join(unknown, c.brokers.recent())
		}
	}
	return c.brokers.recent()
}

// A ConsumerLag is how much of an assigned partition is not handled.
type ConsumerLag struct {
	Topic     string
	Partition int32
	Records   int64         // up to the last stable offset; control records and aborted records count
	Age       time.Duration // of the next record, by its timestamp; 0: none, or not fetched yet
}

// Lag asks the brokers for the ends of the assigned partitions.
func (c *Consumer) Lag(ctx context.Context) ([]ConsumerLag, error) {
	c.mu.Lock()
	admin := c.admin
	c.mu.Unlock()
	if admin == nil {
		return nil, errNotRunning
	}
	starts, err := admin.ListStartOffsets(ctx, c.config.Topics...)
	if err != nil {
		return nil, admin.fail("look up the offsets of "+strings.Join(c.config.Topics, ", "), err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, c.config.Topics...)
	if err != nil {
		return nil, admin.fail("look up the offsets of "+strings.Join(c.config.Topics, ", "), err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var lags []ConsumerLag
	for at, p := range c.partitions {
		start, _ := starts.Lookup(at.topic, at.partition)
		end, found := ends.Lookup(at.topic, at.partition)
		err := errors.Join(start.Err, end.Err)
		if err == nil && !found {
			err = kerr.UnknownTopicOrPartition
		}
		if err != nil {
			return nil, admin.fail(fmt.Sprintf("look up partition %d of %s", at.partition, at.topic), err)
		}
		next, age := p.next()
		records := max(0, end.Offset-max(next, start.Offset))
		lags = append(lags, ConsumerLag{at.topic, at.partition, records, age})
	}
	slices.SortFunc(lags, func(x, y ConsumerLag) int {
		return cmp.Or(cmp.Compare(x.Topic, y.Topic), cmp.Compare(x.Partition, y.Partition))
	})
	return lags, nil
}

// brokerErrors are hooks of kgo, which retries without saying so: they keep the last error of each broker until it
// answers.
type brokerErrors struct {
	mu     sync.Mutex
	failed map[int32]brokerError
}

type brokerError struct {
	address string
	err     error
	at      time.Time
}

// brokerErrorAge is how long an error counts. A broker that is still needed is asked again, and fails again, within
// some seconds.
const brokerErrorAge = 10 * time.Second

// OnBrokerConnect is kgo's hook.
func (b *brokerErrors) OnBrokerConnect(broker kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		b.note(broker, err)
	}
}

// OnBrokerE2E is kgo's hook.
func (b *brokerErrors) OnBrokerE2E(broker kgo.BrokerMetadata, _ int16, request kgo.BrokerE2E) {
	b.note(broker, request.Err())
}

func (b *brokerErrors) note(broker kgo.BrokerMetadata, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed) { // by this client
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		delete(b.failed, broker.NodeID)
		return
	}
	address := net.JoinHostPort(broker.Host, strconv.Itoa(int(broker.Port)))
	b.failed[broker.NodeID] = brokerError{address, err, time.Now()}
}

// recent returns the errors of brokers that have not answered since.
func (b *brokerErrors) recent() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, failed := range b.failed {
		if time.Since(failed.at) < brokerErrorAge {
			errs = append(errs, fmt.Errorf("broker %s: %w", failed.address, failed.err))
		}
	}
	return errors.Join(errs...)
}

package epochs

import (
	"errors"
	"time"

	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// An epochStorage is the storage.Storage of one partition of the table. goka asks it for the offset at which recovery
// begins, and opens and closes it. Callbacks read and set rows through their gatedContext, and rows that goka recovers
// are written by Epochs.applyRecovered, so goka reads and writes none.
type epochStorage struct {
	*localstore.Partition
	epochs    *Epochs
	partition *partitionEpochs
}

var errNotByGoka = errors.New(
	"rows are read and set through the context of a callback: a row that is not published must not be shown")

// Get is refused, like all other calls for rows.
func (s *epochStorage) Get(string) ([]byte, error) { return nil, errNotByGoka }
func (s *epochStorage) Has(string) (bool, error)   { return false, errNotByGoka }
func (s *epochStorage) Set(string, []byte) error   { return errNotByGoka }
func (s *epochStorage) Delete(string) error        { return errNotByGoka }

func (s *epochStorage) Iterator() (storage.Iterator, error) { return nil, errNotByGoka }

func (s *epochStorage) IteratorWithRange(_, _ []byte) (storage.Iterator, error) {
	return nil, errNotByGoka
}

// SetOffset does nothing: the offset is written with the rows. See recover.
func (s *epochStorage) SetOffset(int64) error { return nil }

// MarkRecovered does nothing: goka also calls it when the recovery was interrupted. See Epochs.startPartition.
func (s *epochStorage) MarkRecovered() error { return nil }

// Close publishes what the partition's callbacks have done, for up to drainTimeout, and ends its epochs. What is not
// published by then is processed again by the next owner.
func (s *epochStorage) Close() error {
	overdue := time.AfterFunc(drainTimeout, func() { s.partition.fail(errClosed) })
	s.partition.publisher.drain()
	overdue.Stop()
	s.epochs.removePartition(s.Number())
	s.partition.close()
	return s.Partition.Close()
}

// touchInterval is shorter than the interval at which the store writes the time.
const touchInterval = 15 * time.Second

// touchPartitions notes in the store that the recovered partitions are up to date, whether records come or not, until
// the producer is closed.
func (e *Epochs) touchPartitions() {
	defer close(e.touchDone)
	tick := time.NewTicker(touchInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-e.closed:
			return
		}
		for _, p := range e.partitions() {
			if !p.recovered.Load() {
				continue
			}
			if err := p.store.Touch(); err != nil {
				p.fail(err)
			}
		}
	}
}

package epochs

import (
	"errors"
	"time"

	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// An epochStorage is the storage.Storage that goka uses. It reads the rows that are buffered in epochs, and below them
// those on the disk. A row that is set through it reaches the disk when its epoch is published. Rows that goka recovers
// from the changelog are published already, and written by Epochs.applyRecovered.
type epochStorage struct {
	*localstore.Partition
	*partitionEpochs
	epochs *Epochs
}

// Get fails the partition on an error. goka fails only its own context, and while it stops the callback goes on as if
// there were no row; what it does then must not be published.
func (s *epochStorage) Get(key string) ([]byte, error) {
	value, err := s.current(key)
	if err != nil {
		s.fail(err)
	}
	s.rowFound.Store(value != nil)
	return value, err
}

func (s *epochStorage) Has(key string) (bool, error) {
	value, err := s.Get(key)
	return value != nil, err
}

// Set notes the call for gatedContext.SetValue.
func (s *epochStorage) Set(key string, value []byte) error {
	s.rowSet = true
	return s.set(key, value)
}

func (s *epochStorage) Delete(key string) error { return s.set(key, nil) }

// MarkRecovered does nothing: goka also calls it when the recovery was interrupted. See Epochs.startPartition.
func (s *epochStorage) MarkRecovered() error { return nil }

// Close stops the partition's epochs first: they write to the store.
func (s *epochStorage) Close() error {
	if s.transactions != nil {
		s.transactions.flush() // the effects of the last records, while the partition is still registered
	}
	s.epochs.removePartition(s.Number())
	s.close()
	return s.Partition.Close()
}

var errNoIterator = errors.New("a table with epochs has no iterators: read a view, which has the published rows")

// Iterator and IteratorWithRange are refused: rows that are not published must not be shown, and callbacks do not need
// them.
func (s *epochStorage) Iterator() (storage.Iterator, error) { return nil, errNoIterator }

func (s *epochStorage) IteratorWithRange(_, _ []byte) (storage.Iterator, error) {
	return nil, errNoIterator
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

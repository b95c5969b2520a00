package epochs

import (
	"errors"
	"time"

	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// An epochStorage is what goka reads and writes: the rows that wait in epochs over those on the disk. Nothing written
// through it reaches the disk before its epoch is published; what goka recovers from the changelog is written by
// Epochs.recover instead, because it is published already.
type epochStorage struct {
	*localstore.Partition
	*partitionEpochs
	epochs *Epochs
}

// Get fails the partition when it fails: goka tells its own context only, which lets a callback go on while it is stopping, and
// what is folded onto no row must not be published.
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

// Set notes that it was called, for the callback's context.
func (s *epochStorage) Set(key string, value []byte) error {
	s.rowSet = true
	return s.set(key, value)
}

func (s *epochStorage) Delete(key string) error { return s.set(key, nil) }

// MarkRecovered does nothing: goka calls it also when the recovery was cut short. See Epochs.begin.
func (s *epochStorage) MarkRecovered() error { return nil }

// Close stops the partition's epochs first: they write to the shelf.
func (s *epochStorage) Close() error {
	if s.transactions != nil {
		s.transactions.flush() // what came of the last records, while the partition can still be found
	}
	s.epochs.removePartition(s.Number())
	s.close()
	return s.Partition.Close()
}

var errNoIterator = errors.New("a table with epochs has no iterators: read a view, which holds what is published")

// Iterator and IteratorWithRange are refused: what waits in epochs is not to be shown, and callbacks have no use for them.
func (s *epochStorage) Iterator() (storage.Iterator, error) { return nil, errNoIterator }

func (s *epochStorage) IteratorWithRange(_, _ []byte) (storage.Iterator, error) {
	return nil, errNoIterator
}

// renewEvery is oftener than the store writes it down.
const touchInterval = 15 * time.Second

// renew tells the store of the partitions whose rows are kept up to date that they are, records or not, until the producer is closed.
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

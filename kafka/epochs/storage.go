package epochs

import (
	"errors"

	"github.com/lovoo/goka/storage"

	"tidemark/kafka/localstore"
)

// An epochStorage is what goka reads and writes: the rows that wait in epochs over those on the disk. Nothing written
// through it reaches the disk before its epoch is published; what goka recovers from the changelog is written by
// Epochs.recover instead, because it is published already.
type epochStorage struct {
	*localstore.Shelf
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
	s.found.Store(value != nil)
	return value, err
}

func (s *epochStorage) Has(key string) (bool, error) {
	value, err := s.Get(key)
	return value != nil, err
}

func (s *epochStorage) Set(key string, value []byte) error { return s.set(key, value) }
func (s *epochStorage) Delete(key string) error            { return s.set(key, nil) }

// MarkRecovered is called by goka when the rows are those of the changelog's end; from there on it is read back.
func (s *epochStorage) MarkRecovered() error {
	offset, err := s.GetOffset(-1)
	if err != nil {
		return err
	}
	if !s.epochs.recovered(s.partitionEpochs, offset) {
		return nil
	}
	return s.rewrite()
}

// Close stops the partition's epochs first: they write to the shelf.
func (s *epochStorage) Close() error {
	if s.shared != nil {
		s.shared.flush() // what came of the last records, while the partition can still be found
	}
	s.epochs.forget(s.Partition())
	s.close()
	return s.Shelf.Close()
}

var errNoIterator = errors.New("a table with epochs has no iterators: read a view, which holds what is published")

// Iterator and IteratorWithRange are refused: what waits in epochs is not to be shown, and callbacks have no use for them.
func (s *epochStorage) Iterator() (storage.Iterator, error) { return nil, errNoIterator }

func (s *epochStorage) IteratorWithRange(_, _ []byte) (storage.Iterator, error) {
	return nil, errNoIterator
}
